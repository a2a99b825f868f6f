from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from magtkd.errors import ArtifactError
from magtkd.media.clips import Clips, ClipWriter
from magtkd.store import Artifact, Store

LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=8)


def identity(rows: list[int]) -> pa.Table:
    return pa.table({"dialogue_id": ["d"] * len(rows), "utterance_id": pa.array(rows, pa.int32())})


@given(lengths=LENGTHS, seed=st.integers(0, 99))
def test_waveforms_come_back_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    waves = [generator.integers(-32768, 32768, size, dtype=np.int16) for size in lengths]
    path = tmp_path_factory.mktemp("clips") / "media.bin"
    with ClipWriter(path, "waveform") as writer:
        for wave in waves:
            writer.append(wave)
    table = writer.table(identity(list(range(len(waves)))), ())
    order = generator.permutation(len(waves)).tolist()
    if not sum(lengths):
        return  # an empty file cannot be mapped; no clip is that short
    clips = Clips(table, str(path), identity(order))
    assert len(clips) == len(waves)
    assert clips.lengths.tolist() == [lengths[row] for row in order]
    for row, wave in enumerate(order):
        assert np.array_equal(clips[row], waves[wave])


def make_artifact(folder: Path) -> Artifact:
    frames = np.arange(2 * 3 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 4, 3)
    with ClipWriter(folder / "written", "frames") as writer:
        for clip in frames:
            writer.append(clip)
    table = writer.table(identity([0, 1]), (3, 4, 4, 3))
    return Artifact("video_media", "k", table, {"seconds": 0.0}, {}, media=str(folder / "written"))


def test_an_artifact_takes_its_clips_into_the_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    written = store.write(make_artifact(tmp_path))
    assert not (tmp_path / "written").exists()
    found = store.read("video_media", "k")
    assert found == written
    assert found.media == str(tmp_path / "store/artifacts/video_media/k/media.bin")
    clips = Clips(found.table, found.media, identity([1, 0]))
    assert clips.shape == (3, 4, 4, 3)
    assert clips[1][0, 0].tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]


def test_the_first_of_two_writers_wins(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    first, second = (store.write(make_artifact(tmp_path)) for _ in range(2))
    assert first == second
    assert not (tmp_path / "written").exists()
    assert not list((tmp_path / "store/tmp").iterdir())


def test_a_clip_that_changed_is_named_when_it_is_looked_at(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    artifact = store.write(make_artifact(tmp_path))
    path = Path(artifact.media)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    clips = Clips(store.read("video_media", "k").table, artifact.media, identity([0, 1]))
    assert clips[0].shape == (3, 4, 4, 3)
    with pytest.raises(ArtifactError, match=r"media\.bin: the file is damaged; delete .*k$"):
        clips[1]


@pytest.mark.parametrize("content", [b"", b"short", None])
def test_a_media_file_of_another_size_is_a_damaged_artifact(
    tmp_path: Path, content: bytes | None
) -> None:
    store = Store(tmp_path / "store")
    path = Path(store.write(make_artifact(tmp_path)).media)
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    warned: list[str] = []
    assert store.find("video_media", "k", warn=warned.append) is None
    assert "media.bin: the file is " in warned[0]
    assert warned[0].endswith("the stage is retrained")


def test_clips_at_an_address_are_copied_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "video_media/k").mkdir(parents=True)
    artifact = make_artifact(tmp_path)
    place = (tmp_path / "written").rename(tmp_path / "video_media/k/media.bin")
    for _ in range(2):
        clips = Clips(artifact.table, place.as_uri(), identity([0, 1]))
        assert clips[0].shape == (3, 4, 4, 3)
        place.unlink(missing_ok=True)
    with pytest.raises(ArtifactError, match=r"the clips cannot be read; they must be reachable"):
        Clips(artifact.table, (tmp_path / "gone").as_uri(), identity([0, 1]))[0]
