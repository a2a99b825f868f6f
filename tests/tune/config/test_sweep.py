import pytest
import yaml
from pydantic import ValidationError

from magtkd.config import Config, FusionConfig, dump_yaml
from magtkd.errors import ConfigError, SweepError
from tune.config import SweepConfig, check_sweep, load_sweep
from tune.samplers import SAMPLERS
from tune.schedulers import SCHEDULERS, HyperBand
from tune.space import Candidate

TEXT = """
extends: base.yaml
name: mosi
objective: {metric: dev/weighted_f1, mode: max}
search: {sampler: tpe, num_trials: 40, max_concurrent: 2, seed: 0}
scheduler: {kind: asha, grace_period: 3, reduction_factor: 3}
space:
  teacher.hidden_dim: {choice: [64, 128]}
  audio.distill.temperature: {float: [1.0, 8.0], log: true, tie: [video.distill.temperature]}
  audio.distill.logit_weight: {float: [0.01, 1.0], log: true}
  fusion.depth: {int: [1, 3]}
  fusion.num_heads: {choice: [2, 4], when: {fusion.model: magt}}
resources:
  teacher: {cpu: 1}
  fusion: {cpu: 1}
"""

LEARNING_RATE = {"fusion.learning_rate": {"float": [1e-5, 1e-3], "log": True}}


@pytest.fixture
def path(tmp_path):
    (tmp_path / "base.yaml").write_text("audio: {epochs: 7}\n")
    (tmp_path / "sweep.yaml").write_text(TEXT)
    return tmp_path / "sweep.yaml"


def sweep_of(**sections):
    return SweepConfig.model_validate(sections)


def test_the_sweep_file_of_the_readme_loads(path):
    sweep = load_sweep(path)
    assert sweep.audio.epochs == 7
    assert sweep.search_space.to_tree() == yaml.safe_load(TEXT)["space"]
    assert [one.metric for one in sweep.objective] == ["dev/weighted_f1"]


def test_a_sweep_survives_its_round_trip(path, tmp_path):
    sweep = load_sweep(path)
    (tmp_path / "resolved.yaml").write_text(dump_yaml(sweep))
    assert load_sweep(tmp_path / "resolved.yaml") == sweep
    assert SweepConfig.model_validate(sweep.model_dump(mode="json")) == sweep


def test_overrides_reach_into_the_space(path):
    sweep = load_sweep(path, ["space.fusion.depth={int: [1, 2]}", "search.num_trials=5"])
    assert sweep.space["fusion.depth"] == {"int": [1, 2]}
    assert sweep.search.num_trials == 5
    assert len(sweep.search_space) == 5


def test_a_candidate_has_the_plain_configuration_of_a_trial(path):
    base = load_sweep(path).base
    values = {"fusion.depth": 3, "video.distill.temperature": 2.5}
    config = Candidate(values=values).config(base)
    assert type(config) is Config
    assert (config.fusion.depth, config.video.distill.temperature) == (3, 2.5)
    assert Candidate(values={}).config(base) == base
    assert Candidate(values={}, seed=7).config(base).seed == 7
    with pytest.raises(ConfigError, match=r"fusion\.depth: must be >= 1, got 0$"):
        Candidate(values={"fusion.depth": 0}).config(base)


# --- errors of single keys --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("objective.metric=test/accuracy", r"'test/accuracy': test metrics stay sealed.*'dev/acc"),
        ("objective.metric=dev/acuracy", r"'dev/acuracy': no such metric.*'dev/accuracy'\?"),
        ("objective.metric=dev/f1/", r"'dev/f1/': no such metric; did you mean 'dev/f1/<label>'"),
        ("objective.metric=dev/macro", r"did you mean 'dev/macro_f1'\?; known are dev/accuracy, "),
        ("objective.metric=xyz", r"no such metric; known are dev/accuracy, dev/loss"),
        (
            "objective.mode=maximise",
            r"objective\.0\.mode: must be one of 'min', 'max', got 'maximise'",
        ),
        ("objective=[]", r"objective: there is none; write"),
        ("objective=[{metric: dev/loss}, {metric: dev/loss}]", r"'dev/loss' is duplicated"),
        ("search.sampler=tpee", r"search\.sampler: 'tpee': no such sampler; did you mean 'tpe'\?"),
        ("search.num_trials=0", r"search\.num_trials: must be >= 1, got 0$"),
        ("search.num_trails=3", r"search\.num_trails: unknown key; did you mean 'num_trials'\?"),
        ("serch={}", r"serch: unknown key; did you mean 'search'\?"),
        (
            "scheduler.kind=bohb",
            r"scheduler: kind: 'bohb': no such scheduler.*known are fifo, asha",
        ),
        ("scheduler.kind=[]", r"scheduler: kind: \[\]: no such scheduler; known are fifo, asha"),
        ("scheduler.kind={a: 1}", r"scheduler: kind: \{'a': 1\}: no such scheduler; known are"),
        ("scheduler.reduction_factor=1", r"scheduler\.reduction_factor: must be > 1, got 1$"),
        (
            "scheduler.quantile_fraction=0.6",
            r"scheduler: quantile_fraction: must be <= 0\.5, got 0\.6$",
        ),
        ("space={fusion.depth: {int: [3, 1]}}", r"space: fusion\.depth: int: the range goes"),
        ("space=[3]", r"space: \[3\] is not a mapping"),
    ],
)
def test_a_wrong_key_is_a_config_error_of_one_line(path, override, message):
    with pytest.raises(ConfigError, match=message) as raised:
        load_sweep(path, [override])
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_null_is_no_budget():
    sweep = sweep_of(search={"budget": None, "stop_when": None})
    assert sweep.search == sweep_of().search


def test_an_f1_of_any_label_is_a_metric():
    sweep = sweep_of(objective={"metric": "dev/f1/joy", "mode": "max"})
    assert sweep.objective[0].metric == "dev/f1/joy"


@pytest.mark.parametrize(
    ("metric", "mode"),
    [
        ("dev/loss", "min"),
        ("dev/accuracy", "max"),
        ("dev/weighted_f1", "max"),
        ("dev/f1/joy", "max"),
    ],
)
def test_the_metric_gives_the_direction(path, metric, mode):
    objective = f"objective={{metric: {metric}}}"
    assert load_sweep(path, [objective]).objective[0].mode == mode
    other = {"min": "max", "max": "min"}[mode]
    with pytest.raises(SweepError, match=rf"objective\.mode: {other}: {metric} is worse where"):
        load_sweep(path, [objective, f"objective.mode={other}"])
    # A ledger of a sweep that was run so is still read.
    assert sweep_of(objective={"metric": metric, "mode": other}).objective[0].mode == other


@pytest.mark.parametrize("metric", ["dev/loss", "dev/accuracy", "dev/weighted_f1", "dev/f1/joy"])
def test_the_objective_chooses_the_epoch(path, metric):
    """Else trials would be ranked by the value of an epoch that is not their best."""
    objective = f"objective={{metric: {metric}}}"
    select = metric.removeprefix("dev/")
    assert load_sweep(path, [objective]).fusion.select == select
    assert load_sweep(path, [objective, f"fusion.select={select}"]).fusion.select == select
    several = f"objective=[{{metric: {metric}}}, {{metric: dev/f1/anger}}]"
    assert load_sweep(path, [several, "scheduler.kind=fifo"]).fusion.select == select
    other = "accuracy" if metric == "dev/loss" else "loss"
    with pytest.raises(
        SweepError, match=rf"fusion\.select: '{other}', but the objective is {metric}"
    ):
        load_sweep(path, [objective, f"fusion.select={other}"])
    # A ledger of a sweep that was run so is still read.
    sweep = sweep_of(objective={"metric": metric}, fusion={"select": other})
    assert sweep.fusion.select == other


def test_the_epoch_cannot_be_searched(path):
    space = "space={teacher.select: {choice: [loss, accuracy], tie: fusion.select}}"
    with pytest.raises(SweepError, match=r"space: fusion\.select: it is the objective's metric"):
        load_sweep(path, [space])


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_samplers_that_learn_from_completed_trials_need_them(sampler, kind):
    depth = {"fusion.dropout": {"float": [0.1, 0.5], "step": 0.1}}
    search = {"sampler": sampler, "num_trials": 40, "max_concurrent": 40}
    sweep = sweep_of(space=depth, search=search, scheduler={"kind": kind})
    if sampler in {"gp", "cmaes", "nsga2"} and kind in {"asha", "hyperband", "median"}:
        with pytest.raises(SweepError, match=rf"{sampler} learns from completed.*{kind} stops"):
            check_sweep(sweep)
    else:
        check_sweep(sweep)


def test_a_sweep_is_frozen():
    with pytest.raises(ValidationError, match="frozen"):
        sweep_of().name = "other"


# --- what does not fit together ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["space={fusion.dpeth: {int: [1, 3]}}"], r"space: fusion\.dpeth: no such name"),
        (["space={fusion.depth: {int: [0, 3]}}"], r"space: fusion\.depth: must be >= 1, got 0$"),
        (["space={}"], r"space: it is empty, so sampler 'tpe' has nothing to choose.*'grid'"),
        (["space={}", "search.sampler=random"], r"space: it is empty, so sampler 'random'"),
        (["search.sampler=grid"], r"audio\.distill\.temperature: a grid needs a finite range"),
        (
            ["search.sampler=cmaes", "space={teacher.hidden_dim: {choice: [32, 64]}}"],
            r"search\.sampler: cmaes searches float and int ranges",
        ),
        (
            ["search.sampler=cmaes", "objective=[{metric: dev/loss}, {metric: dev/accuracy}]"],
            r"search\.sampler: cmaes takes one objective, not 2; use tpe, gp or nsga2",
        ),
        (
            ["objective=[{metric: dev/loss, mode: min}, {metric: dev/accuracy}]"],
            r"scheduler\.kind: asha stops trials by one objective, and there are 2; use fifo",
        ),
        (
            ["search.start=[base, {fusion.dept: 2}]"],
            r"search\.start\[1\]: fusion\.dept: not in the space; did you mean 'fusion\.depth'\?",
        ),
        (
            ["search.start=[{fusion.depth: 0}]"],
            r"search\.start\[0\]: fusion\.depth: must be >= 1, got 0$",
        ),
        (
            ["search.start=[{video.distill.temperature: 2}]"],
            r"start\[0\]: video\.distill\.temperature: is tied; give audio\.distill\.temperature",
        ),
        (["scheduler.grace_period=31"], r"grace_period: 31 is more than the 30 epochs"),
        (["scheduler.kind=hyperband"], r"max_concurrent: 2 is too few.*set it to 40"),
        (
            ["scheduler.kind=pbt"],
            r"space: teacher\.hidden_dim: scheduler pbt changes values during.*fusion\.dropout",
        ),
    ],
)
def test_load_refuses(path, overrides, message):
    with pytest.raises(SweepError, match=message) as raised:
        load_sweep(path, overrides)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("start", ["bas", "[bas]", "[null]", "[1]", "[[]]", "[{1: 2}]"])
def test_the_first_trials_are_base_or_values(path, start):
    with pytest.raises(
        ConfigError, match=r"search\.start: (entry 0: must be base, or|must be a list)"
    ):
        load_sweep(path, [f"search.start={start}"])


def test_the_first_trials_are_written_as_the_space_has_them():
    space = {
        "audio.distill": {"choice": [None, {"temperature": 4}]},
        "fusion.depth": {"int": [1, 3]},
    }
    start = [{"audio.distill": {"temperature": 4.0}, "fusion.depth": 2}, {"audio.distill": None}]
    sweep = sweep_of(space=space, search={"sampler": "random", "start": start})
    assert sweep.problem.start == (
        {"audio.distill": '{"temperature": 4}', "fusion.depth": 2},
        {"audio.distill": None, "fusion.depth": 1},
    )
    assert sweep.outside_space == ()
    same = {"temperature": 4.0}
    base = sweep_of(space=space, audio={"distill": same}, search={"sampler": "random"})
    assert base.problem.start[0]["audio.distill"] == '{"temperature": 4}'


def test_a_configuration_whose_tied_names_differ_is_no_trial():
    tied = {"float": [1.0, 8.0], "tie": ["video.distill.temperature"]}
    sections = {"audio": {"distill": {"temperature": 3.0}}, "search": {"sampler": "random"}}
    sweep = sweep_of(space={"audio.distill.temperature": tied}, **sections)
    assert sweep.problem.start == ()
    assert "are tied, and differ in the configuration" in sweep.outside_space[0]


def test_what_is_outside_the_space_is_named(path):
    sweep = load_sweep(path, ["search.start=[{fusion.depth: 2}, {fusion.depth: 9}]"])
    lines = sweep.outside_space
    assert lines[1].startswith("trial 1, of search.start, has values outside the space")
    assert ["fusion.depth 9" in line for line in lines] == [False, True]
    assert load_sweep(path, ["search.start=[]"]).outside_space == ()


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"space": {"fusion.dropout": {"float": [0.1, 0.5], "when": {"seed": 0}}}},
            r"fusion\.dropout: scheduler pbt takes no `tie` and no `when`",
        ),
        (
            {"space": {"fusion.dropout": {"float": [0.1, 0.5], "tie": "audio.dropout"}}},
            r"fusion\.dropout: scheduler pbt takes no `tie`",
        ),
        ({"space": {}, "search": {"sampler": "grid"}}, r"space: it is empty, and scheduler pbt"),
        ({"search": {"num_trials": 1}}, r"num_trials: scheduler pbt needs a population"),
        ({"fusion": {"epochs": 3}}, r"perturbation_interval: 3 leaves no exchange"),
        ({"search": {"num_trials": 5}}, r"max_concurrent: 2 is too few.*set it to 5"),
    ],
)
def test_pbt_refuses(sections, message):
    sweep = sweep_of(**{"space": LEARNING_RATE, "scheduler": {"kind": "pbt"}, **sections})
    with pytest.raises(SweepError, match=message):
        check_sweep(sweep)


@pytest.mark.parametrize("name", FusionConfig.CHANGEABLE)
def test_pbt_searches_what_may_change(name):
    values = {"choice": [True, False]} if name == "detach_anchor" else {"float": [0.5, 0.75]}
    sweep = sweep_of(
        space={f"fusion.{name}": values},
        scheduler={"kind": "pbt"},
        search={"num_trials": 5, "max_concurrent": 5},
    )
    check_sweep(sweep)


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp", "nsga2"])
def test_several_objectives_are_allowed(sampler):
    both = [{"metric": "dev/loss", "mode": "min"}, {"metric": "dev/accuracy", "mode": "max"}]
    check_sweep(sweep_of(objective=both, search={"sampler": sampler}, space=LEARNING_RATE))


def test_a_grid_of_an_empty_space_is_one_configuration():
    sweep = sweep_of(search={"sampler": "grid"})
    check_sweep(sweep)
    assert sweep.search_space.num_points(sweep.base) == 1


def test_max_epochs_follows_the_space():
    epochs = {"int": [5, 11]}
    assert sweep_of(fusion={"epochs": 7}).problem.max_epochs == 7
    assert sweep_of(space={"fusion.epochs": epochs}).problem.max_epochs == 11
    tied = {"teacher.epochs": epochs | {"tie": ["fusion.epochs"]}}
    assert sweep_of(space=tied).problem.max_epochs == 11
    conditional = {"fusion.epochs": epochs | {"when": {"seed": 1}}}
    assert sweep_of(space=conditional, fusion={"epochs": 31}).problem.max_epochs == 31


def test_hyperband_needs_as_many_at_once_as_a_band_or_the_sweep_has():
    sweep = sweep_of(
        scheduler={"kind": "hyperband"}, search={"num_trials": 500, "max_concurrent": 49}
    )
    assert HyperBand().bracket_sizes(30) == (4, 6, 12, 27)
    check_sweep(sweep_of(**sweep.model_dump() | {"space": LEARNING_RATE}))


# --- settings of other schedulers -------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_settings_of_other_schedulers_are_left_out(kind):
    every = {
        name: field.default
        for one in SCHEDULERS.values()
        for name, field in one.model_fields.items()
    }
    sweep = sweep_of(scheduler=every | {"kind": kind})
    assert sweep.scheduler == SCHEDULERS[kind]()
    assert sweep_of(**sweep.model_dump(mode="json")) == sweep


def test_a_setting_that_no_scheduler_has_is_refused(path):
    with pytest.raises(ConfigError, match=r"scheduler\.grace: unknown key; did you mean 'grace_p"):
        load_sweep(path, ["scheduler.grace=3"])


def test_settings_of_other_schedulers_are_named_with_the_reason(path):
    fifo = load_sweep(path, ["scheduler.kind=fifo", "scheduler.reduction_factor=4"])
    assert fifo.unread_of_scheduler == {
        "scheduler.grace_period": "scheduler.kind is fifo; read by asha, median",
        "scheduler.reduction_factor": "scheduler.kind is fifo; read by asha, hyperband",
    }
    assert load_sweep(path).unread_of_scheduler == {}


# --- budgets ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "num_trials", "most_trials"),
    [
        ({}, 20, 20),
        ({"budget": {}}, 20, 20),
        ({"budget": {"hours": None}}, 20, 20),
        ({"budget": {"hours": 8}}, None, None),
        ({"budget": {"trials": 30}}, None, 30),
        ({"budget": {"hours": 8}, "num_trials": 7}, 7, 7),
        ({"budget": {"trials": 30}, "num_trials": 7}, 7, 7),
        ({"budget": {"trials": 3}, "num_trials": 7}, 7, 3),
    ],
)
def test_a_budget_stands_in_for_the_number_of_trials(search, num_trials, most_trials):
    sweep = sweep_of(search=search, space=LEARNING_RATE)
    check_sweep(sweep)
    assert (sweep.search.num_trials, sweep.search.most_trials) == (num_trials, most_trials)
    assert sweep.problem.num_trials == most_trials
    assert sweep_of(**sweep.model_dump(mode="json")) == sweep


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"search": {"num_trials": None}},
            r"search\.num_trials: null, and there is no budget that would end the sweep; give a",
        ),
        (
            {"search": {"sampler": "nsga2", "budget": {"hours": 8}}},
            r"search\.sampler: nsga2: its population is a fifth of search\.num_trials; give it",
        ),
        (
            {"scheduler": {"kind": "pbt"}, "search": {"budget": {"trials": 8}}},
            r"scheduler\.kind: pbt: its population is search\.num_trials; give it beside",
        ),
        (
            {"scheduler": {"kind": "hyperband"}, "search": {"budget": {"hours": 8}}},
            r"max_concurrent: 2 is too few for scheduler hyperband.*set it to 49",
        ),
        (
            {
                "objective": [{"metric": "dev/loss"}, {"metric": "dev/accuracy"}],
                "search": {"stop_when": {"no_gain_for": 20}},
            },
            r"search\.stop_when: no_gain_for takes one objective, and there are 2; use search\.bud",
        ),
    ],
)
def test_a_sweep_without_an_end_is_refused(sections, message):
    sweep = sweep_of(**{"space": LEARNING_RATE, "fusion": {"epochs": 30}, **sections})
    with pytest.raises(SweepError, match=message):
        check_sweep(sweep)


@pytest.mark.parametrize("sampler", ["random", "qmc", "tpe", "gp", "cmaes"])
def test_other_samplers_need_no_number(sampler):
    search = {"sampler": sampler, "budget": {"hours": 8}}
    check_sweep(sweep_of(search=search, space=LEARNING_RATE))
