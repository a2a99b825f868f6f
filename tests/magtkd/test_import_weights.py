from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from magtkd.cli import app, run_app
from magtkd.config import Config, dump_yaml
from magtkd.data import list_matrix
from magtkd.errors import DataError
from magtkd.fusion import MAGT, SDT
from magtkd.fusion.published.checkpoint import read_checkpoint
from magtkd.fusion.published.sdt import correspondence
from magtkd.store import Store

Capture = pytest.CaptureFixture[str]
MakeConfig = Callable[..., Config]
SIZES: dict[str, Any] = {
    "hidden_dim": 6,
    "num_heads": 3,
    "depth": 2,
    "num_classes": 3,
    "num_speakers": 4,
    "dropout": 0.5,
}
VALUES: dict[str, dict[str, Any]] = {
    "magt": {"fusion.depth": 2, "data.standardise": False},
    "sdt": {"fusion.depth": 2, "fusion.inputs": "table", "data.standardise": False},
}


def published(model: str, **changes: Any) -> dict[str, Tensor]:
    """A state dict under the published names."""
    torch.manual_seed(0)
    sizes = SIZES | changes
    if model == "magt":
        state = {name: value.clone() for name, value in MAGT(**sizes).to_published().items()}
        # The published module keeps its position codes with its weights.
        return state | {f"{name}.pos_emb.pe": torch.zeros(1, 8, 6) for name in ("t_t", "v_a")}
    widths = {"text": 11, "audio": 7, "video": 5}
    own = SDT(widths=widths, **sizes).state_dict()
    places = correspondence(sizes["depth"], sizes["hidden_dim"], gate="learned")
    return {name: own[place.parameter][place.index].clone() for name, place in places.items()}


class Importing:
    """`magtkd import` on a made-up corpus; returns the exit code."""

    def __init__(self, folder: Path, make: MakeConfig, capsys: Capture) -> None:
        self.folder, self._make, self.capsys = folder, make, capsys
        self.checkpoint, self.config = folder / "model.pt", folder / "tiny.yaml"
        self.storage = folder / "out"

    def run(self, model: str, *options: str, values: dict[str, Any] | None = None) -> int:
        config = self._make({"name": "tiny"} | VALUES.get(model, {}) | (values or {}))
        self.config.write_text(dump_yaml(config), encoding="utf-8")
        command = ["import", str(self.checkpoint), str(self.config), "--model", model]
        return run_app(app, [*command, "--storage", str(self.storage), *options])

    def refusal(self, model: str, *options: str, values: dict[str, Any] | None = None) -> str:
        assert self.run(model, *options, values=values) == 2
        error = self.capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    def result(self) -> dict[str, Any]:
        printed: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return printed


@pytest.fixture
def importing(tmp_path: Path, tiny_config: MakeConfig, capsys: Capture) -> Importing:
    return Importing(tmp_path, tiny_config, capsys)


# --- what it makes ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["magt", "sdt"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_an_artifact_that_evaluates_and_trains_on(
    importing: Importing, model: str, suffix: str
) -> None:
    state = {f"module.{name}": value for name, value in published(model).items()}
    importing.checkpoint = importing.folder / f"model.{suffix}"
    save_file(state, importing.checkpoint) if suffix != "pt" else torch.save(
        {"epoch": 3, "state_dict": state}, importing.checkpoint
    )
    assert importing.run(model, "--json") == 0
    result = importing.result()
    assert set(result) == {"name", "key", "weights", "classes", "dev"}
    artifact = Store(importing.storage).read("fusion", result["key"])
    assert artifact.metrics["epoch"] == 0
    assert artifact.metrics["dev"]["accuracy"] == result["dev"]["accuracy"]
    assert len(list_matrix(artifact.table, "logits")) == artifact.table.num_rows
    command = ["train", str(importing.config), f"fusion.initial={result['weights']}"]
    options = [f"fusion.model={model}", "--storage", str(importing.storage), "--json"]
    assert run_app(app, [*command, *options]) == 0
    trained = importing.result()
    assert trained["stages"]["fusion"] != result["key"]
    assert trained["epoch"] >= 1


@pytest.mark.parametrize("model", ["magt", "sdt"])
def test_it_says_what_the_published_model_says(importing: Importing, model: str) -> None:
    """Also where the checkpoint has other speakers and another order of classes."""
    state = published(model)
    torch.save(state, importing.checkpoint)
    assert importing.run(model, "--json") == 0
    plain = importing.result()
    classes = plain["classes"]
    turned = [classes[2], classes[0], classes[1]]
    assert importing.run(model, "--json", "--labels", ",".join(turned)) == 0
    other = importing.result()
    store = Store(importing.storage)
    one, two = (store.read("fusion", result["key"]) for result in (plain, other))
    logits, moved = (list_matrix(artifact.table, "logits") for artifact in (one, two))
    np.testing.assert_array_equal(moved, logits[:, [turned.index(name) for name in classes]])
    of_class = MAGT if model == "magt" else SDT
    direct = of_class.from_published(state, num_heads=3).eval()
    found = load_file(plain["weights"])
    for name, value in direct.state_dict().items():
        kept = found[f"model.{name}"]
        expected = value if "speaker" not in name else value[: len(kept) - 1]
        torch.testing.assert_close(kept[: len(expected)], expected)


def test_other_numbers_of_speakers_are_told(importing: Importing) -> None:
    torch.save(published("magt", num_speakers=5), importing.checkpoint)
    for mode in ("conversation", "name", "published"):
        assert importing.run("magt", values={"data.speakers": mode}) == 0
        warnings = importing.capsys.readouterr().err
        is_warned = f"data.speakers is {mode}; set data.speakers=published" in warnings
        assert is_warned == (mode != "published")


def test_test_stays_sealed_unless_revealed(importing: Importing) -> None:
    torch.save(published("magt"), importing.checkpoint)
    assert importing.run("magt") == 0
    assert not [line for line in importing.capsys.readouterr().out.split("\n") if "│ test" in line]
    assert not list(importing.storage.rglob("test.json"))
    assert importing.run("magt", "--reveal-test") == 0
    assert "│ test" in importing.capsys.readouterr().out
    (noted,) = importing.storage.rglob("test.json")
    first = json.loads(noted.read_text())
    noted.write_text(json.dumps(first | {"revealed": "before"}))
    assert importing.run("magt", "--reveal-test", "--json") == 0
    assert importing.result()["test"] == first["test"]
    assert json.loads(noted.read_text())["revealed"] == "before"
    for file in importing.storage.rglob("result.json"):
        assert "test" not in json.loads(file.read_text())


# --- what does not fit ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "changes", "values", "message"),
    [
        ("magt", {"depth": 1}, {}, "the checkpoint has depth 1; fusion has depth 2; set fusion."),
        (
            "magt",
            {"hidden_dim": 12},
            {},
            "the checkpoint has hidden_dim 12; fusion has hidden_dim 6; set fusion.hidden_dim=12",
        ),
        ("magt", {}, {"fusion.gate": "none"}, "has gate learned; fusion has gate none; set"),
        ("magt", {}, {"fusion.anchor": False}, "has anchor True; fusion has anchor False; set"),
        ("magt", {"num_classes": 5}, {}, "the checkpoint has 5 classes; the corpus has 3: "),
        (
            "magt",
            {"num_speakers": 1},
            {},
            "knows 1 speakers; the corpus has 3; use the table of the file it was trained on, with "
            "data.speakers=published",
        ),
        (
            "magt",
            {},
            {"audio.hidden_dim": 10},
            "reads text 6 wide, audio 6 wide, video 6 wide; the configuration gives it text 6 "
            "wide, audio 10 wide, video 6 wide",
        ),
        ("magt", {}, {"fusion.modalities": "text+audio"}, "gives it text 6 wide, audio 6 wide;"),
        ("sdt", {}, {"fusion.inputs": "stages"}, "reads text 11 wide, audio 7 wide, video 5 wide;"),
        ("sdt", {}, {"fusion.gate": "identity"}, "has gate learned; fusion has gate identity;"),
    ],
)
def test_both_sides_of_a_mismatch_are_told(
    importing: Importing, model: str, changes: dict[str, Any], values: dict[str, Any], message: str
) -> None:
    torch.save(published(model, **changes), importing.checkpoint)
    error = importing.refusal(model, values=values)
    assert error.startswith(f"magtkd: {importing.checkpoint}: ")
    assert message in error
    assert not list(importing.storage.rglob("artifacts/fusion"))


def test_other_labels_and_models_are_told(importing: Importing) -> None:
    torch.save(published("magt"), importing.checkpoint)
    assert "--labels has a, b, c; the corpus has " in importing.refusal("magt", "--labels", "a,b,c")
    assert "not a published SDT state: missing textf_input.weight" in importing.refusal("sdt")
    assert "--model 'mlp': use one of magt, sdt" in importing.refusal("mlp")
    importing.checkpoint.unlink()
    assert "model.pt: cannot be read: No such file or directory" in importing.refusal("magt")


# --- files that are not what they should be ---------------------------------------------------


class Malice:
    """Would make a file if it were unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path) -> None:
    touched, path = tmp_path / "touched", tmp_path / "model.pt"
    torch.save({"w_t.weight": Malice(touched)}, path)
    with pytest.raises(DataError, match=r"model\.pt: holds more than tensors, or is no checkpoint"):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps(Malice(touched)))
    with pytest.raises(DataError, match=r"model\.pt: holds more than tensors, or is no checkpoint"):
        read_checkpoint(path)
    assert not touched.exists()


@pytest.mark.parametrize(
    "content", [b"", b"text", b"PK\x03\x04", b"\x80\x02", bytes(99), b"\x09" + bytes(7) + b"{nope}"]
)
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    with pytest.raises(
        DataError, match=r"^[^\n]*model\.pt: (holds more|not a (torch|safetensors))"
    ):
        read_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(1)], "is no state dict: it is a list"),
        ({}, "is no state dict"),
        ({"a": 3}, "'a' is no tensor but int"),
        ({3: torch.ones(1)}, "'3' is no tensor but Tensor"),
        ({"a": torch.tensor([float("nan")])}, "'a' has values that are not finite"),
        ({"a": torch.ones(1).expand(10**12)}, "'a' is not a dense tensor of real numbers"),
        ({"a": torch.ones(3, dtype=torch.complex64)}, "'a' is not a dense tensor of real"),
        ({"a": torch.ones(3).to_sparse()}, "'a' is not a dense tensor of real numbers"),
    ],
)
def test_content_that_is_not_weights(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(DataError, match=message):
        read_checkpoint(tmp_path / "model.pt")


def test_a_file_that_would_unpack_to_much_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(9)}, tmp_path / "plain.pt")
    packed = tmp_path / "packed.pt"
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in plain.namelist():
            archive.writestr(name, plain.read(name))
    with pytest.raises(DataError, match=r"packed\.pt: not a torch checkpoint: .* is compressed"):
        read_checkpoint(packed)


def test_layers_by_name_alone_are_not_built(importing: Importing) -> None:
    state = published("magt")
    state["t_t.transformer_inter.999999999.self_attn.fc.bias"] = torch.zeros(6)
    torch.save(state, importing.checkpoint)
    assert "the checkpoint has depth 3; fusion has depth 2" in importing.refusal("magt")
