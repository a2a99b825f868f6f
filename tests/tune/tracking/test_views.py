"""Views of a sweep's runs, as MLflow's page reads them."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import msgspec
import pytest

from tests.tune.tracking.test_projection import CONFIG, RACE, Story
from tune.ledger import RoundDecided, Standing, SweepOpened, SweepState, fold
from tune.tracking.views import VIEW_TAG, is_ours, view_path, views_of


def state_of(**config: Any) -> SweepState:
    return fold([SweepOpened(name="mosi", config=CONFIG | config, sweep_id="s1", time=1000)])


def unpacked(value: str) -> tuple[str, dict[str, Any]]:
    """Name and state of a view."""
    envelope = json.loads(value)
    kind, _, packed = envelope["state"].partition(";")
    assert kind == "deflate"
    return envelope["name"], json.loads(zlib.decompress(base64.b64decode(packed)))


def views(state: SweepState) -> dict[str, dict[str, Any]]:
    return dict(unpacked(value) for value in views_of(state).values())


def test_a_sweep_has_three_views_of_its_own_runs() -> None:
    found = views(state_of())
    assert set(found) == {"Best first", "Values against dev", "Learning curves"}
    first = found["Best first"]
    assert first["selectedColumns"][:2] == [
        "metrics.`chosen/dev/weighted_f1`",
        "params.`fusion.depth`",
    ]
    assert (first["orderByKey"], first["orderByAsc"]) == ("metrics.`chosen/dev/weighted_f1`", False)
    assert all("tags.`magtkd.sweep` = 's1'" in view["searchFilter"] for view in found.values())
    kinds = [chart["type"] for chart in found["Values against dev"]["compareRunCharts"]]
    assert kinds == ["PARALLEL", "LINE", "SCATTER"]
    for view in found.values():
        charts, sections = view.get("compareRunCharts", []), view.get("compareRunSections", [])
        ids = [one["uuid"] for one in charts + sections]
        assert len(set(ids)) == len(ids)
        assert {one["metricSectionId"] for one in charts} <= {one["uuid"] for one in sections}


def test_a_loss_is_sorted_upwards_and_several_objectives_have_no_best_so_far() -> None:
    objectives = [{"metric": "dev/loss", "mode": "min"}, {"metric": "dev/accuracy", "mode": "max"}]
    found = views(state_of(objective=objectives))
    assert found["Best first"]["orderByAsc"]
    assert found["Best first"]["selectedColumns"][1] == "metrics.`chosen/dev/accuracy`"
    kinds = [chart["type"] for chart in found["Values against dev"]["compareRunCharts"]]
    assert "LINE" not in kinds


@pytest.mark.parametrize("num_names", [0, 1, 3000])
def test_a_view_fits_into_a_tag(num_names: int) -> None:
    space = {f"fusion.{number}.{'long' * 20}": {"int": [1, 3]} for number in range(num_names)}
    for value in views_of(state_of(space=space)).values():
        assert len(value) <= 20_000


def test_a_confirmation_has_a_view_once_it_has_chosen() -> None:
    story = Story(race=RACE)
    assert views_of(story.projection.state) == {}
    best = Standing(trial=12, mean=0.6, deviation=0.1, low=0.5, high=0.7, gap=0.0, p=1.0)
    story.apply(RoundDecided(num_seeds=2, standings=[best], is_last=True, chosen=12))
    (key,) = views_of(story.projection.state)
    assert key == f"{VIEW_TAG}magtkd-confirm-2"
    view = views(story.projection.state)["Confirmed (confirm-2)"]
    assert view["groupBy"]["groupByKeys"] == [{"mode": "tag", "groupByData": "magtkd.confirms"}]


def test_a_view_is_the_same_whenever_it_is_written_and_told_from_one_that_was_changed() -> None:
    state = state_of()
    assert views_of(state) == views_of(state_of())
    value = next(iter(views_of(state).values()))
    assert is_ours(value)
    assert not is_ours(json.dumps(json.loads(value) | {"updatedAt": 2000}))
    assert not is_ours("torn {")
    assert views_of(SweepState()) == {}
    assert msgspec.json.decode(value)["createdAt"] == 1000


def test_an_address_opens_a_view_or_the_plain_table() -> None:
    runs = "/#/experiments/7/runs?workflowType=machine_learning"
    assert view_path("7", "magtkd-values") == f"{runs}&viewStateShareKey=magtkd-values"
    assert view_path("7", None) == runs
