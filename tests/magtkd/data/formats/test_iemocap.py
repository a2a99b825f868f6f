from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from magtkd.data import make_corpus
from magtkd.data.formats.conversion import Options
from magtkd.data.formats.iemocap import find_iemocap, read_iemocap
from magtkd.errors import DataError

# The lines between are each annotator's, which are not read.
EVALUATION = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[9.0 - 11.5]	{name}_M000	fru	[2.5000, 2.5000, 2.5000]
C-E2:	Frustration;	()
A-E3:	val 3; act 2; dom  2;	()

[6.2901 - 8.2357]	{name}_F000	neu	[2.5000, 2.5000, 2.5000]
C-E2:	Neutral;	()

[12.0000 - 14.5000]	{name}_F001	xxx	[2.5000, 2.5000, 2.5000]
[15.0000 - 16.5000]	{name}_MXX0	exc	[2.5000, 2.5000, 2.5000]
[17.0000 - 18.5000]	{name}_F002	{last}	[2.5000, 2.5000, 2.5000]
"""
TRANSCRIPTION = """{name}_F000 [006.2901-008.2357]: Excuse me.
{name}_M000 [009.0000-011.5000]: Do you have your forms?
M: [LAUGHTER]
{name}_MXX0 [015.0000-016.5000]: Yeah.
{name}_F002 [017.0000-018.5000]: I don’t.
"""
Release = Callable[..., Path]


@pytest.fixture
def release(tmp_path: Path, put_clip: Callable[[Path], None]) -> Release:
    def make(*without: str, sessions: tuple[int, ...] = (1, 2, 5)) -> Path:
        for session in sessions:
            folder = tmp_path / f"Session{session}"
            for dialogue in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1b"):
                last = "hap" if dialogue.endswith("impro01") else "dis"
                texts = {
                    "EmoEvaluation": EVALUATION.format(name=dialogue, last=last),
                    "transcriptions": TRANSCRIPTION.format(name=dialogue),
                }
                for kind, text in texts.items():
                    path = folder / "dialog" / kind / f"{dialogue}.txt"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(text.encode("cp1252"))
                    path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
                for name in ("F000", "M000", "F001", "F002", "MXX0"):
                    put_clip(folder / "sentences/wav" / dialogue / f"{dialogue}_{name}.wav")
                put_clip(folder / "dialog/avi/DivX" / f"{dialogue}.avi")
        for name in without:
            (tmp_path / name).unlink()
        return tmp_path

    return make


def test_the_release(release: Release) -> None:
    source = release()
    conversion = read_iemocap(source, Options())
    rows = conversion.table.to_pylist()
    assert rows[1] == {
        "split": "train",
        "dialogue_id": "Ses01F_impro01",
        "utterance_id": 1,
        "speaker": "Ses01_M",
        "text": "Do you have your forms?",
        "label": "frustrated",
        "start": 9.0,
        "end": 11.5,
        "audio_path": "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
        "video_path": "Session1/dialog/avi/DivX/Ses01F_impro01.avi",
    }
    first = [row for row in rows if row["dialogue_id"] == "Ses01F_impro01"]
    assert [row["utterance_id"] for row in first] == [0, 1, 3, 4]
    assert [row["label"] for row in first] == ["neutral", "frustrated", "excited", "happy"]
    assert first[3]["text"] == "I don’t."
    assert {row["split"]: row["dialogue_id"][:5] for row in rows[::7]} == {
        "train": "Ses02",
        "test": "Ses05",
    }
    assert conversion.num_read == 30
    assert conversion.dropped == {"label xxx": 6, "label dis": 3, "without a wav or avi file": 0}
    assert conversion.notes == (
        "not there: Session3, Session4",
        "3 texts had damaged characters, which were repaired",
    )
    assert make_corpus(conversion.table, "x").warnings[0].startswith("no dev split; one is carved")
    assert find_iemocap(source) == "dialog/EmoEvaluation of Session1, Session2, Session5"


def test_four_classes(release: Release) -> None:
    conversion = read_iemocap(release(sessions=(1, 5)), Options(classes=4))
    assert set(conversion.table["label"].to_pylist()) == {"neutral", "happy"}
    assert conversion.dropped["label fru"] == 4
    assert "four classes" in conversion.notes[-2]


def test_labels_that_are_not_used_can_stay_as_context(release: Release) -> None:
    conversion = read_iemocap(release(sessions=(1, 5)), Options(unlabelled="keep"))
    first = conversion.table.to_pylist()[:5]
    assert [row["utterance_id"] for row in first] == [0, 1, 2, 3, 4]
    assert [row["label"] for row in first] == ["neutral", "frustrated", None, "excited", "happy"]
    assert conversion.table.num_rows == conversion.num_read == 20
    assert conversion.table["label"].null_count == 6


def test_missing_files(release: Release) -> None:
    wav = "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav"
    source = release(wav, "Session5/dialog/avi/DivX/Ses05F_impro01.avi")
    names = r"Ses01F_impro01_M000, Ses05F_impro01_F000, .*F002"
    with pytest.raises(DataError, match=f"5 of 21 utterances lack a file: {names}; complete"):
        read_iemocap(source, Options())
    kept = read_iemocap(source, Options(on_missing="keep"))
    row = kept.table.to_pylist()[1]
    assert row["audio_path"] is None
    assert row["video_path"] == "Session1/dialog/avi/DivX/Ses01F_impro01.avi"
    assert len(kept.listed["utterances without a wav or avi file"]) == 5
    dropped = read_iemocap(source, Options(on_missing="drop"))
    assert dropped.table.num_rows == 16
    assert dropped.dropped["without a wav or avi file"] == 5


def test_a_release_without_media_is_text(release: Release) -> None:
    source = release(sessions=(1,))
    (source / "Session1/sentences").rename(source / "wavs")
    (source / "Session1/dialog/avi").rename(source / "avis")
    conversion = read_iemocap(source, Options())
    assert conversion.table["audio_path"].null_count == conversion.table.num_rows == 7
    assert conversion.notes[1:3] == ("no audio: no sentences/wav", "no video: no dialog/avi/DivX")


def test_an_utterance_without_transcription_is_listed(release: Release) -> None:
    source = release(sessions=(1,))
    path = source / "Session1/dialog/transcriptions/Ses01F_impro01.txt"
    path.write_text("Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n")
    listed = read_iemocap(source, Options()).listed["utterances without a transcription"]
    assert listed == ["Ses01F_impro01_M000", "Ses01F_impro01_MXX0", "Ses01F_impro01_F002"]
    path.unlink()
    with pytest.raises(DataError, match=r"Ses01F_impro01\.txt: cannot be read: No such file"):
        read_iemocap(source, Options())


def test_another_folder(tmp_path: Path) -> None:
    assert find_iemocap(tmp_path) is None
    with pytest.raises(DataError, match="has no Session1/dialog/EmoEvaluation; give the release's"):
        read_iemocap(tmp_path, Options())
