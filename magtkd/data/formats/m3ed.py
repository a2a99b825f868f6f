"""M3ED's annotations (Zhao et al., ACL 2022): Chinese television, a JSON file and lists of shows.

`annotation.json` has shows, in these conversations, in these `SpeakerInfo` and `Dialog`: utterances
by name, each with speaker `A` or `B`, text, times in the episode and the annotators' emotions, of
which `final_main_emo` counts. `splitInfo/movie_list_train.txt`, `_val` and `_test` name the shows
of a split.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from magtkd.data.columns import SPLITS
from magtkd.data.formats.conversion import Conversion, Options, make_table
from magtkd.data.formats.repair import Repairs, decode_bytes
from magtkd.errors import DataError, and_more, shorten

__all__ = ["LABELS", "find_m3ed", "read_m3ed"]

LABELS = ("anger", "disgust", "fear", "happy", "neutral", "sad", "surprise")
_LISTS = {"train": "train", "dev": "val", "test": "test"}
_WHERE = "take the files as they were distributed"


def find_m3ed(source: Path) -> str | None:
    """The file of annotations in a folder; None where it, or the list of train's shows, is not."""
    files = [source / "annotation.json", _list(source, "train")]
    return files[0].name if all(map(os.path.isfile, files)) else None


def read_m3ed(source: Path, options: Options) -> Conversion:
    """The table of the release. An utterance without a main emotion has no label.

    Raises:
        DataError: a file is missing or cannot be read, a show is in no split or in two, or an
            emotion is none of the seven.
    """
    path = source / "annotation.json"
    splits = _splits(source)
    rows: list[dict[str, Any]] = []
    repairs = Repairs()
    for show, conversations in _mapping(_read(path), str(path)).items():
        place = f"{path}: {shorten(show)}"
        if show not in splits:
            raise DataError(f"{place}: is in no list of splitInfo; {_WHERE}")
        for name, conversation in _mapping(conversations, place).items():
            where = f"{place}: {shorten(name)}"
            utterances = _mapping(_mapping(conversation, where).get("Dialog"), where)
            speakers = _mapping(conversation.get("SpeakerInfo") or {}, where)
            for index, (key, utterance) in enumerate(utterances.items()):
                own = f"{where}: {shorten(key)}"
                fields = _mapping(utterance, own)
                speaker = str(fields.get("Speaker", "")).strip()
                person = speakers.get(speaker)
                known = person.get("Name") if isinstance(person, dict) else None
                rows.append(
                    {
                        "split": splits[show],
                        "dialogue_id": name,
                        "utterance_id": index,
                        "speaker": repairs.text(f"{show}/{known or speaker}"),
                        "text": repairs.text(str(fields.get("Text", ""))).strip(),
                        "label": _label(fields.get("EmoAnnotation"), own),
                    }
                )
    return Conversion(make_table(rows, source), len(rows), notes=[*repairs.notes()])


def _list(source: Path, split: str) -> Path:
    return source / "splitInfo" / f"movie_list_{_LISTS[split]}.txt"


def _splits(source: Path) -> dict[str, str]:
    splits: dict[str, str] = {}
    for split in SPLITS:
        path = _list(source, split)
        try:
            names = decode_bytes(path.read_bytes()).split()
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}; {_WHERE}") from None
        for name in names:
            if splits.setdefault(name, split) != split:
                raise DataError(
                    f"{path}: {shorten(name)} is in {splits[name]} too; a show is in one split"
                )
    return splits


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}; check the release") from None
    except (ValueError, RecursionError):  # UnicodeDecodeError too
        raise DataError(f"{path}: not JSON; {_WHERE}") from None


def _mapping(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"{place}: {shorten(ascii(value))} is no mapping of names; {_WHERE}")
    return value


def _label(annotation: Any, place: str) -> str | None:
    found = _mapping(annotation or {}, place).get("final_main_emo")
    if found is None or str(found).strip() == "":
        return None
    label = str(found).strip().lower()
    if label not in LABELS:
        raise DataError(
            f"{place}: final_main_emo: {shorten(str(found))!r} is none of {and_more(LABELS, 7)}"
        )
    return label
