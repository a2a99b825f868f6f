import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import ray
import ray.tune as ray_tune
from ray.tune.experiment import Experiment
from ray.tune.search import ConcurrencyLimiter, Searcher, SearchGenerator

from tune.config import SweepConfig, check_sweep
from tune.ledger import TrialEnded, TrialStatus, TrialSuggested
from tune.search import SweepSearcher, SweepStudy, Trainings
from tune.space import Assignment, Candidate

SPACE = {
    "fusion.learning_rate": {"float": [1e-5, 1e-3], "log": True},
    "fusion.dropout": {"float": [0.1, 0.5]},
}
METRIC = "dev/weighted_f1"


def sweep_of(num_trials=5, **sections):
    search = {"sampler": "random", "num_trials": num_trials, "max_concurrent": num_trials}
    return SweepConfig.model_validate({"space": SPACE, "search": search, **sections})


def test_each_suggestion_is_made_known_before_it_is_returned():
    known = []
    searcher = SweepSearcher(SweepStudy(sweep_of()), lambda *asked: known.append(asked))
    config = searcher.suggest("a7f3")
    number = config.pop("trial")
    assert known == [(number, Candidate(values=config))] == [(0, Candidate(values=config))]


def test_there_are_never_more_trials_than_asked_for():
    searcher = SweepSearcher(SweepStudy(sweep_of(3)), lambda *_: None)
    suggestions = [searcher.suggest(f"id{index}") for index in range(5)]
    assert [one["trial"] for one in suggestions[:3]] == [0, 1, 2]
    assert suggestions[3:] == [Searcher.FINISHED] * 2


def test_trials_without_an_end_come_first_after_a_resume():
    sweep, events = sweep_of(5), []
    first = SweepSearcher(
        SweepStudy(sweep),
        lambda number, one: events.append(TrialSuggested(trial=number, values=one.values)),
    )
    before = [first.suggest(f"old{index}") for index in range(3)]
    events.append(TrialEnded(trial=1, state=TrialStatus.FAILED))
    assigned = [Assignment.from_ray(before[index])[0] for index in (0, 2)]
    known, unfinished = [], [replace(assigned[0], epoch=3), assigned[1]]
    again = SweepSearcher(SweepStudy(sweep, events), lambda *asked: known.append(asked), unfinished)
    after = [again.suggest(f"new{index}") for index in range(5)]
    assert [Assignment.from_ray(one)[0] for one in after[:2]] == unfinished
    assert [one["trial"] for one in after[2:4]] == [3, 4]
    assert [number for number, _ in known] == [3, 4]
    assert after[4] == Searcher.FINISHED


class Waiting(Trainings):
    """Two trainings, and a third after both have ended."""

    def wanted(self):
        every = [Candidate(values={"fusion.depth": 1}, seed=seed) for seed in (3, 4, 5)]
        return every[: 2 if self.running else 3]

    @property
    def has_more(self):
        return self.num_trials < 3


def test_what_is_not_known_yet_is_waited_for_while_something_runs():
    trainings = Waiting()
    searcher = SweepSearcher(trainings, lambda *_: None)
    first, second, third = (searcher.suggest(f"id{index}") for index in range(3))
    assert third is None
    assigned, wanted = Assignment.from_ray(first)
    assert (assigned.number, assigned.candidate.seed, wanted) == (0, 3, {"fusion.depth": 1})
    assert Assignment.from_ray(second)[0].candidate.seed == 4
    for number in (0, 1):
        trainings.apply(TrialEnded(trial=number, state=TrialStatus.COMPLETED))
    assert Assignment.from_ray(searcher.suggest("id4"))[0].candidate.seed == 5
    assert searcher.suggest("id5") == Searcher.FINISHED


def test_results_from_ray_change_nothing():
    study = SweepStudy(sweep_of())
    searcher = SweepSearcher(study, lambda *_: None)
    searcher.suggest("id0")
    searcher.on_trial_result("id0", {METRIC: float("nan")})
    searcher.on_trial_complete("id0", None, error=True)
    assert list(study.running) == [0]


def test_ray_may_pickle_the_searcher_but_not_restore_from_it(tmp_path):
    with (tmp_path / "ledger").open("w") as file:
        searcher = SweepSearcher(SweepStudy(sweep_of()), lambda *asked: print(asked, file=file))
        assert isinstance(pickle.loads(pickle.dumps(searcher)), SweepSearcher)
        searcher.save_to_dir(str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["ledger"]
    with pytest.raises(NotImplementedError, match="continues from its ledger"):
        searcher.restore(str(tmp_path / "ledger"))


# --- with Ray ---------------------------------------------------------------------------------


class Stub(ray_tune.Trainable):
    """Nine epochs, each a little better than the one before; worse the higher the number."""

    def setup(self, config):
        self.reset_config(config)

    def reset_config(self, new_config):
        self._number, self._epoch = new_config["trial"], 0
        return True

    def step(self):
        self._epoch += 1
        return {
            "epoch": self._epoch,
            METRIC: 0.9 - self._number / 10 + self._epoch / 100,
            "done": self._epoch >= 9,
        }

    def save_checkpoint(self, checkpoint_dir):
        Path(checkpoint_dir, "epoch").write_text(str(self._epoch))

    def load_checkpoint(self, checkpoint_dir):
        self._epoch = int(Path(checkpoint_dir, "epoch").read_text())


@pytest.fixture(scope="module")
def local_ray():
    ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.ray
@pytest.mark.parametrize("kind", ["hyperband", "pbt"])
def test_ray_runs_all_trials_under_schedulers_that_pause(local_ray, tmp_path, kind):
    settings = {"kind": kind, "perturbation_interval": 2}
    sweep = sweep_of(4, scheduler=settings, fusion={"epochs": 9})
    check_sweep(sweep)
    known = []
    searcher = SweepSearcher(SweepStudy(sweep), lambda *asked: known.append(asked))
    results = ray_tune.Tuner(
        ray_tune.with_resources(Stub, {"CPU": 0.001}),
        tune_config=ray_tune.TuneConfig(
            search_alg=searcher,
            scheduler=sweep.scheduler.build(sweep.problem),
            num_samples=-1,
            max_concurrent_trials=sweep.search.max_concurrent,
            reuse_actors=True,
        ),
        run_config=ray_tune.RunConfig(storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert not results.errors
    assert sorted(one.config["trial"] for one in results) == [0, 1, 2, 3]
    best = next(one for one in results if one.config["trial"] == 0)
    assert best.metrics["epoch"] == 9
    changed = 0
    for number, candidate in known:
        values = candidate.values
        config = next(one.config for one in results if one.config["trial"] == number)
        assert set(config) == {*values, "trial"}
        changed += config != {**values, "trial": number}
    assert (changed > 0) == (kind == "pbt")
    assert not list(tmp_path.rglob("pbt_policy_*"))


def test_rays_generator_takes_flat_names(tmp_path):
    sweep = sweep_of(3)
    searcher = SweepSearcher(SweepStudy(sweep), lambda *_: None)
    generator = SearchGenerator(ConcurrencyLimiter(searcher, max_concurrent=2))
    ray_tune.register_trainable("stub", Stub)
    generator.add_configurations(
        [Experiment("flat", "stub", num_samples=99, storage_path=str(tmp_path))]
    )
    trials = [generator.next_trial() for _ in range(3)]
    assert trials[2] is None
    assert [trial.config["trial"] for trial in trials[:2]] == [0, 1]
    assert set(trials[0].config) == {*SPACE, "trial"}
