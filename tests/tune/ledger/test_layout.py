"""Where things lie, and which names are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from magtkd.errors import SweepError
from tune.ledger import SweepLayout, session_name, sessions_folder, storage_root


def test_everything_of_a_sweep_is_in_its_folder(tmp_path: Path) -> None:
    layout = SweepLayout.of(str(tmp_path), "mosi")
    assert layout.folder == tmp_path / "sweeps" / "mosi"
    places = [layout.ledger, layout.lock, layout.live_file, layout.sweep_file, layout.uploads]
    places += [layout.scratch, layout.mlflow_artifacts, layout.tracking_lock("sqlite:///x")]
    assert len(set(places)) == len(places)
    assert all(place.parent == layout.folder for place in places)
    assert layout.tracking_lock("a") != layout.tracking_lock("b")


def test_a_confirmation_has_a_folder_of_its_own_in_the_sweep_s(tmp_path: Path) -> None:
    layout = SweepLayout(tmp_path, "mosi", "s3://bucket")
    first, second = layout.confirmation(1), layout.confirmation(2)
    assert first.folder == layout.folder / "confirm"
    assert second.folder == layout.folder / "confirm-2"
    assert (first.remote_folder, second.remote_folder) == (
        "sweeps/mosi/confirm",
        "sweeps/mosi/confirm-2",
    )
    for name in ("ledger", "lock", "live_file", "sweep_file", "uploads", "scratch", "owner_file"):
        assert getattr(first, name) == first.folder / getattr(layout, name).name
    # Its runs are in the sweep's experiment, and its artifacts among the others.
    for name in ("mlflow_artifacts", "artifacts", "tracking_uri", "place"):
        assert getattr(first, name) == getattr(layout, name)
    first.ledger.parent.mkdir(parents=True)
    first.ledger.write_bytes(b"{}\n")
    assert layout.neighbours == []


def test_ledgers_of_a_remote_storage_are_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage_root("s3://bucket/results") == tmp_path / "magtkd-results"
    assert storage_root("file:///data/results") == Path("/data/results")
    assert storage_root("~/results") == Path.home() / "results"


def test_the_default_tracking_store_is_in_the_storage_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = SweepLayout(tmp_path, "mosi")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert layout.tracking_uri == f"sqlite:///{tmp_path.resolve()}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert layout.tracking_uri == "http://host:5000"


@pytest.mark.parametrize("name", ["", "../other", "a/b", ".hidden", "x" * 101, "a b"])
def test_a_name_that_no_configuration_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(SweepError, match="not a name; use letters, digits, dot"):
        SweepLayout.of(str(tmp_path), name)


def test_the_sessions_of_a_trial_are_in_the_folder_of_its_sweep() -> None:
    assert f"sessions/{session_name('a1', 3, 'c2')}".startswith(f"{sessions_folder('a1', 3)}/")
    assert sessions_folder("a1", 3).startswith(f"{sessions_folder('a1')}/")
