"""What every store keeps. To try another one, add it to `STORES`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from magtkd.errors import ArtifactError
from magtkd.store import Artifact, Checkpoints, Store

KEY = "0123456789abcdef" * 2
FILES = ("config.json", "features.arrow", "manifest.json", "metrics.json", "weights.safetensors")


class FolderWithoutRenaming(Store):
    """A folder treated as an object store, in which nothing can be renamed."""

    @property
    def _is_local(self) -> bool:
        return False


STORES: dict[str, Callable[[Path], Store]] = {
    "folder": Store,
    "file address": lambda folder: Store(f"file://{folder}"),
    "objects in memory": lambda folder: Store("mock://root/below"),
    "objects in a folder": FolderWithoutRenaming,
}


@pytest.fixture(params=list(STORES))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return STORES[request.param](tmp_path / "store")


def artifact(mark: int = 0) -> Artifact:
    features = pa.FixedSizeListArray.from_arrays(
        pa.array([float(mark + n) for n in range(15)], pa.float32()), 5
    )
    table = pa.table({"split": ["train", "train", "dev"], "features": features})
    metrics = {"seconds": float(mark)}
    return Artifact("teacher", KEY, table, metrics, {"mark": mark}, b"weights" * mark)


def places_of(store: Store, name: str) -> list[str]:
    """Names below the root of an artifact's file: objects have folders below the key's."""
    folder = f"artifacts/teacher/{KEY}"
    folders = [folder, *(f"{folder}/{one}" for one in store.list_folders(folder))]
    return [f"{one}/{name}" for one in folders if name in store.list_files(one)]


def test_an_artifact_is_read_as_it_was_written(store: Store) -> None:
    store.check_writable()
    assert not store.exists("teacher", KEY)
    store.write(artifact(3))
    assert store.exists("teacher", KEY)
    assert store.read("teacher", KEY) == artifact(3)
    assert store.read("teacher", KEY, weights=False).weights == b""
    assert store.read_metrics("teacher", KEY) == {"seconds": 3.0}


def test_an_artifact_needs_no_weights(store: Store) -> None:
    store.write(artifact(0))
    assert store.read("teacher", KEY) == artifact(0)


def test_the_first_of_two_writers_wins(store: Store) -> None:
    store.write(artifact(1))
    store.write(artifact(2))
    assert store.read("teacher", KEY) == artifact(1)


def test_of_many_writers_at_once_one_is_read(store: Store) -> None:
    if isinstance(store, FolderWithoutRenaming):
        pytest.skip("a file is not replaced in one step, as an object is")
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(store.write, [artifact(mark) for mark in range(1, 17)]))
    assert store.read("teacher", KEY) in [artifact(mark) for mark in range(1, 17)]


def test_what_is_not_there_is_refused(store: Store) -> None:
    with pytest.raises(ArtifactError, match="there is no such artifact; train the stage"):
        store.read("teacher", KEY)
    assert store.find("teacher", KEY, warn=pytest.fail) is None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_a_damaged_file_is_never_read_and_its_artifact_is_quarantined(
    store: Store, name: str, damage: str
) -> None:
    store.write(artifact(3))
    (place,) = places_of(store, name)
    content = store.read_file(place)
    if damage == "missing":
        store.remove_file(place)
    else:
        store.write_file(place, content[:7] if damage == "truncated" else b"?" + content[1:])
    with pytest.raises(ArtifactError, match=f"{KEY}"):
        store.read("teacher", KEY)
    warnings: list[str] = []
    assert store.find("teacher", KEY, warn=warnings.append) is None
    if (name, damage) != ("manifest.json", "missing"):  # without it there is no artifact
        assert len(warnings) == 1
        assert "retrained" in warnings[0]
    store.write(artifact(2))
    assert store.read("teacher", KEY) == artifact(2)


def test_a_file_is_replaced_and_removed(store: Store) -> None:
    for content in (b"one", b"two and more"):
        store.write_file("runs/a/result.json", content)
        assert store.read_file("runs/a/result.json") == content
    assert store.list_files("runs/a") == ["result.json"]
    assert store.list_folders("runs") == ["a"]
    store.remove_file("runs/a/result.json")
    assert store.list_files("runs/a") == []
    store.remove_folder("runs/a")
    assert store.list_folders("runs") == []


def test_the_last_checkpoint_is_read(store: Store) -> None:
    checkpoints = Checkpoints(store, "sweep/trial")
    assert checkpoints.load() is None
    for content in (b"first", b"second"):
        checkpoints.save(content)
    assert Checkpoints(store, "sweep/trial").load() == b"second"
    checkpoints.remove()
    assert checkpoints.load() is None
