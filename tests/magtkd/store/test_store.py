from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from magtkd.errors import ArtifactError, StorageError, StorageLostError
from magtkd.store import Artifact, Store, stage_key, to_json

KEY = "0123456789abcdef" * 2


class FolderWithoutRenaming(Store):
    """A folder treated as an object store, in which nothing can be renamed."""

    @property
    def _is_local(self) -> bool:
        return False


def artifact(mark: int = 0, weights: bytes = b"weights") -> Artifact:
    table = pa.table(
        {
            "split": ["train", "train", "dev"],
            "features": pa.FixedSizeListArray.from_arrays(
                pa.array([float(mark + n) for n in range(15)], pa.float32()), 5
            ),
        }
    )
    metrics = {"seconds": float(mark)}
    return Artifact("teacher", KEY, table, metrics, {"mark": mark}, weights and weights * mark)


def listing(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- reading and writing ----------------------------------------------------------------------


def test_nothing_else_is_left_in_the_folder(tmp_path: Path) -> None:
    Store(tmp_path).write(artifact(3))
    names = ["config.json", "features.arrow", "manifest.json", "metrics.json"]
    folder = f"artifacts/teacher/{KEY}"
    assert listing(tmp_path) == [f"{folder}/{name}" for name in (*names, "weights.safetensors")]
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize("kind", [Store, FolderWithoutRenaming])
@pytest.mark.parametrize("moment", ["features.arrow", "metrics.json", "manifest.json"])
def test_one_writer_overtakes_another(tmp_path: Path, kind: type[Store], moment: str) -> None:
    slow = kind(tmp_path)
    write, overtaken = slow._filesystem.write, list[str]()

    def stand_aside(path: str, content: bytes) -> None:
        if path.endswith(moment) and not overtaken:
            overtaken.append(path)
            kind(tmp_path).write(artifact(2))
        write(path, content)

    slow._filesystem.write = stand_aside  # type: ignore[method-assign]
    slow.write(artifact(1))
    assert overtaken
    assert slow.read("teacher", KEY) in (artifact(1), artifact(2))


WRITER = """
import sys, time
import pyarrow as pa
from magtkd.store import Artifact, Store
folder, key, moment, is_local = sys.argv[1:]
class Stalls(Store):
    _is_local = is_local == "True"
store = Stalls(folder)
write = store._filesystem.write
def stall(path, content):
    if path.endswith(moment):
        content = bytes(content)[:7]
    write(path, content)
    if path.endswith(moment):
        print("here", flush=True)
        time.sleep(60)
store._filesystem.write = stall
table = pa.table({"split": ["train"]})
store.write(Artifact("teacher", key, table, {"seconds": 1.0}, {}, b"weights"))
"""


@pytest.mark.parametrize("kind", [Store, FolderWithoutRenaming])
def test_killed_writer(tmp_path: Path, kind: type[Store]) -> None:
    moment = "weights.safetensors"
    arguments = [str(tmp_path), KEY, moment, str(kind is Store)]
    command = [sys.executable, "-c", WRITER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        process.send_signal(signal.SIGKILL)
    assert any(path.name == moment for path in tmp_path.rglob("*"))
    store = kind(tmp_path)
    assert not store.exists("teacher", KEY)
    with pytest.raises(ArtifactError, match=f"{KEY}: there is no such artifact; train the stage"):
        store.read("teacher", KEY)
    store.write(artifact(2))
    assert store.read("teacher", KEY) == artifact(2)


# --- damage -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("written"))
    store.write(artifact(3))
    return store


FILES = (
    "config.json",
    "features.arrow",
    "manifest.json",
    "metrics.json",
    "weights.safetensors",
)


@pytest.fixture
def damage(written: Store) -> Iterator[Callable[[str, bytes | None], None]]:
    """Replaces a file's content, or deletes it, and puts it back afterwards."""
    folder = Path(written.folder("teacher", KEY))
    whole = {name: (folder / name).read_bytes() for name in FILES}

    def replace(name: str, content: bytes | None) -> None:
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_bytes(content)

    yield replace
    for name, content in whole.items():
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_truncated_file(
    written: Store, damage: Callable[[str, bytes | None], None], name: str, share: float
) -> None:
    whole = (Path(written.folder("teacher", KEY)) / name).read_bytes()
    damage(name, whole[: int(len(whole) * share)])
    with pytest.raises(ArtifactError, match=rf"{KEY}/{name}: the file is damaged.*; delete /"):
        written.read("teacher", KEY)


@pytest.mark.parametrize("name", FILES)
def test_missing_file(
    written: Store, damage: Callable[[str, bytes | None], None], name: str
) -> None:
    damage(name, None)
    message = "there is no such artifact" if name == "manifest.json" else f"{name}: the file is mis"
    with pytest.raises(ArtifactError, match=message):
        written.read("teacher", KEY)


@given(data=st.data())
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_flipped_bit(
    written: Store, damage: Callable[[str, bytes | None], None], data: st.DataObject
) -> None:
    folder = Path(written.folder("teacher", KEY))
    name = data.draw(st.sampled_from(FILES))
    whole = (folder / name).read_bytes()
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    flipped = bytearray(whole)
    flipped[bit // 8] ^= 1 << bit % 8
    damage(name, bytes(flipped))
    if name == "manifest.json":
        # A size in it may change without changing what is read.
        with contextlib.suppress(ArtifactError):
            assert written.read("teacher", KEY) == artifact(3)
    else:
        with pytest.raises(ArtifactError, match=rf"{KEY}/{name}: the file is damaged"):
            written.read("teacher", KEY)
    damage(name, whole)


@pytest.mark.parametrize(
    "manifest", ["3", "null", "[]", "{}", '{"config.json": 3}', '{"features.arrow": {"size": 1}}']
)
def test_manifest_of_another_shape(
    written: Store, damage: Callable[[str, bytes | None], None], manifest: str
) -> None:
    damage("manifest.json", manifest.encode())
    with pytest.raises(ArtifactError, match=r"manifest\.json: the file is damaged; delete /"):
        written.read("teacher", KEY)
    with pytest.raises(ArtifactError, match=r"manifest\.json: the file is damaged; delete /"):
        written.read_metrics("teacher", KEY)


# --- addresses --------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["nope://bucket/x", "file://relative/x"])
def test_wrong_address(address: str) -> None:
    with pytest.raises(StorageError, match=f"storage '{address}': not a folder or a pyarrow"):
        Store(address)


def test_storage_under_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    store = Store(tmp_path / "file/below")
    with pytest.raises(StorageError, match=r"file/below: cannot be written: .*Not a directory; ch"):
        store.check_writable()
    with pytest.raises(
        StorageLostError, match=r"cannot write .*: .*; make room, or choose another --storage"
    ):
        store.write(artifact(1))
    with pytest.raises(
        StorageLostError, match=r"cannot write .*: .*; make room, or choose another --storage"
    ):
        store.write_file("runs/a.yaml", b"x")
    assert listing(tmp_path) == ["file"]


def test_storage_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match=r"cannot be written: .*Not a directory"):
        Store(tmp_path / "file").check_writable()


def test_checking_makes_no_folder(tmp_path: Path) -> None:
    Store(tmp_path / "a/b").check_writable()
    Store(f"file://{tmp_path}/a/b").check_writable()
    assert not list(tmp_path.iterdir())


# --- other files ------------------------------------------------------------------------------


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_storage_that_goes_away_is_not_made_again(tmp_path: Path, is_replaced: bool) -> None:
    """As a disk that is unmounted leaves the folder on which it was mounted."""
    root = tmp_path / "store"
    store = Store(root)
    store.write_file("shared/one", b"1")
    root.rename(tmp_path / "elsewhere")
    if is_replaced:
        root.mkdir()
    with pytest.raises(StorageLostError, match="removed, unmounted or replaced; put it back"):
        store.write_file("shared/two", b"2")
    assert list(tmp_path.glob("store/*")) == []
    if is_replaced:
        root.rmdir()
    (tmp_path / "elsewhere").rename(root)
    store.write_file("shared/two", b"2")
    assert store.list_files("shared") == ["one", "two"]


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write_file("runs/a/result.json", b"one")
    store.write_file("runs/a/result.json", b"two")
    assert (tmp_path / "runs/a/result.json").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "runs/a").iterdir()] == ["result.json"]


# --- keys -------------------------------------------------------------------------------------

sections = st.dictionaries(st.text(max_size=5), st.integers() | st.floats(0, 1) | st.none())


@given(section=sections)
def test_key_does_not_depend_on_the_order_of_a_section(section: dict[str, object]) -> None:
    reordered = dict(reversed(section.items()))
    keys = {
        stage_key("audio", version=1, section=one, seed=2, upstream={"data": "x"})
        for one in (section, reordered, json.loads(to_json(section)))
    }
    assert len(keys) == 1
    assert len(keys.pop()) == 32


def test_key_changes_with_each_part() -> None:
    parts = {"version": 1, "section": {"a": 1}, "seed": 2, "upstream": {"data": "x"}}
    changed = [{"version": 2}, {"section": {"a": 2}}, {"seed": 3}, {"upstream": {"data": "y"}}]
    keys = {stage_key("audio", **(parts | change)) for change in ({}, *changed)}  # type: ignore[arg-type]
    keys.add(stage_key("video", **parts))  # type: ignore[arg-type]
    assert len(keys) == 6


def test_json_refuses_nan() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"loss": float("nan")})
