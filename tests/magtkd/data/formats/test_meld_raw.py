from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import av
import pytest

from magtkd.data.formats.conversion import Options
from magtkd.data.formats.meld import BROKEN_CLIPS
from magtkd.data.formats.meld_raw import FOLDERS, find_meld, read_meld_raw
from magtkd.data.paths import inside
from magtkd.errors import DataError

HEADER = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,StartTime,EndTime"
ROWS = {
    "train": [(0, 0), (0, 1), (7, 0), (125, 3)],
    "dev": [(3, 0), (110, 6), (110, 7)],
    "test": [(3, 0), (38, 4)],
}
Release = Callable[..., Path]


@pytest.fixture
def release(tmp_path: Path, put_clip: Callable[[Path], None]) -> Release:
    """A release in which everything is as published, without the clips that are named."""

    def make(*without: str, nested: bool = False) -> Path:
        source = tmp_path / "MELD.Raw"
        for split, places in ROWS.items():
            folder = source / split if nested else source
            for dialogue, utterance in places:
                clip = f"{FOLDERS[split][0]}/dia{dialogue}_utt{utterance}.mp4"
                if clip not in without and (split, dialogue, utterance) != ("dev", 110, 7):
                    put_clip(folder / clip)
            lines = [
                f'1,"Oh, no.",Ross,joy,positive,{place[0]},{place[1]},"0:00:01,500","0:00:02,000"'
                for place in places
            ]
            (folder / f"{split}_sent_emo.csv").write_text("\n".join([HEADER, *lines]))
        return source

    return make


@pytest.mark.parametrize("nested", [False, True])
def test_clips_are_found_and_can_be_decoded(release: Release, nested: bool) -> None:
    source = release(nested=nested)
    conversion = read_meld_raw(source, Options())
    rows = conversion.table.to_pylist()
    assert conversion.num_read == len(rows) == 9
    paths = {(row["dialogue_id"], row["utterance_id"]): row["video_path"] for row in rows}
    middle = "test/" if nested else ""
    assert paths["test/3", 0] == f"{middle}output_repeated_splits_test/dia3_utt0.mp4"
    assert [row["audio_path"] for row in rows] == [row["video_path"] for row in rows]
    broken = {("train/125", 3), ("dev/110", 7), ("test/38", 4)}
    assert {place for place, path in paths.items() if path is None} == broken
    for path in filter(None, paths.values()):
        with av.open(inside(source, path)) as clip:
            assert len(list(clip.decode(video=0))) == 10
    assert find_meld(source) == "train_sent_emo.csv and clips of train, dev, test"


def test_clips_known_to_be_broken_are_listed_and_can_be_dropped(release: Release) -> None:
    source = release()
    listed = [
        "train dia125_utt3 (cannot be decoded)",
        "dev dia110_utt7 (missing)",
        "test dia38_utt4 (305 s long, cut wrongly)",
    ]
    for policy in ("error", "keep"):
        kept = read_meld_raw(source, Options(on_missing=policy))
        assert kept.listed["clips known to be broken or missing"] == listed
        assert kept.dropped == {"without a clip": 0}
        assert kept.notes == []
    dropped = read_meld_raw(source, Options(on_missing="drop"))
    assert dropped.dropped == {"without a clip": 3}
    assert dropped.table.num_rows == 6
    assert dropped.notes[0].startswith("test has 1 of its 2 utterances, so its scores are of")
    assert dropped.table["video_path"].null_count == 0
    assert dropped.listed["clips known to be broken or missing"] == listed


def test_a_missing_clip_that_somebody_put_in_place_is_used(
    release: Release, put_clip: Callable[[Path], None]
) -> None:
    source = release()
    put_clip(source / "dev_splits_complete/dia110_utt7.mp4")
    conversion = read_meld_raw(source, Options())
    assert len(conversion.listed["clips known to be broken or missing"]) == 2


def test_other_clips_that_are_missing_or_empty(release: Release) -> None:
    source = release("train_splits/dia7_utt0.mp4")
    (source / "dev_splits_complete/dia3_utt0.mp4").write_bytes(b"")
    message = (
        r"MELD\.Raw: 2 of 9 utterances lack a file: train dia7_utt0, dev dia3_utt0; complete the "
        r"release, or choose --on-missing drop .* or keep"
    )
    with pytest.raises(DataError, match=message):
        read_meld_raw(source, Options())
    kept = read_meld_raw(source, Options(on_missing="keep"))
    assert kept.listed["clips without a file"] == ["train dia7_utt0", "dev dia3_utt0"]
    assert kept.table.num_rows == 9
    dropped = read_meld_raw(source, Options(on_missing="drop"))
    assert dropped.table.num_rows == 4
    assert dropped.dropped == {"without a clip": 5}


def test_other_files_are_counted(release: Release, put_clip: Callable[[Path], None]) -> None:
    source = release()
    for name in ("._dia3_utt0.mp4", "final_videos_testdia3_utt0.mp4", "dia99_utt0.mp4", "x.txt"):
        put_clip(source / "output_repeated_splits_test" / name)
    assert read_meld_raw(source, Options()).notes == [
        "not used: 1 ._* files of macOS",
        "not used: 1 final_videos_test* duplicates",
        "not used: 1 other files",
        "not used: 1 test clips without a row",
    ]


def test_a_split_without_its_folder(release: Release) -> None:
    source = release()
    (source / "dev_splits_complete").rename(source.parent / "elsewhere")
    with pytest.raises(DataError, match="2 of 9 utterances lack a file: dev dia3_utt0, dev dia110"):
        read_meld_raw(source, Options())
    (source / "dev_splits_complete").symlink_to(source.parent / "elsewhere")
    with pytest.raises(DataError, match="the path 'dev_splits_complete' leads out of it"):
        read_meld_raw(source, Options())


def test_without_clips_it_is_text(release: Release) -> None:
    source = release()
    for names in FOLDERS.values():
        (source / names[0]).rename(source.parent / names[0])
    conversion = read_meld_raw(source, Options())
    assert "video_path" not in conversion.table.column_names
    assert conversion.notes[-1].startswith("no clips: none of train_splits, dev_splits_complete")


def test_meld(data_folder: Path, tmp_path: Path) -> None:
    """The real utterances, with a byte for each clip that the release is known to have."""
    for split, names in FOLDERS.items():
        (tmp_path / names[0]).mkdir()
        content = (data_folder / "meld" / f"{split}_sent_emo.csv").read_bytes()
        (tmp_path / f"{split}_sent_emo.csv").write_bytes(content)
        for row in csv.DictReader(content.decode(errors="replace").splitlines()):
            place = (split, int(row["Dialogue_ID"]), int(row["Utterance_ID"]))
            if BROKEN_CLIPS.get(place) != "missing":
                (tmp_path / names[0] / f"dia{place[1]}_utt{place[2]}.mp4").write_bytes(b".")
    conversion = read_meld_raw(tmp_path, Options(on_missing="drop"))
    assert conversion.num_read == 13_708
    assert conversion.table.num_rows == 13_708 - len(BROKEN_CLIPS)
    assert len(conversion.listed["clips known to be broken or missing"]) == len(BROKEN_CLIPS)
    assert conversion.listed["clips without a file"] == []
