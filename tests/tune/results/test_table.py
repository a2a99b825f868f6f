"""The cells of a table and what is said of them, from made-up predictions."""

import csv
import io
import json
import statistics

import numpy as np
import pytest

from tune.config import TableSpec
from tune.results import TABLE_FORMATS, Trained, make_paper_table
from tune.stats import score_counts

LABELS = ("joy", "anger & rage")
SPEC = TableSpec.model_validate(
    {
        "name": "paper",
        "seeds": 3,
        "reference": "MAGT",
        "data": {"A": "a", "B": "b"},
        "metrics": ["accuracy", "f1"],
        "rows": [
            {"name": "MAGT", "config": "c"},
            {"name": "bad_one", "config": "c"},
            {"name": "only A", "config": {"A": "c"}},
            {
                "name": "other",
                "published": {"A": {"accuracy": 99.5}},
                "source": "a paper, 50 % of test",
            },
        ],
    }
)


def trained(skill, seed=0, num_conversations=30):
    generator = np.random.default_rng(seed)
    shape = 3, num_conversations, 8
    label = np.random.default_rng(9).integers(0, 2, shape[1:])
    is_right = generator.random(shape) < skill
    cell = label * 2 + np.where(is_right, label, 1 - label)
    counts = (cell[..., None] == np.arange(4)).sum(axis=2).reshape(3, num_conversations, 2, 2)
    keys = tuple({"data": "d", "fusion": f"k{seed}{one}"} for one in range(3))
    return Trained(labels=LABELS, seeds=(1, 2, 3), counts=counts, keys=keys)


@pytest.fixture(scope="module")
def systems():
    found = {("MAGT", data): trained(0.8, 1) for data in "AB"}
    found |= {("bad_one", data): trained(0.4, 2) for data in "AB"}
    return found | {("only A", "A"): trained(0.8, 3)}


@pytest.fixture(scope="module")
def table(systems):
    return make_paper_table(SPEC, systems, ["A note."], num_draws=500)


def test_a_cell_is_mean_and_deviation_over_seeds(table, systems):
    cell = table.cells["bad_one", "A", "f1/joy"]
    counts = systems["bad_one", "A"].counts
    values = [float(score_counts(one.sum(axis=0), "f1/joy", LABELS)) for one in counts]
    assert cell.values == pytest.approx(values)
    assert cell.mean == pytest.approx(statistics.fmean(values))
    assert cell.deviation == pytest.approx(statistics.stdev(values))
    assert cell.low < cell.mean < cell.high
    assert cell.keys == systems["bad_one", "A"].keys


def test_what_differs_is_marked_and_the_best_too(table):
    assert table.cells["bad_one", "A", "accuracy"].comparison.is_significant
    assert not table.cells["only A", "A", "accuracy"].comparison.is_significant
    assert table.cells["MAGT", "A", "accuracy"].comparison is None
    assert table.cells["other", "A", "accuracy"].is_best
    ranks = [table.cells[row, "B", "accuracy"] for row in ("MAGT", "bad_one")]
    assert [(one.is_best, one.is_second) for one in ranks] == [(True, False), (False, True)]
    assert ("only A", "B", "accuracy") not in table.cells
    assert table.num_comparisons == 3 * 3
    for cell in table.cells.values():
        if cell.comparison is not None:
            assert cell.comparison.p <= cell.comparison.p_corrected <= 1


def test_the_order_of_rows_changes_no_figure(table, systems):
    tree = SPEC.model_dump(mode="json")
    tree["rows"].reverse()
    other = make_paper_table(TableSpec.model_validate(tree), systems, ["A note."], num_draws=500)
    assert other.cells == table.cells


def test_each_format_has_each_figure_and_where_it_is_from(table):
    texts = {suffix: text_of(table) for suffix, text_of in TABLE_FORMATS.items()}
    lines = list(csv.DictReader(io.StringIO(texts["csv"])))
    cells = json.loads(texts["json"])["cells"]
    assert len(lines) == len(cells) == len(table.cells)
    for line, cell in zip(lines, cells, strict=True):
        own = table.cells[line["row"], line["data"], line["metric"]]
        assert float(line["mean"]) == cell["mean"] == own.mean
        assert line["keys.fusion"].split() == [keys["fusion"] for keys in own.keys]
        assert [keys["fusion"] for keys in cell["keys"]] == line["keys.fusion"].split()
        for suffix in ("md", "tex"):
            assert f"{100 * own.mean:.2f}" in texts[suffix]
        for keys in own.keys:
            assert keys["fusion"] in texts["tex"]
        if own.comparison is not None:
            assert cell["comparison"]["p"] == float(line["p"]) == own.comparison.p


def test_what_people_read(table):
    text = TABLE_FORMATS["md"](table)
    first = text.splitlines()
    assert first[0] == (
        "|  | A: Accuracy | A: F1 of joy | A: F1 of anger & rage | B: Accuracy | B: F1 of joy "
        "| B: F1 of anger & rage |"
    )
    assert first[5] == "| other (published) | **99.50** | – | – | – | – | – |"
    assert "†" in first[3]
    assert "mean ± standard deviation over 3 seeds (1, 2, 3)" in text
    assert "correction for 9 comparisons" in text
    assert "other: published, a paper, 50 % of test." in text
    assert "A note." in text


def test_latex_is_escaped_and_has_as_many_columns_as_it_says(table):
    text = TABLE_FORMATS["tex"](table)
    assert r"\begin{tabular}{lcccccc}" in text
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0].strip().splitlines()
    assert [line.count(" & ") for line in body] == [6] * 4
    assert r"bad\_one & " in text
    assert r"F1 of anger \& rage" in text
    assert r"50 \% of test" in text
    plain = [line for line in text.splitlines() if not line.startswith("%")]
    assert not any(letter in "±†–" for line in plain for letter in line)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
