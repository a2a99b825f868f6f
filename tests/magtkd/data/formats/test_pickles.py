"""Pickles of features: honest ones are read as they are, hostile ones do nothing."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import operator
import os
import pickle
import pickletools
import re
import struct
import subprocess
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from magtkd.data.formats.pickles import read_pickle
from magtkd.errors import DataError

PROTOCOLS = range(6)
Read = Callable[..., Any]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Reads a pickle from a file."""

    def run(content: bytes, **options: Any) -> Any:
        path = tmp_path / "features.pkl"
        path.write_bytes(content)
        return read_pickle(path, **options)

    return run


def same(left: Any, right: Any) -> bool:
    """Whether two values agree in types and content, NaN included."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        same_kind = (left.dtype, left.shape) == (right.dtype, right.shape)
        is_plain = not left.dtype.hasobject
        return same_kind and (
            left.tobytes() == right.tobytes() if is_plain else same([*left.flat], [*right.flat])
        )
    if isinstance(left, dict):
        return list(left) == list(right) and same([*left.values()], [*right.values()])
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return bool(left == right) or repr(left) == repr(right) == "nan"


# --- honest files -----------------------------------------------------------------------------


def published_layout() -> tuple[Any, ...]:
    """COSMIC's and SDT's tuple: ids, speakers, labels, four text features, audio, visual,
    sentences, train ids, dev ids, test ids, by dialogue."""
    generator = np.random.default_rng(0)
    lengths = {"Ses01F_impro01": 3, "Ses05M_script03_2": 2}

    def features(width: int) -> dict[str, Any]:
        return {
            name: list(generator.standard_normal((length, width)).astype("f4"))
            for name, length in lengths.items()
        }

    return (
        {name: [f"{name}_{index}" for index in range(n)] for name, n in lengths.items()},
        {name: ["M", "F", "M"][:n] for name, n in lengths.items()},
        {name: [0, 5, 2][:n] for name, n in lengths.items()},
        *(features(7) for _ in range(4)),
        features(5),
        {name: np.stack(rows) for name, rows in features(3).items()},
        {name: ["Oh, no.", "Café?", "Yes"][:n] for name, n in lengths.items()},
        ["Ses01F_impro01"],
        {"Ses01F_impro01"},
        ["Ses05M_script03_2"],
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_published_tuple(read: Read, protocol: int) -> None:
    layout = published_layout()
    assert len(layout) == 13
    content = pickle.dumps(layout, protocol)
    assert same(read(content), layout)
    if protocol < 4:  # the text of a name has no length in front
        assert same(read(content.replace(b"numpy._core", b"numpy.core")), layout)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_dictionary_of_tensors(read: Read, protocol: int) -> None:
    text = torch.randn(5, 7)
    first_stage = {
        "text": {"train": text, "dev": text[1:3], "test": text.T},
        "audio": OrderedDict(train=torch.nn.Parameter(text)),
        "video": [torch.arange(3), text > 0, text.half(), text.to(torch.bfloat16), torch.tensor(1)],
    }
    loaded = read(pickle.dumps(first_stage, protocol))
    assert not loaded["audio"]["train"].requires_grad
    assert loaded["text"]["dev"].data_ptr() != text[1:3].data_ptr()
    assert same(loaded["audio"].pop("train"), first_stage["audio"].pop("train").data)
    assert same(loaded, first_stage)


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_file_of_torch_save(tmp_path: Path, is_zip: bool) -> None:
    values = {"text": torch.randn(3, 2), "ids": ["a", "b"], "labels": torch.arange(3)}
    torch.save(values, tmp_path / "t.pt", _use_new_zipfile_serialization=is_zip)
    assert same(read_pickle(tmp_path / "t.pt"), values)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "value",
    [
        np.float32(2.5),
        np.str_("no"),
        np.str_(""),
        np.bool_(True),
        np.dtype(">f8"),
        np.array([b"a", b"bc"]),
        np.array(["a", "bcd"]),
        np.array(["a", None, [1, np.float64(2)]], object).reshape(3, 1),
        np.arange(6, dtype=">i2").reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(24.0).reshape(2, 3, 4).transpose(1, 0, 2),
        np.zeros((0, 3)),
        np.array(7),
        defaultdict(list, {"a": [1]}),
        OrderedDict([("b", 1), ("a", np.arange(2))]),
        # Sets print in another order in each process, and a test has one name.
        pytest.param(
            {1: {2.5, "x"}, (1, "a"): frozenset([None, True]), b"": b"\xff", "": bytearray(b"ab")},
            id="sets and bytes",
        ),
        -(1 << 90),
    ],
    ids=repr,
)
def test_each_admitted_value(read: Read, value: Any, protocol: int) -> None:
    loaded = read(pickle.dumps(value, protocol))
    assert same(loaded, value)
    if isinstance(value, defaultdict):
        assert loaded.default_factory is list
    if isinstance(value, np.ndarray):
        assert loaded.flags.writeable


def test_what_is_shared_or_circular_stays_so(read: Read) -> None:
    array = np.arange(3.0)
    circle: list[Any] = [array, {"same": array}, (array,)]
    circle.append(circle)
    loaded = read(pickle.dumps(circle))
    assert loaded[3] is loaded
    assert loaded[1]["same"] is loaded[0] is loaded[2][0]


def object_array(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), object)
    for index, item in enumerate(items):
        array[index] = [item]
    return array


atoms = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
arrays = hnp.arrays(
    hnp.floating_dtypes(sizes=(32, 64)) | hnp.integer_dtypes() | hnp.boolean_dtypes(),
    hnp.array_shapes(min_dims=0, min_side=0),
)
values = st.recursive(
    atoms | arrays,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=4)
        | st.lists(inner, min_size=1, max_size=4).map(object_array)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(value=values, protocol=st.integers(0, 5))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, value: Any, protocol: int) -> None:
    path = tmp_path_factory.getbasetemp() / "round.pkl"
    path.write_bytes(pickle.dumps(value, protocol))
    assert same(read_pickle(path), value)


# --- as Python 2 wrote it ---------------------------------------------------------------------


def python2(value: Any) -> bytes:  # noqa: PLR0911 (one kind a line)
    """The instructions with which Python 2's protocol 2 makes a value out of byte strings."""
    if isinstance(value, bytes):
        return b"T" + struct.pack("<i", len(value)) + value
    if isinstance(value, int):
        return b"J" + struct.pack("<i", value)
    if isinstance(value, dict):
        pairs = b"".join(python2(part) for pair in value.items() for part in pair)
        return b"}(" + pairs + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(python2, value)) + b"e"
    if isinstance(value, set):
        return b"c__builtin__\nset\n" + python2(sorted(value)) + b"\x85R"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(python2, value)) + b"t"
    code = b"(U\x02" + value.dtype.str[1:].encode() + b"K\x00K\x01tR"
    dtype = b"cnumpy\ndtype\n" + code + b"(K\x03U\x01<NNN" + 2 * python2(-1) + b"K\x00tb"
    empty = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
    state = b"(K\x01" + python2(value.shape) + dtype + b"\x89" + python2(value.tobytes()) + b"tb"
    return empty + state


@pytest.mark.parametrize(("encoding", "text"), [("latin1", "Ses01\xe9"), ("bytes", b"Ses01\xe9")])
def test_a_file_of_python_2(read: Read, encoding: str, text: Any) -> None:
    array = np.array([[1.5, -2.0], [3.25, 1e30]], "f4")
    content = python2(({b"Ses01\xe9": [array, 3]}, {b"Ses01\xe9"}))
    loaded = read(b"\x80\x02" + content + b".", encoding=encoding)
    assert same(loaded, ({text: [array, 3]}, {text}))


# --- hostile files ----------------------------------------------------------------------------

MARKER = "marker-of-a-pickle-that-ran"


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self.parts


ATTACKS: dict[str, tuple[Callable[[], Any], str]] = {
    "os.system": (lambda: Calls(os.system, f"touch {MARKER}"), r"(posix|os)\.system"),
    "eval": (lambda: Calls(eval, f"open('{MARKER}', 'w')"), r"builtin.*\.eval"),
    "exec": (lambda: Calls(exec, f"open('{MARKER}', 'w')"), r"builtin.*\.exec"),
    "open": (lambda: Calls(open, MARKER, "w"), r"\.open"),
    "getattr": (lambda: Calls(getattr, "system", "upper"), r"\.getattr"),
    "popen": (lambda: Calls(subprocess.Popen, ["touch", MARKER]), r"\.Popen"),
    "partial": (lambda: functools.partial(os.system, f"touch {MARKER}"), "functools.partial"),
    "attrgetter": (lambda: operator.attrgetter("system"), "operator.attrgetter"),
    "numpy.load": (lambda: Calls(np.load, "other.npy", None, True), r"numpy\.load"),
    "torch.load": (lambda: Calls(torch.load, "other.pt"), r"torch\.serialization\.load"),
    "pickle.loads": (lambda: Calls(pickle.loads, evil()), r"\.loads"),
    "a class": (lambda: Path(MARKER), "pathlib.*Path"),
    "defaultdict": (lambda: Calls(defaultdict, eval), "eval"),
    "codec": (lambda: Calls(__import__("_codecs").encode, "x", "rot13"), "another encoding"),
    "in an array": (
        lambda: np.array([1, Calls(os.system, f"touch {MARKER}")], object),
        r"(posix|os)\.system",
    ),
    "in a dict": (
        lambda: {"a": [(np.arange(3), Calls(os.system, f"touch {MARKER}"))]},
        r"(posix|os)\.system",
    ),
    "in a storage": (
        lambda: Calls(torch.storage._load_from_bytes, evil()),
        "not a whole pickle",
    ),
    "in a storage of torch": (
        lambda: Calls(torch.storage._load_from_bytes, evil_torch()),
        "not a whole pickle",
    ),
    "state of a function": (
        lambda: Calls(lookup(np._core.multiarray, "_reconstruct"), np.ndarray, (0,), b"b", state=1),
        "an array's state",
    ),
}


def lookup(module: Any, name: str) -> Any:
    return getattr(module, name)


def evil() -> bytes:
    return pickle.dumps(Calls(os.system, f"touch {MARKER}"))


def evil_torch() -> bytes:
    stream = io.BytesIO()
    torch.save(Calls(os.system, f"touch {MARKER}"), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


@pytest.fixture
def refused(read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Reads what must be refused in one line, and looks that nothing of it ran."""
    monkeypatch.chdir(tmp_path)

    def run(content: bytes, **options: Any) -> str:
        with pytest.raises(DataError, match=r"features\.pkl: ") as caught:
            read(content, **options)
        assert [path.name for path in tmp_path.iterdir()] == ["features.pkl"]
        line = str(caught.value)
        assert line.isprintable()
        assert line.startswith(f"{tmp_path}/features.pkl: ")
        return line

    return run


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_by_name(
    refused: Callable[..., str], attack: str, protocol: int
) -> None:
    make, named = ATTACKS[attack]
    assert re.search(named, refused(pickle.dumps(make(), protocol)))


@pytest.mark.parametrize("is_zip", [True, False])
def test_an_attack_in_a_file_of_torch_save(refused: Callable[..., str], is_zip: bool) -> None:
    stream = io.BytesIO()
    attack = {"text": Calls(os.system, f"touch {MARKER}")}
    torch.save(attack, stream, _use_new_zipfile_serialization=is_zip)
    assert "it asks for posix.system" in refused(stream.getvalue())


ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"


def dtype(code: bytes, state: bytes = b"U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00") -> bytes:
    return b"cnumpy\ndtype\n(U" + bytes([len(code)]) + code + b"tR(K\x03" + state + b"tb"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        # Names with dots, which protocol 4 would walk along.
        (b"\x80\x04\x8c\x08builtins\x8c\x0d__import__.os\x93.", "builtins.__import__.os"),
        (b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.", "numpy.ndarray.__init__"),
        (b"\x80\x04\x8c\x16numpy.core.multiarray\x8c\x02os\x93.", "not a whole pickle"),
        (b"cnumpy.core.multiarray\nos\n.", "numpy.core.multiarray.os"),
        # Other ways to a name or a call: persistent ids, INST, OBJ, NEWOBJ.
        (b"Pother.pkl\n.", "something outside the file"),
        (b"\x80\x02U\x05otherQ.", "something outside the file"),
        (b"(S'touch x'\nios\nsystem\n.", "os.system"),
        (b"(cos\nsystem\nS'touch x'\no.", "os.system"),
        (b"\x80\x02cnumpy\nndarray\nK\x05\x85\x81.", "not a whole pickle"),
        # Admitted names with hostile arguments.
        (b"cnumpy.core.multiarray\n_reconstruct\n(cbuiltins\nlist\nK\x00\x85U\x01btR.", "another"),
        (b"cnumpy\nndarray\n(K\x05tR.", "numpy.ndarray, called"),
        (b"cbuiltins\nbytes\n(J\xff\xff\xff\x7ftR.", "bytes of something else"),
        (b"cbuiltins\nset\n(cnumpy\nndarray\ntR.", "set of something else"),
        (b"cbuiltins\nlist\n((K\x01ttR.", "list of something"),
        (b"ccollections\ndefaultdict\n(cnumpy\ndtype\ntR.", "another default"),
        # Names as values, and states for what has none.
        (b"cnumpy\nndarray\n.", "a function or a type as a value"),
        (b"]cbuiltins\nset\na.", "a function or a type as a value"),
        (b"cbuiltins\nset\n}U\x05_makeK\x01sb.", "a state for something"),
        (b"cbuiltins\nset\nN}U\x05_makeK\x01s\x86b.", "a state for something"),
        (b"ccollections\nOrderedDict\n)R}U\x05itemsK\x01sb.", "a dict with attributes"),
        (
            b"ccollections\ndefaultdict\n)RN}U\x0fdefault_factorycbuiltins\nset\ns\x86b.",
            "a defaultdict's default",
        ),
        # A dtype that does not match its bytes, and shapes that do.
        (dtype(b"V9") + b".", "numpy's dtype 'V9'"),
        (dtype(b"f4,O") + b".", "numpy's dtype 'f4,O'"),
        (dtype(b"f8", b"U\x01<NU\x01x\x85}J\x08\x00\x00\x00K\x08K\x00") + b".", "with fields"),
        (ARRAY + b"(K\x01K\x01\x85" + dtype(b"O8") + b"\x89U\x08AAAAAAAAtb.", "not there"),
        (ARRAY + b"(K\x01K\x02\x85" + dtype(b"O8") + b"\x89]K\x01atb.", "not there"),
        (ARRAY + b"(K\x01J\xff\xff\xff\x7f\x85" + dtype(b"f8") + b"\x89U\x01xtb.", "shape"),
        (ARRAY + b"(K\x01J\xff\xff\xff\xff\x85" + dtype(b"f8") + b"\x89U\x00tb.", "shape"),
        (b"cnumpy.core.multiarray\nscalar\n" + dtype(b"O8") + b"K\x05\x86R.", "scalar's dtype"),
        (b"cnumpy.core.multiarray\nscalar\n" + dtype(b"f8") + b"U\x01x\x86R.", "shape"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00K\x01\x85K\x01\x85tR.", "tensor's storage"),
    ],
)
def test_hostile_instructions(refused: Callable[..., str], content: bytes, words: str) -> None:
    assert words in refused(content)


def test_a_tensor_larger_than_its_storage(refused: Callable[..., str]) -> None:
    content = pickle.dumps(torch.zeros(3), 2)
    assert content.count(b"K\x03\x85") == 1
    assert "larger than its storage" in refused(content.replace(b"K\x03\x85", b"M\xff\xff\x85"))
    # The right size from the wrong place.
    moved = content.replace(b"RK\x00K\x03\x85", b"RK\x01K\x03\x85", 1).replace(
        b"K\x00K\x03\x85", b"K\x02K\x03\x85"
    )
    assert moved != content
    assert "not a whole pickle" in refused(moved)


@pytest.mark.parametrize("code", [1, 300, 70000])
def test_extensions_are_names_like_others(refused: Callable[..., str], code: int) -> None:
    packed = {1: b"\x82\x01", 300: b"\x83\x2c\x01", 70000: b"\x84\x70\x11\x01\x00"}[code]
    copyreg.add_extension("os", "getcwd", code)
    try:
        pickle.loads(packed + b".")  # which leaves it in the cache
        assert "os.getcwd" in refused(packed + b")R.")
    finally:
        copyreg.remove_extension("os", "getcwd", code)


# --- damaged files ----------------------------------------------------------------------------


def test_a_missing_and_an_empty_file(tmp_path: Path, refused: Callable[..., str]) -> None:
    with pytest.raises(DataError, match=r"no\.pkl: cannot read it: No such file"):
        read_pickle(tmp_path / "no.pkl")
    with pytest.raises(DataError, match="cannot read it: Is a directory"):
        read_pickle(tmp_path)
    assert "the file is empty; fetch it again" in refused(b"")


def asks_for_memory(content: bytes) -> bool:
    """Whether an instruction puts something at a high number, for which Python makes room."""
    with contextlib.suppress(Exception):
        for opcode, argument, _ in pickletools.genops(content):
            if opcode.name in {"PUT", "LONG_BINPUT"} and argument > 10_000:
                return True
    return False


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(
        pickle.dumps(({"a": [np.arange(3.0)]}, ["x"]), data.draw(st.integers(0, 5)))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    assume(not asks_for_memory(bytes(content)))
    path = tmp_path_factory.getbasetemp() / "damaged.pkl"
    path.write_bytes(content)
    # Damage inside a number stays unseen; whatever is seen is a DataError.
    with contextlib.suppress(DataError):
        read_pickle(path)


@pytest.mark.parametrize("content", [b"\x80", b"PK\x03\x04", b"[1, 2]", b"\x93NUMPY\x01", b"(" * 9])
def test_another_kind_of_file(refused: Callable[..., str], content: bytes) -> None:
    assert "not a whole pickle" in refused(content)


def test_deep_nesting_is_one_line(refused: Callable[..., str]) -> None:
    assert "not a whole pickle (RecursionError)" in refused(b"]" * 50_000 + b"a" * 49_999 + b".")


def test_torch_is_imported_only_for_tensors(tmp_path: Path) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": np.arange(3)}))
    program = (
        "import sys; from magtkd.data.formats.pickles import read_pickle; "
        "read_pickle('a.pkl'); sys.exit('torch' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=False).returncode == 0
    )
