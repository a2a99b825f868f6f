"""A table that is killed in the middle and continues: nothing is trained twice."""

from __future__ import annotations

import io
from collections import Counter

import pytest
import yaml
from rich.console import Console

from tests.integration.test_confirm import ended
from tests.integration.test_survival import wait_for
from tune.config import SweepOptions, load_table
from tune.driver import build_table
from tune.ledger import StagesRecorded, SweepLayout, TestRevealed, read_events, read_sweep

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def make(spec, folder):
    options = SweepOptions(storage=str(folder / "store"), tracking_uri="")
    return build_table(spec, options, Console(file=io.StringIO()))


@pytest.mark.cluster
def test_a_table_that_is_killed_trains_nothing_twice(
    ray_running, tmp_path, tiny_sweep, start_command
):
    base = tiny_sweep("base", {"fusion.depth": {"choice": [1]}}).base.model_dump(mode="json")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base))
    rows = [
        {"name": "one", "config": "config.yaml"},
        {"name": "other", "baseline": "no_distillation"},
    ]
    tree = {"name": "paper", "seeds": 2, "reference": "one", "data": {"A": {}}, "rows": rows}
    (tmp_path / "table.yaml").write_text(yaml.safe_dump(tree))
    arguments = "table", "table.yaml", "--storage", "store", "--no-tracking"
    layout = SweepLayout(tmp_path / "store", "paper-A")
    process = start_command(*arguments, folder=tmp_path)
    wait_for(process, lambda: ended(layout) >= 1)
    process.kill()
    process.communicate()
    assert not any(isinstance(event, TestRevealed) for event in read_events(layout.ledger))
    spec = load_table(tmp_path / "table.yaml")
    table = make(spec, tmp_path)
    assert "Revealed on test so far: 2 configurations in 4 trainings" in table.notes[-1]
    state, events = read_sweep(layout), list(read_events(layout.ledger))
    assert (state.num_resumed, state.table, len(state.trials)) == (1, "paper", 4)
    trained = Counter(
        (stage, record.key)
        for event in events
        if isinstance(event, StagesRecorded)
        for stage, record in event.stages.items()
        if record.outcome == "trained"
    )
    assert set(trained.values()) == {1}
    stages = Counter(stage for stage, _ in trained)
    assert stages == {"data": 1, "teacher": 2, "audio": 4, "video": 4, "fusion": 4}
    # It is whole: the same again reads it.
    assert make(spec, tmp_path) == table
    assert list(read_events(layout.ledger)) == events
