"""What others wrote does nothing here but what it should: files are data, names are names, and
passwords stay where they are."""

from __future__ import annotations

import ast
import hashlib
import io
import itertools
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

import tune.tracking
from magtkd.cli import run_app
from magtkd.config import Config, dump_yaml, load_config
from magtkd.encoders.hub import load_pretrained
from magtkd.errors import ArtifactError, ConfigError, StorageLostError
from magtkd.metrics import Scores
from magtkd.pipeline import CoreTrainer, run_chain
from magtkd.store import Artifact, Store, to_json
from tune.cli import app
from tune.config import SweepConfig
from tune.ledger import (
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    open_ledger,
)

# MLflow's own: it uses an option of SQLAlchemy that is going away.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for name in ("magtkd", "tune") for path in (ROOT / name).rglob("*.py"))
MARKER = "it-ran"
SWEEP = """
extends: base.yaml
name: mine
search: {sampler: random, num_trials: 2, max_concurrent: 1}
space: {fusion.depth: {int: [1, 2]}}
"""
Call = Callable[..., tuple[int, str, str]]
Refused = Callable[..., str]


class Evil:
    """Pickles as a call that leaves a file."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {MARKER}",)


EVIL = pickle.dumps(Evil())


@pytest.fixture(autouse=True)
def folder(
    tmp_path: Path, tiny_config: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The working directory with a configuration and a sweep; nothing has run at the end."""
    monkeypatch.chdir(tmp_path)
    Path("base.yaml").write_text(dump_yaml(tiny_config()), encoding="utf-8")
    Path("sweep.yaml").write_text(SWEEP, encoding="utf-8")
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(MARKER)]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = run_app(app, list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def refused(call: Call, folder: Path) -> Refused:
    """Runs what must be refused: one line, nothing written. Gives the line."""

    def run(*arguments: str, code: int = 2) -> str:
        before = sorted(folder.rglob("*"))
        found, out, err = call(*arguments)
        assert (found, out) == (code, ""), err
        assert err.startswith("magtkd: ")
        assert err.count("\n") == 1
        assert sorted(folder.rglob("*")) == before
        return err.removeprefix("magtkd: ").strip()

    return run


def test_the_marker_would_be_seen(folder: Path) -> None:
    pickle.loads(EVIL)
    assert (folder / MARKER).is_file()
    (folder / MARKER).unlink()


# --- the source -------------------------------------------------------------------------------

# Modules that run what they read, and who may import them.
RUNNING = {"cloudpickle", "copyreg", "dill", "joblib", "marshal", "pickle", "runpy", "shelve"}
MAY_IMPORT = {
    ("magtkd/data/formats/pickles.py", "pickle"),
    ("magtkd/data/formats/pickles.py", "copyreg"),
    ("magtkd/fusion/published/checkpoint.py", "pickle"),  # for the name of an error
}
BUILTINS = {"__import__", "compile", "eval", "exec"}
NEVER = {"os.popen", "os.system", "pandas.read_pickle", "pd.read_pickle", "ray.cloudpickle.loads"}
YAML_LOADS = {"full_load", "full_load_all", "load", "load_all", "unsafe_load", "unsafe_load_all"}


def dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def has_option(node: ast.Call, name: str, value: object) -> bool:
    return any(
        option.arg == name
        and isinstance(option.value, ast.Constant)
        and option.value.value is value
        for option in node.keywords
    )


def is_unsafe(node: ast.Call) -> bool:
    name = dotted(node.func)
    return (
        name in BUILTINS | NEVER
        or (name == "torch.load" and not has_option(node, "weights_only", True))
        or (name.startswith("yaml.") and name.removeprefix("yaml.") in YAML_LOADS)
        or has_option(node, "allow_pickle", True)
        or has_option(node, "shell", True)
        or has_option(node, "trust_remote_code", True)
    )


def findings(source: str, file: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        names = {name.split(".")[0] for name in imported(node)} & RUNNING
        names |= {name for name in imported(node) if name in {"torch.load", "os.system"}}
        found += [name for name in sorted(names) if (file, name) not in MAY_IMPORT]
        if isinstance(node, ast.Call) and is_unsafe(node):
            found.append(dotted(node.func))
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_source_runs_nothing_that_it_reads(path: Path) -> None:
    file = path.relative_to(ROOT).as_posix()
    assert findings(path.read_text(encoding="utf-8"), file) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "def f():\n    from joblib import load",
        "import torch.utils, marshal",
        "from torch import load",
        "torch.load('x')",
        "torch.load('x', weights_only=False)",
        "torch.load('x', weights_only=flag)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "np.load('x', allow_pickle=True)",
        "eval('1')",
        "lambda: exec(code)",
        "subprocess.run('ls', shell=True)",
        "AutoModel.from_pretrained('x', trust_remote_code=True)",
    ],
)
def test_the_scan_sees(source: str) -> None:
    assert len(findings(source, "magtkd/other.py")) == 1


def test_the_scan_lets_pass() -> None:
    source = "model.eval()\nyaml.safe_load(x)\ntorch.load(x, weights_only=True)\nimport json"
    assert findings(source, "magtkd/other.py") == []


# --- configurations ---------------------------------------------------------------------------

TAGS = [
    f"!!python/object/apply:os.system ['touch {MARKER}']",
    f"!!python/object/new:os.system ['touch {MARKER}']",
    f"!!python/object/apply:builtins.open ['{MARKER}', 'w']",
    "!!python/name:os.system",
    "!!python/module:os",
]


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_in_a_file(refused: Refused, tag: str) -> None:
    Path("evil.yaml").write_text(f"fusion:\n  depth: {tag}\n")
    Path("child.yaml").write_text("extends: evil.yaml\n")
    for command in (["train"], ["sweep"], ["sweep", "--dry-run"]):
        for file in ("evil.yaml", "child.yaml"):
            assert "evil.yaml, line 2: not valid YAML: could not determine" in refused(
                *command, file
            )
    with pytest.raises(ConfigError, match="could not determine a constructor"):
        load_config("evil.yaml")


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_in_an_override(refused: Refused, tag: str) -> None:
    for command in (["train", "base.yaml"], ["sweep", "sweep.yaml"]):
        assert "the value is not valid YAML" in refused(*command, f"fusion.depth={tag}")
    assert "the value is not valid YAML" in refused("sweep", "sweep.yaml", f"space={tag}")
    assert "not valid YAML" in refused("data", "synth", "--out", "t.parquet", f"seed={tag}")


@pytest.mark.parametrize("tag", TAGS)
def test_a_tag_in_a_sweep(refused: Refused, tag: str) -> None:
    for section in (f"space: {{fusion.depth: {tag}}}", f"name: {tag}", f"search: {tag}", tag):
        Path("evil.yaml").write_text(section)
        assert "not valid YAML" in refused("sweep", "evil.yaml")


def test_aliases_that_grow_without_end(refused: Refused) -> None:
    names = "abcdefghij"
    lines = [f"{names[0]}: &{names[0]} [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]"
        for before, name in itertools.pairwise(names)
    ]
    Path("evil.yaml").write_text("\n".join(lines))
    assert "not valid YAML" in refused("train", "evil.yaml")


# --- names ------------------------------------------------------------------------------------


@pytest.fixture
def sweep(folder: Path, tiny_config: Callable[..., Config]) -> Path:
    """A sweep with one completed trial, and a copy of it beside the storage's sweeps."""
    tree = tiny_config().model_dump(mode="json")
    config = SweepConfig.model_validate(
        tree | {"name": "mine", "space": {"fusion.depth": {"int": [1, 2]}}}
    ).model_dump(mode="json")
    layout = SweepLayout(folder / "magtkd-results", "mine")
    with open_ledger(layout) as ledger:
        ledger.append(SweepOpened(name="mine", config=config))
        ledger.append(TrialSuggested(trial=0, values={"fusion.depth": 1}))
        ledger.append(
            TrialEnded(
                trial=0,
                state=TrialStatus.COMPLETED,
                epoch=1,
                dev=Scores(0.5, 0.5),
                objectives=[0.5],
            )
        )
        ledger.append(SweepClosed(reason=SweepEnd.INTERRUPTED))
    for place in ("magtkd-results/outside", "outside"):
        shutil.copytree(layout.folder, folder / place)
    return layout.folder


@pytest.mark.parametrize(
    "name",
    ["../outside", "../../outside", "..", ".", "", "mine/../../outside", "a/b", "~", "-x", "a\nb"],
)
@pytest.mark.parametrize(
    "command", [["trials"], ["best"], ["status"], ["sync"], ["sweep", "--resume"]], ids=" ".join
)
def test_a_name_stays_in_the_storage(
    refused: Refused, sweep: Path, command: list[str], name: str
) -> None:
    last = ["--", name] if name.startswith("-") and command != ["sweep", "--resume"] else [name]
    assert "not a name; use letters, digits" in refused(*command, *last)


def test_an_absolute_name(refused: Refused, sweep: Path, folder: Path) -> None:
    for command in (["trials"], ["best"], ["status"], ["sync"], ["sweep", "--resume"]):
        assert "not a name" in refused(*command, str(folder / "outside"))


@pytest.mark.parametrize("name", ["../evil", "a/b", "/evil", "..", ""])
def test_the_name_in_a_file(refused: Refused, name: str) -> None:
    Path("evil.yaml").write_text(SWEEP.replace("name: mine", f"name: '{name}'"))
    assert "name: " in refused("sweep", "evil.yaml")
    assert "name: " in refused("train", "base.yaml", f"name='{name}'")


# --- files of a sweep -------------------------------------------------------------------------


@pytest.mark.parametrize("content", [EVIL + b"\n", pickle.dumps(Evil(), 0) + b"\n"])
@pytest.mark.parametrize("command", [["trials"], ["best"], ["status"], ["sweep", "--resume"]])
def test_a_pickle_as_ledger(
    refused: Refused, sweep: Path, command: list[str], content: bytes
) -> None:
    (sweep / "ledger.jsonl").write_bytes(content)
    line = refused(*command, "mine")
    assert re.search(r"ledger\.jsonl: (last line|line 1): .* is not an event", line)


def test_a_pickle_beside_the_ledger(
    call: Call, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tune.tracking, "num_behind", lambda layout, uri: 0)
    for name in ("live.json", "lock", "sweep.yaml", "anything.pkl"):
        (sweep / name).write_bytes(EVIL)
    for command in ("trials", "best", "status"):
        assert call(command, "mine")[0] == 0


@pytest.fixture
def artifact(tiny_table: pa.Table) -> tuple[Store, Path]:
    """A store with one artifact, and its folder."""
    store = Store("magtkd-results")
    store.write(Artifact("fusion", "a1", tiny_table, {"epoch": 1}, {"seed": 0}, b"weights"))
    return store, Path(store.folder("fusion", "a1"))


FILES = ["config.json", "features.arrow", "manifest.json", "metrics.json", "weights.safetensors"]


@pytest.mark.parametrize("name", FILES)
def test_a_pickle_in_an_artifact(artifact: tuple[Store, Path], name: str) -> None:
    store, folder = artifact
    (folder / name).write_bytes(EVIL)
    with pytest.raises(ArtifactError, match=re.escape(name)) as caught:
        store.read("fusion", "a1")
    assert "\n" not in str(caught.value)


def sign(folder: Path, name: str, **changes: Any) -> None:
    """Make the manifest agree with a file that was replaced."""
    content = (folder / name).read_bytes()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest[name] |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest[name] |= changes
    (folder / "manifest.json").write_text(to_json(manifest))


@pytest.mark.parametrize("name", ["config.json", "features.arrow", "metrics.json"])
def test_a_pickle_in_an_artifact_with_its_checksum(artifact: tuple[Store, Path], name: str) -> None:
    store, folder = artifact
    (folder / name).write_bytes(EVIL)
    sign(folder, name)
    with pytest.raises(ArtifactError, match=re.escape(name)):
        store.read("fusion", "a1")


@pytest.mark.parametrize("path", ["../../../../secret.json", "/etc/hostname"])
def test_a_manifest_that_leads_out(artifact: tuple[Store, Path], folder: Path, path: str) -> None:
    store, place = artifact
    secret = folder / "magtkd-results/secret.json"
    secret.write_text('{"secret": 1}')
    content = secret.read_bytes()
    changes = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "path": path}
    sign(place, "metrics.json", **changes)
    with pytest.raises(ArtifactError, match=r"manifest\.json"):
        store.read_metrics("fusion", "a1")


@pytest.mark.parametrize("content", [EVIL, b"", b"\0" * 8, b"\xff" * 16])
def test_a_pickle_as_a_session(content: bytes, tiny_config: Callable[..., Config]) -> None:
    config = tiny_config()
    data = run_chain(config, Store("results"))["data"]
    session = CoreTrainer().open_session("teacher", config, {"data": data})
    with pytest.raises(ValueError, match=r"codec|Expecting value"):
        session.restore(content)


# --- encoders ---------------------------------------------------------------------------------


def test_the_code_of_an_encoder_is_not_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """Not even where transformers would ask, and someone confirms everything."""
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    evil = folder / "encoder"
    evil.mkdir()
    auto = {"AutoConfig": "evil.Evil", "AutoModel": "evil.Evil", "AutoTokenizer": ["evil.Evil"] * 2}
    config = {"model_type": "evil", "auto_map": auto, "tokenizer_class": "Evil"}
    for name in ("config.json", "tokenizer_config.json"):
        (evil / name).write_text(json.dumps(config))
    (evil / "evil.py").write_text(f"open({str(folder / MARKER)!r}, 'w')\nclass Evil: pass\n")
    code, _, err = call("train", "base.yaml", "teacher.encoder=./encoder")
    assert (code, err.count("\n")) == (2, 1)
    assert "teacher.encoder: cannot load './encoder'" in err


def test_the_weights_of_an_encoder_are_not_unpickled(folder: Path) -> None:
    import transformers

    config = transformers.BertConfig(
        vocab_size=30,
        hidden_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=4,
    )
    config.save_pretrained(folder / "encoder")
    for content in (EVIL, _torch_file()):
        (folder / "encoder/pytorch_model.bin").write_bytes(content)
        with pytest.raises(ConfigError, match="cannot load"):
            load_pretrained(
                "teacher.encoder", str(folder / "encoder"), "AutoModel", way_out="take another"
            )


def _torch_file() -> bytes:
    stream = io.BytesIO()
    torch.save({"embeddings": Evil()}, stream)
    return stream.getvalue()


# --- passwords --------------------------------------------------------------------------------

SECRET = "hunter2"


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow is an address with a password that does not answer."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:{SECRET}@127.0.0.1:1/x?token={SECRET}")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", SECRET)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", SECRET)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def unreachable(path: Path, uri: str) -> int | None:
        raise StorageLostError(f"tracking at {uri}: away")

    monkeypatch.setattr(tune.tracking.tracker, "num_behind", unreachable, raising=False)


def check_secret(call: Call, *arguments: str) -> tuple[int, str]:
    code, out, err = call(*arguments)
    assert SECRET not in out + err
    held = [path for path in Path().rglob("*") if path.is_file() and path.suffix != ".db"]
    assert not [path for path in held if SECRET.encode() in path.read_bytes()]
    return code, out + err


@pytest.mark.usefixtures("away")
@pytest.mark.parametrize(
    ("command", "code"), [("trials", 0), ("best", 0), ("status", 0), ("sync", 75), ("doctor", 1)]
)
def test_no_password_is_shown(call: Call, sweep: Path, command: str, code: int) -> None:
    arguments = [command] if command == "doctor" else [command, "mine"]
    for more in ([], ["--json"]) if command in {"best", "status", "doctor"} else ([],):
        found, shown = check_secret(call, *arguments, *more)
        assert found == code, shown
        assert "***@127.0.0.1" in shown or command in {"trials", "best"}


@pytest.mark.usefixtures("away")
def test_no_password_in_an_address_that_is_given(
    call: Call, sweep: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAGTKD_STORAGE_PATIENCE", "0")
    uri = f"http://ann:{SECRET}@127.0.0.1:1/x"
    code, shown = check_secret(call, "sync", "mine", "--tracking-uri", uri)
    assert (code, "***@127.0.0.1" in shown) == (75, True)
    for command in ("status", "best", "doctor"):
        name = [] if command == "doctor" else ["mine"]
        check_secret(call, command, *name, "--storage", f"s3://key:{SECRET}@bucket?scheme=ftp")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.usefixtures("away")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_no_password_in_a_dry_run(call: Call) -> None:
    code, shown = check_secret(call, "sweep", "sweep.yaml", "--dry-run")
    assert (code, "\nfusion: 2 distinct" in shown) == (0, True)
    code, shown = check_secret(call, "sweep", "sweep.yaml", "--dry-run", "-v")
    assert (code, "\n# fusion: 2 distinct" in shown) == (0, True)


def test_mlflow_is_opened_on_this_machine_only() -> None:
    texts = [*SOURCES, *ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    lines = [line for path in texts for line in path.read_text(encoding="utf-8").splitlines()]
    shown = [line for line in lines if re.search(r"mlflow (ui|server)\b.*--", line)]
    assert shown
    assert [line for line in shown if "--host 127.0.0.1" not in line] == []
