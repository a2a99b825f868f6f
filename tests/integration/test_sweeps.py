"""What a sweep trains, what it takes from the store, and what becomes of trials that fail."""

from __future__ import annotations

import re
import shutil
import threading
import time
from pathlib import Path

import psutil
import pytest
import ray
import torch

from magtkd.data import read_corpus
from magtkd.errors import SweepError
from magtkd.metrics import Scores
from magtkd.pipeline import source_of
from magtkd.store import Store
from tune.config import SweepOptions
from tune.driver import preview_sweep
from tune.driver.preview import StageCount
from tune.engine import SessionOpened, TrialRequest
from tune.engine.engine import Engine
from tune.ledger import SweepLayout, TestRevealed, read_events, read_sweep
from tune.results import best, reveal_test
from tune.space import Candidate

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_running"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

STAGES = ("data", "teacher", "audio", "video", "fusion")
GRID = {
    "teacher.hidden_dim": {"choice": [8, 12]},
    "audio.distill.temperature": {"choice": [1.0, 4.0], "tie": ["video.distill.temperature"]},
    "fusion.dropout": {"choice": [0.1, 0.5]},
}
SEARCH = {"sampler": "grid", "num_trials": 8}
DISTINCT = {"data": 1, "teacher": 2, "audio": 4, "video": 4, "fusion": 8}


def dev_of(state):
    return {number: trial.dev for number, trial in state.trials.items()}


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


@pytest.fixture(scope="module")
def preview(storage, tiny_sweep):
    sweep = tiny_sweep("grid", GRID, search=SEARCH)
    seen = preview_sweep(sweep, SweepOptions(storage=str(storage)))
    assert list(storage.iterdir()) == []
    return seen


@pytest.fixture(scope="module")
def grid(preview, storage, tiny_sweep, run):
    return run(tiny_sweep("grid", GRID, search=SEARCH), storage)


# --- the grid ---------------------------------------------------------------------------------


def test_a_preview_counts_and_writes_nothing(preview):
    assert preview.num_configurations == 8
    assert preview.stages == {stage: StageCount(number, 0) for stage, number in DISTINCT.items()}


def test_every_distinct_stage_is_trained_once(grid, outcomes):
    assert grid.count() == {"completed": 8}
    counted = outcomes(grid)
    for stage, number in DISTINCT.items():
        assert counted[stage] == {"trained": number} | (
            {"reused": 8 - number} if number < 8 else {}
        )
    for stage, number in DISTINCT.items():
        assert len({trial.stages[stage].key for trial in grid.trials.values()}) == number


def test_ledger_study_and_runs_of_a_grid_agree(grid, storage, check_agreement):
    state = check_agreement(storage, "grid")
    for trial in state.trials.values():
        chosen = next(report for report in trial.reports if report.epoch == trial.epoch)
        assert trial.objectives == [chosen.metrics["dev/weighted_f1"]]
        assert trial.dev.weighted_f1 == trial.objectives[0]


def test_stages_are_counted_beside_a_continuous_range(tiny_sweep, tmp_path) -> None:
    space = {
        "teacher.hidden_dim": {"choice": [4, 6]},
        "audio.distill.temperature": {"float": [1.0, 8.0]},
    }
    seen = preview_sweep(tiny_sweep("mixed", space), SweepOptions(storage=str(tmp_path)))
    assert (seen.num_configurations, seen.is_whole) == (None, True)
    assert {stage: count.distinct for stage, count in seen.stages.items()} == {
        **{"data": 1, "teacher": 2, "audio": None, "video": 2, "fusion": None},
    }
    large = tiny_sweep("large", {"fusion.batch_size": {"int": [1, 20_000]}})
    assert not preview_sweep(large, SweepOptions(storage=str(tmp_path))).is_whole


def test_a_name_that_changes_no_stage_is_reported(tiny_sweep, run, tmp_path) -> None:
    space = {"audio.distill.temperature": {"float": [1.0, 8.0]}, "fusion.epochs": {"int": [1, 2]}}
    search = {"sampler": "random", "num_trials": 1, "max_concurrent": 1}
    sweep = tiny_sweep("idle", space, search=search, fusion={"inputs": "table"})
    unread = preview_sweep(sweep, SweepOptions(storage=str(tmp_path))).notes
    (line,) = [line for line in unread if "audio.distill.temperature" in line]
    assert line.endswith(" no effect: there is no stage audio: the chain is data, fusion")
    assert not any("fusion.epochs" in line for line in unread)
    # One of these names is legal only beside the value that the other takes.
    together = {"teacher.encoder": {"choice": ["tiny"]}, "teacher.prompt_length": {"int": [0, 2]}}
    with_both = tiny_sweep("both", together)
    unread_by_both = preview_sweep(with_both, SweepOptions(storage=str(tmp_path))).notes
    assert not any("teacher" in line for line in unread_by_both)
    # The configuration reads it, and no trial does.
    fixed = {"fusion": {"depth": 3}}
    concat = tiny_sweep("concat", {"fusion.model": {"choice": ["concat"]}}, **fixed)
    (line,) = preview_sweep(concat, SweepOptions(storage=str(tmp_path))).notes
    assert "fusion.depth" in line
    state = run(sweep, tmp_path)
    assert state.count() == {"completed": 1}
    assert tuple(state.warnings) == unread


def test_the_same_sweep_under_another_name_trains_nothing(
    grid, storage, tiny_sweep, run, outcomes, check_agreement
):
    again = tiny_sweep("again", GRID, search=SEARCH)
    existing = preview_sweep(again, SweepOptions(storage=str(storage))).stages
    assert existing == {stage: StageCount(number, number) for stage, number in DISTINCT.items()}
    state = run(again, storage)
    assert outcomes(state) == {stage: {"reused": 8} for stage in STAGES}
    assert dev_of(state) == dev_of(grid)
    check_agreement(storage, "again")


def test_a_name_that_exists_is_refused(grid, storage, tiny_sweep, run):
    before = (storage / "sweeps/grid/ledger.jsonl").read_bytes()
    with pytest.raises(SweepError, match="resume"):
        run(tiny_sweep("grid", GRID, search=SEARCH), storage)
    assert (storage / "sweeps/grid/ledger.jsonl").read_bytes() == before


def test_without_reuse_everything_is_trained_to_the_same_metrics(
    grid, tmp_path, tiny_sweep, run, outcomes
):
    sweep = tiny_sweep("alone", GRID, search=SEARCH | {"num_trials": 4})
    state = run(sweep, tmp_path, reuse=False, tracking_uri="")
    assert outcomes(state) == {stage: {"trained": 4} for stage in STAGES}
    assert dev_of(state) == {number: dev for number, dev in dev_of(grid).items() if number < 4}
    assert not (tmp_path / "mlflow.db").exists()


def test_a_trial_run_alone_gives_the_same_metrics(grid, tmp_path, dev_alone):
    trial = grid.trials[best(grid)[0].trial]
    assert dev_alone(trial.candidate.config(grid.sweep.base), tmp_path) == trial.dev


def test_test_metrics_are_revealed_for_the_selected_trial_only(grid, storage):
    layout = SweepLayout(storage, "grid")
    assert all(trial.test is None for trial in grid.trials.values())
    number = best(grid)[0].trial
    revealed = reveal_test(layout, number, Store(storage))
    assert isinstance(revealed, Scores)
    assert reveal_test(layout, number, Store(storage)) == revealed
    kinds = [type(event) for event in read_events(layout.ledger)]
    assert kinds.count(TestRevealed) == 1
    seen = {number: trial.test for number, trial in read_sweep(layout).trials.items()}
    assert seen == dict.fromkeys(range(8)) | {number: revealed}


# --- trials that share, differ or fail --------------------------------------------------------


def test_of_two_equal_trials_the_second_takes_the_first_ones_fusion(
    storage, tiny_sweep, run, outcomes
):
    space = {"fusion.dropout": {"choice": [0.4]}}
    state = run(tiny_sweep("equal", space, search={"sampler": "random", "num_trials": 2}), storage)
    assert outcomes(state)["fusion"] == {"trained": 1, "reused": 1}
    assert state.trials[0].dev == state.trials[1].dev


def test_several_objectives_give_a_pareto_front(storage, tiny_sweep, run, check_agreement):
    sweep = tiny_sweep(
        "front",
        {"fusion.learning_rate": {"float": [1e-4, 1e-1], "log": True}},
        objective=[
            {"metric": "dev/accuracy", "mode": "max"},
            {"metric": "dev/loss", "mode": "min"},
        ],
        search={"sampler": "nsga2", "num_trials": 6},
    )
    run(sweep, storage)
    state = check_agreement(storage, "front")
    assert state.count() == {"completed": 6}
    front = {row.trial for row in best(state)}
    scores = {number: trial.objectives for number, trial in state.trials.items()}
    assert front
    for number, (accuracy, loss) in scores.items():
        beaten = any(
            other_accuracy >= accuracy
            and other_loss <= loss
            and (other_accuracy, other_loss) != (accuracy, loss)
            for other_accuracy, other_loss in scores.values()
        )
        assert (number in front) == (not beaten)


def test_a_trial_that_diverges_ends_and_the_others_complete(
    storage, tiny_sweep, run, check_agreement
):
    space = {"fusion.learning_rate": {"choice": [1e30, 0.01, 0.02]}}
    run(tiny_sweep("diverging", space, search={"sampler": "grid", "num_trials": 3}), storage)
    state = check_agreement(storage, "diverging")
    diverged = [trial for trial in state.trials.values() if trial.state == "diverged"]
    assert [trial.values for trial in diverged] == [{"fusion.learning_rate": 1e30}]
    assert state.count() == {"completed": 2, "diverged": 1}
    assert "fusion: diverged" in diverged[0].message
    assert diverged[0].dev is None


def test_a_stage_that_does_not_fit_into_memory_is_named(storage, tiny_sweep, run, check_agreement):
    space = {"fusion.hidden_dim": {"choice": [8, 2**24]}}
    run(tiny_sweep("huge", space, search={"sampler": "grid", "num_trials": 2}), storage)
    state = check_agreement(storage, "huge")
    assert state.count() == {"completed": 1, "failed": 1}
    (failed,) = (trial for trial in state.trials.values() if trial.state == "failed")
    assert re.match(r"fusion: out of memory with .*hidden_dim 16777216", failed.message)


def test_a_damaged_artifact_is_trained_again_and_the_ledger_records_it(
    storage, tmp_path, tiny_sweep, run, outcomes, check_agreement
):
    space = {"fusion.dropout": {"choice": [0.1, 0.2]}}
    search = {"sampler": "grid", "num_trials": 2}
    before = run(tiny_sweep("whole", space, search=search), tmp_path)
    store = Store(tmp_path)
    fusions = [trial.stages["fusion"].key for trial in before.trials.values()]
    audio = Path(store.folder("audio", before.trials[0].stages["audio"].key))
    weights = (audio / "weights.safetensors").read_bytes()
    (audio / "weights.safetensors").write_bytes(weights[:50] + b"x" + weights[51:])
    (Path(store.folder("fusion", fusions[0])) / "features.arrow").unlink()
    shutil.rmtree(store.folder("fusion", fusions[1]))
    run(tiny_sweep("again", space, search=search), tmp_path)
    state = check_agreement(tmp_path, "again")
    counted = outcomes(state)
    assert counted["audio"] == {"trained": 1, "reused": 1}
    assert counted["fusion"] == {"trained": 2}
    assert counted["teacher"] == counted["video"] == {"reused": 2}
    assert dev_of(state) == dev_of(before)
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "damaged").iterdir()) == [
        "audio",
        "fusion",
    ]
    assert sum("quarantined" in message for message in state.warnings) == 2


def test_a_stage_that_is_wrong_fails_the_trials_that_need_it(
    storage, tmp_path, tiny_sweep, run, check_agreement
):
    folder = tmp_path / "no_model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    space = {
        "teacher.encoder": {"choice": ["features", str(folder)]},
        "fusion.dropout": {"choice": [0.1, 0.2]},
    }
    run(tiny_sweep("wrong", space, search={"sampler": "grid", "num_trials": 4}), storage)
    state = check_agreement(storage, "wrong")
    assert state.count() == {"completed": 2, "failed": 2}
    for trial in state.trials.values():
        needs_it = trial.values["teacher.encoder"] != "features"
        assert (trial.state == "failed") == needs_it
        if needs_it:
            assert trial.message.startswith("teacher: ")
            assert "\n" not in trial.message
            assert trial.reports == []


def test_a_worker_has_the_threads_that_it_asked_for(tmp_path, tiny_sweep):
    num_cpus = int(ray.cluster_resources()["CPU"])
    asked = {"audio": {"cpu": 0.5}, "fusion": {"cpu": num_cpus}}
    config = tiny_sweep("threads", {}, search={"sampler": "grid"}, resources=asked).base
    source = source_of(read_corpus(config.data))
    engine = ray.remote(num_cpus=0)(Engine).remote(str(tmp_path), config, source, "id")
    request = TrialRequest(trial=7, candidate=Candidate(values={}))
    opened = ray.get(engine.open.remote(request), timeout=120)
    assert isinstance(opened, SessionOpened)
    assert opened.reports == []
    threads = opened.worker.__ray_call__.remote(lambda worker: torch.get_num_threads())
    assert ray.get(threads, timeout=120) == num_cpus
    assert ray.get(engine.counts.remote()).holding == 1
    ray.get(engine.close.remote(7, "another"))
    assert ray.get(engine.counts.remote()).holding == 1
    ray.get(engine.close.remote(7, opened.session))
    assert ray.get(engine.counts.remote()).holding == 0
    ray.kill(engine)


# --- processes that die -----------------------------------------------------------------------


def workers():
    """The processes of this driver's Ray workers that train or hold sessions."""
    return [
        process
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::Worker") or "ray::Worker" in " ".join(cmdline(process))
    ]


def cmdline(process):
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_sweep_outlives_its_workers(storage, tiny_sweep, run, check_agreement):
    sweep = tiny_sweep(
        "killed",
        {"fusion.dropout": {"float": [0.0, 0.5]}},
        search={"sampler": "random", "num_trials": 4},
        fusion={"epochs": 40, "model": "magt"},
    )
    ledger = storage / "sweeps/killed/ledger.jsonl"
    killed = []

    def kill():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if ledger.is_file() and b"trial_report" in ledger.read_bytes():
                for process in workers():
                    process.kill()
                    killed.append(process.pid)
                if killed:
                    return
            time.sleep(0.02)

    killer = threading.Thread(target=kill)
    killer.start()
    run(sweep, storage)
    killer.join()
    state = check_agreement(storage, "killed")
    assert killed
    assert state.count() == {"completed": 4}
    for trial in state.trials.values():
        assert [report.epoch for report in trial.reports] == list(range(1, 41))
