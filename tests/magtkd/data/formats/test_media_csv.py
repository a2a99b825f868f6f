from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from magtkd.data.formats.conversion import Options
from magtkd.data.formats.media_csv import find_media_csv, read_media_csv
from magtkd.errors import DataError
from magtkd.media.files import media_paths

IEMOCAP = "Dialogue_ID,Utterance,Speaker,Emotion,Wav_Path,Video_Path,Start_Time,End_Time"
MELD = "Utterance,Speaker,Emotion,Dialogue_ID,Utterance_ID,Wav_Path,Video_Path,StartTime,EndTime"
Put = Callable[[Path], None]


def _line(session: int, name: str, label: str, times: str = "6.29,8.23") -> str:
    dialogue = f"Ses0{session}F_impro01"
    root = f"../datasets/IEMOCAP/Session{session}"
    wav = f"{root}/sentences/wav/{dialogue}/{dialogue}_{name}.wav"
    avi = f"{root}/dialog/avi/DivX/{dialogue}.avi"
    return f'{dialogue},"Well, no.",{name[0]},{label},{wav},{avi},{times}'


@pytest.fixture
def iemocap(tmp_path: Path, put_clip: Put) -> Path:
    """The form in which MAGTKD takes IEMOCAP, beside two of the release's sessions."""
    for split, session in {"train": 1, "dev": 2, "test": 5}.items():
        lines = [_line(session, "F000", "hap"), _line(session, "M000", "fru", "9.5,11")]
        text = "\n".join([IEMOCAP, *lines, _line(session, "F001", "xxx")])
        (tmp_path / f"IEMOCAP_{split}.csv").write_text(text)
        dialogue = f"Ses0{session}F_impro01"
        for name in ("F000", "M000"):
            wav = f"Session{session}/sentences/wav/{dialogue}/{dialogue}_{name}.wav"
            put_clip(tmp_path / wav)
        put_clip(tmp_path / f"Session{session}/dialog/avi/DivX/{dialogue}.avi")
    return tmp_path


def test_iemocap(iemocap: Path) -> None:
    conversion = read_media_csv(iemocap, Options())
    assert conversion.num_read == 9
    assert conversion.dropped == {"label xxx": 3, "without a file that is named": 0}
    assert conversion.table.to_pylist()[1] == {
        "split": "train",
        "dialogue_id": "train/Ses01F_impro01",
        "utterance_id": 1,
        "speaker": "Ses01_M",
        "text": "Well, no.",
        "label": "frustrated",
        "start": 9.5,
        "end": 11.0,
        "audio_path": "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
        "video_path": "Session1/dialog/avi/DivX/Ses01F_impro01.avi",
    }
    assert conversion.notes == ["6 utterances are a part, from start to end, of a longer video"]
    assert find_media_csv(iemocap) == "IEMOCAP_dev.csv, IEMOCAP_test.csv, IEMOCAP_train.csv"
    assert set(read_media_csv(iemocap, Options(classes=4)).table["label"].to_pylist()) == {"happy"}


def test_meld(tmp_path: Path, put_clip: Put) -> None:
    clip = "train_splits/dia0_utt4.mp4"
    line = f"Why?,Monica,joy,0,4,C:\\MELD\\{clip},/data/{clip},00:01:02.500,00:01:03.250"
    (tmp_path / "train_meld_emo.csv").write_text(f"{MELD}\n{line}\n")
    put_clip(tmp_path / clip)
    conversion = read_media_csv(tmp_path, Options())
    (row,) = conversion.table.to_pylist()
    assert (row["audio_path"], row["video_path"]) == (clip, clip)
    assert (row["utterance_id"], row["start"], row["end"]) == (4, 62.5, 63.25)
    assert conversion.notes == ["no dev file", "no test file"]


def test_speakers_that_are_utterance_ids(iemocap: Path) -> None:
    path = iemocap / "IEMOCAP_train.csv"
    ids = {'no.",F,hap': "Ses01M_impro01_F000", 'no.",M,fru': "Ses01M_script03_2_MXX1"}
    text = path.read_text()
    for old, new in ids.items():
        text = text.replace(old, old[:5] + new + old[6:])
    path.write_text(text)
    conversion = read_media_csv(iemocap, Options())
    assert conversion.table["speaker"].to_pylist() == [
        f"Ses0{session}_{sex}" for session in (1, 2, 5) for sex in "FM"
    ]
    note = "2 speakers were utterance ids; they are named by session and sex, as Ses01_F"
    assert conversion.notes[-1] == note


def test_without_sound_files(tmp_path: Path, put_clip: Put) -> None:
    """As in TelME's MELD; of a dialogue that shows no session, F stays F."""
    clips = ["train_splits/dia0_utt4.mp4", "train_splits/dia0_utt5.mp4"]
    lines = [f"Why?,F,joy,0,{clip[-5]},/data/{clip},0,1" for clip in clips]
    header = MELD.replace("Wav_Path,", "")
    (tmp_path / "train_meld_emo.csv").write_text("\n".join([header, *lines]))
    put_clip(tmp_path / clips[0])
    with pytest.raises(DataError, match=r"1 of 2 utterances lack a file: /data/train_splits/dia0_"):
        read_media_csv(tmp_path, Options())
    put_clip(tmp_path / clips[1])
    conversion = read_media_csv(tmp_path, Options())
    assert (
        conversion.notes[-1]
        == "2 utterances have no Wav_Path; their sound is read from their video"
    )
    assert conversion.table["audio_path"].null_count == 2
    assert conversion.table["speaker"].to_pylist() == ["F", "F"]
    assert media_paths(conversion.table, "audio") == clips


def test_files_that_are_not_there(iemocap: Path) -> None:
    (iemocap / "Session2/sentences/wav/Ses02F_impro01/Ses02F_impro01_M000.wav").unlink()
    with pytest.raises(DataError, match=r"1 of 6 utterances lack a file: \.\./datasets/IEMOCAP/S"):
        read_media_csv(iemocap, Options())
    assert read_media_csv(iemocap, Options(on_missing="drop")).table.num_rows == 5
    kept = read_media_csv(iemocap, Options(on_missing="keep")).table.to_pylist()
    assert [row["audio_path"] is None for row in kept] == [False, False, False, True, False, False]


def test_paths_stay_in_the_folder(iemocap: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("other") / "secret.wav"
    secret.write_text("secret")
    path = iemocap / "IEMOCAP_train.csv"
    text = path.read_text()
    named = "../datasets/IEMOCAP/Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    for hostile in (str(secret), f"../{secret.parent.name}/secret.wav", "", "..", "a\0b"):
        path.write_text(text.replace(named, hostile))
        kept = read_media_csv(iemocap, Options(on_missing="keep")).table.to_pylist()
        assert kept[0]["audio_path"] is None
    (iemocap / "link").symlink_to(secret.parent)
    path.write_text(text.replace(named, "link/secret.wav"))
    with pytest.raises(DataError, match=r"the path 'link/secret\.wav' leads out of it"):
        read_media_csv(iemocap, Options(on_missing="keep"))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "Wav_Path,Video_Path,",
            "",
            r"IEMOCAP_train\.csv: lacks the column Video_Path; it has Dialogue_ID, Utt",
        ),
        ("6.29", "soon", r"line 2: Start_Time: 'soon' is neither seconds nor a time"),
        ("\nSes01F_impro01", "\n", "line 2: Dialogue_ID is empty"),
        ("Speaker", "utterance", "lacks the column Speaker"),
        ("Start_Time", "EndTime,Start_Time", "has the column 'endtime' more than once"),
    ],
)
def test_damage_is_refused(iemocap: Path, old: str, new: str, message: str) -> None:
    path = iemocap / "IEMOCAP_train.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        read_media_csv(iemocap, Options())


def test_two_data_sets_in_one_folder_are_refused(iemocap: Path) -> None:
    (iemocap / "train_meld_emo.csv").write_text(MELD)
    with pytest.raises(DataError, match=r"train_meld_emo\.csv and IEMOCAP_train\.csv: keep one"):
        find_media_csv(iemocap)


def test_meld_s_names_and_texts_are_those_of_meld(tmp_path: Path, put_clip: Put) -> None:
    """One place repairs them, and the repairs are counted."""
    names = ("Phoebe Sr", "Phoebe Sr.", "Dr. Leedbetter", "Dr. Ledbetter", "Joey\x92s Date")
    put_clip(tmp_path / "clip.mp4")
    lines = [
        f"It\x92s {index},{name},joy,0,{index},,clip.mp4,0,1" for index, name in enumerate(names)
    ]
    (tmp_path / "train_meld_emo.csv").write_text("\n".join([MELD, *lines]), encoding="utf-8")
    conversion = read_media_csv(tmp_path, Options(on_missing="keep"))
    speakers = conversion.table["speaker"].to_pylist()
    assert speakers == ["Phoebe Sr."] * 2 + ["Dr. Ledbetter"] * 2 + ["Joey's Date"]
    assert conversion.table["text"][0].as_py() == "It’s 0"
    assert "5 texts had damaged characters, which were repaired" in conversion.notes
