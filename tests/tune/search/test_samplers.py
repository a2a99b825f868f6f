import optuna
import pytest

from tune.config.sweep import SweepConfig
from tune.search.samplers import JointSampler, distributions, make_sampler

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
    study.sampler = make_sampler(sweep, 0)
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
        study.sampler = make_sampler(sweep, number)
        assert isinstance(study.sampler, JointSampler)
        drawn.add(study.ask().suggest_float("fusion.learning_rate", 1e-5, 1e-3, log=True))
    assert len(drawn) == 7
