import subprocess
import sys

import optuna
import pytest

from magtkd.errors import SweepError
from tune.config import SweepConfig
from tune.samplers import SAMPLERS
from tune.samplers.gp import MOST_TRIALS
from tune.search.joint import JointSampler, distributions, make_sampler

SPACE = {
    "teacher.hidden_dim": {"choice": [32, 64]},
    "audio.dropout": {"float": [0.1, 0.5], "step": 0.1},
    "fusion.depth": {"int": [3, 3]},
    "fusion.learning_rate": {"float": [1e-5, 1e-3], "log": True, "tie": ["teacher.learning_rate"]},
    "fusion.model": {"choice": ["magt", "concat"]},
    "fusion.num_heads": {"choice": [2, 4], "when": {"fusion.model": "magt"}},
}
JOINT = {"teacher.hidden_dim", "audio.dropout", "fusion.learning_rate", "fusion.model"}


def joint_names(sampler, num_objectives=1):
    objective = [{"metric": metric} for metric in ("dev/loss", "dev/accuracy")][:num_objectives]
    sweep = SweepConfig.model_validate(
        {"space": SPACE, "objective": objective, "search": {"sampler": sampler}}
    )
    study = optuna.create_study(directions=["minimize"] * num_objectives)
    study.sampler = make_sampler(sweep.sampler, sweep.problem, 0)
    trial = study.ask()
    return set(study.sampler.infer_relative_search_space(study, study.trials[trial.number]))


def test_distributions_say_what_the_space_says():
    space = SweepConfig.model_validate({"space": SPACE}).search_space
    assert distributions(space) == {
        "teacher.hidden_dim": optuna.distributions.CategoricalDistribution((32, 64)),
        "audio.dropout": optuna.distributions.FloatDistribution(0.1, 0.5, step=0.1),
        "fusion.depth": optuna.distributions.IntDistribution(3, 3),
        "fusion.learning_rate": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
        "fusion.model": optuna.distributions.CategoricalDistribution(("magt", "concat")),
        "fusion.num_heads": optuna.distributions.CategoricalDistribution((2, 4)),
    }


@pytest.mark.parametrize("sampler", ["qmc", "tpe", "gp", "nsga2"])
def test_the_names_of_every_trial_are_drawn_together_from_the_first_on(sampler):
    assert joint_names(sampler) == JOINT


def test_cmaes_draws_numbers_together():
    assert joint_names("cmaes") == {"audio.dropout", "fusion.learning_rate"}


def test_tpe_draws_each_name_alone_for_several_objectives():
    assert joint_names("tpe", num_objectives=2) == set()


def test_neighbouring_trials_draw_differently():
    sweep = SweepConfig.model_validate({"space": SPACE, "search": {"sampler": "random"}})
    study = optuna.create_study()
    drawn = set()
    for number in range(7):
        study.sampler = make_sampler(sweep.sampler, sweep.problem, number)
        assert isinstance(study.sampler, JointSampler)
        drawn.add(study.ask().suggest_float("fusion.learning_rate", 1e-5, 1e-3, log=True))
    assert len(drawn) == 7


# --- what every sampler holds to --------------------------------------------------------------


def problem_of(sampler, **sections):
    return SweepConfig.model_validate(
        {"space": SPACE, "search": {"sampler": sampler, "num_trials": 11, "seed": 3}, **sections}
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_it_is_found_by_its_name(sampler):
    sweep = problem_of(sampler)
    assert sweep.sampler.name == sampler


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "grid"])
def test_it_takes_a_mixed_space_and_refuses_an_empty_one(sampler):
    member = SAMPLERS[sampler]
    member.check(problem_of(sampler).problem)
    with pytest.raises(SweepError, match=f"space: it is empty, so sampler '{sampler}'"):
        member.check(problem_of(sampler, space={}).problem)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_it_draws_follows_from_seed_and_number(sampler):
    problem = problem_of(sampler).problem

    def draw(number):
        study = optuna.create_study()
        study.sampler = make_sampler(SAMPLERS[sampler], problem, number)
        trial = study.ask()
        return trial.suggest_float("fusion.learning_rate", 1e-5, 1e-3, log=True)

    assert draw(2) == draw(2)


def test_the_samplers_are_light_until_one_is_built():
    code = "import sys, tune.samplers; sys.exit('optuna' in sys.modules or 'ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("num_objectives", [1, 2])
def test_a_gaussian_process_reads_a_bounded_number_of_trials(num_objectives, monkeypatch):
    """Its time grows with the third power, and the driver waits for it."""
    sweep = SweepConfig.model_validate(
        {
            "space": SPACE,
            "search": {"sampler": "gp"},
            "objective": [{"metric": "dev/accuracy"}, {"metric": "dev/loss"}][:num_objectives],
        }
    )
    directions = ["maximize", "minimize"][:num_objectives]
    study = optuna.create_study(directions=directions, sampler=optuna.samplers.RandomSampler(0))
    own = distributions(sweep.search_space)
    joint = {name: own[name] for name in JOINT}
    for number in range(MOST_TRIALS + 150):
        params = study.ask(joint).params
        # Of the older ones, those in the middle are best.
        value = 1000 - abs(number - 100)
        study.add_trial(
            optuna.trial.create_trial(
                params=params, distributions=joint, values=[value, -value][:num_objectives]
            )
        )
    read = []

    def note(self, study, completed, *others):
        read.extend(trial.values[0] for trial in completed)
        return {}

    monkeypatch.setattr(optuna.samplers.GPSampler, "_sample_relative_impl", note)
    make_sampler(sweep.sampler, sweep.problem, 0).sample_relative(study, study.ask(), joint)
    values = [trial.values[0] for trial in study.trials if trial.values]
    assert len(read) == MOST_TRIALS
    assert read[-MOST_TRIALS // 2 :] == values[-MOST_TRIALS // 2 :]
    if num_objectives == 1:
        best = sorted(values[: -MOST_TRIALS // 2], reverse=True)[: MOST_TRIALS // 2]
        assert sorted(read[: MOST_TRIALS // 2], reverse=True) == best
