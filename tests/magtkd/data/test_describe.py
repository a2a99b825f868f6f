from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
from rich.console import Console

from magtkd.data import make_corpus, read_path
from magtkd.data.describe import describe, render

MakeTable = Callable[..., pa.Table]


def test_numbers_are_right(make_table: MakeTable) -> None:
    facts = describe(make_corpus(make_table(), "somewhere"))
    assert facts["splits"] == {
        "train": {"utterances": 9, "conversations": 3, "shortest": 1, "median": 3.0, "longest": 5},
        "dev": {"utterances": 2, "conversations": 1, "shortest": 2, "median": 2.0, "longest": 2},
        "test": {"utterances": 5, "conversations": 2, "shortest": 2, "median": 2.5, "longest": 3},
    }
    assert facts["labels"]["joy"] == {"train": 5, "dev": 1, "test": 2}
    assert facts["speakers"]["speaker 1"] == {"train": 4, "dev": 1, "test": 3}
    assert (facts["num_speakers"], facts["features"]) == (2, {"text": 7})
    assert json.loads(json.dumps(facts)) == facts


def test_speakers_shown_are_the_most_frequent(make_table: MakeTable) -> None:
    speakers = ["often"] * 3 + [f"[b]once {index}" for index in range(13)]
    facts = describe(make_corpus(make_table(speaker=speakers), "somewhere"))
    assert (facts["num_speakers"], len(facts["speakers"])) == (14, 10)
    assert next(iter(facts["speakers"])) == "often"


def test_text_shows_everything(make_table: MakeTable) -> None:
    corpus = make_corpus(make_table(speaker=["[b]x"] * 16).slice(0, 11), "somewhere")
    console = Console(width=100)
    with console.capture() as capture:
        console.print(render(corpus))
    text = capture.get()
    for part in ("somewhere", "conversations", "joy", "[b]x", "1 of 1", "text 7", "no test split"):
        assert part in text


def test_meld(data_folder: Path) -> None:
    facts = describe(read_path(data_folder / "meld"))
    assert facts["splits"]["train"]["conversations"] == 1038
    assert facts["labels"]["neutral"] == {"train": 4710, "dev": 470, "test": 1256}
    assert next(iter(facts["speakers"])) == "Joey"
