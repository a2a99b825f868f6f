import itertools
import json
import math
import random
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.config import Config, get_value, with_values
from magtkd.errors import SweepError
from tune.space import Candidate, Choice, FloatRange, IntRange, Space, parse_entry

BASE = Config()

TREE = {
    "fusion.depth": {"int": [1, 3]},
    "fusion.model": {"choice": ["magt", "concat"]},
    "fusion.num_heads": {"choice": [2, 4], "when": {"fusion.model": "magt"}},
    "teacher.hidden_dim": {"choice": [32, 64]},
    "audio.distill.temperature": {
        "float": [1.0, 8.0],
        "log": True,
        "tie": ["video.distill.temperature"],
    },
}


def finite(tree):
    return Space.parse({name: entry for name, entry in tree.items() if "float" not in entry})


# --- round trip -------------------------------------------------------------------------------

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False).filter(math.isfinite)
    | st.text()
)
names = st.lists(st.text(min_size=1), max_size=2, unique=True)
conditions = st.dictionaries(
    st.text(min_size=1).map(lambda name: f"base.{name}"),
    scalars | st.lists(scalars, min_size=1, max_size=3),
    max_size=2,
)


@st.composite
def entry_trees(draw):
    kind = draw(st.sampled_from(["choice", "float", "float step", "int"]))
    if kind == "choice":
        tree = {"choice": draw(st.lists(scalars, min_size=1, max_size=4, unique=True))}
        tree["choice"] = list(dict.fromkeys(tree["choice"]))
    elif kind == "float":
        low = draw(st.floats(1e-6, 1e3))
        tree = {"float": [low, low + draw(st.floats(0, 1e3))], "log": draw(st.booleans())}
    elif kind == "float step":
        low, step = draw(st.integers(-20, 20)) / 10, draw(st.integers(1, 9)) / 10
        tree = {"float": [low, round(low + step * draw(st.integers(0, 7)), 1)], "step": step}
    else:
        low, step = draw(st.integers(1, 50)), draw(st.integers(1, 7))
        tree = {"int": [low, low + step * draw(st.integers(0, 11))], "step": step}
    return tree | {"when": draw(conditions)}


@given(st.dictionaries(st.integers(0, 99).map("name{}".format), entry_trees(), max_size=5))
def test_a_space_survives_its_round_trip(tree):
    space = Space.parse(tree)
    written = json.loads(json.dumps(space.to_tree()))
    assert Space.parse(written) == space
    assert Space.parse(written).to_tree() == space.to_tree()


@pytest.mark.parametrize(
    "entry",
    [
        {"choice": ["magt", None, [1, 2]], "prior": None},
        {"choice": ["magt", None, [1, 2]], "prior": [1, 2], "prior_confidence": "high"},
        {"float": [1.0, 8.0], "log": True, "prior": 2.0, "prior_confidence": "low"},
        {"int": [2, 8], "step": 2, "prior": 4},
    ],
)
def test_a_prior_is_written_as_it_was_read(entry):
    assert parse_entry(entry).to_tree() == entry


def test_the_tree_is_written_as_it_was_read():
    assert Space.parse(TREE).to_tree() == TREE


def test_sections_may_be_nested_and_the_later_wins():
    tree = {"fusion.depth": {"int": [1, 5]}, "fusion": {"depth": {"int": [1, 2]}}}
    assert Space.parse(tree) == Space((("fusion.depth", IntRange(1, 2)),))


def test_value_objects_are_equal_when_they_say_the_same():
    assert Space.parse({"seed": {"choice": [3, 5]}}) == Space((("seed", Choice((3, 5))),))
    assert FloatRange(1.0, 2.0) != FloatRange(1.0, 2.0, log=True)
    assert hash(IntRange(1, 3)) == hash(IntRange(1, 3))


# --- values -----------------------------------------------------------------------------------


def test_points_are_distinct_honour_conditions_and_vary_upstream_slowest():
    points = list(finite(TREE).points(BASE))
    as_json = [json.dumps(point, sort_keys=True) for point in points]
    assert len(set(as_json)) == len(points) == 2 * 3 * (2 + 1)
    teachers = [point["teacher.hidden_dim"] for point in points]
    assert teachers == sorted(teachers)
    for point in points:
        assert ("fusion.num_heads" in point) == (point["fusion.model"] == "magt")
    assert points == list(finite(TREE).points(BASE))


def test_points_of_a_prefix_come_together():
    tree = {
        "fusion.depth": {"int": [1, 2]},
        "video.dropout": {"choice": [0.1, 0.2]},
        "audio.dropout": {"choice": [0.1, 0.2]},
        "teacher.dropout": {"choice": [0.1, 0.2]},
        "seed": {"choice": [0, 1]},
    }
    order = ["seed", "teacher.dropout", "audio.dropout", "video.dropout", "fusion.depth"]
    points = [tuple(point[name] for name in order) for point in Space.parse(tree).points(BASE)]
    assert points == sorted(points)


@pytest.mark.parametrize("model", ["magt", "concat"])
def test_num_points_counts_what_points_gives(model):
    base = with_values(BASE, {"fusion.model": model})
    trees = [
        TREE,
        {name: entry for name, entry in TREE.items() if name != "fusion.model"},
        {"fusion.dropout": {"float": [0.1, 0.5], "step": 0.1}},
        {},
    ]
    for tree in trees:
        space = Space.parse({name: one for name, one in tree.items() if "log" not in one})
        assert space.num_points(base) == len(list(space.points(base)))


@given(low=st.integers(-50, 50), step=st.integers(1, 9), number=st.integers(0, 40), data=st.data())
def test_a_stepped_range_is_the_sequence_of_its_decimals(low, step, number, data):
    """Read lazily; what is nearest and where a value stands agree with the list."""
    entry = FloatRange(low / 10, (low + number * step) / 10, step=step / 10)
    points = entry.points()
    written = [float(f"{low + index * step}e-1") for index in range(number + 1)]
    assert list(points) == written
    assert len(points) == len(written)
    for index, value in enumerate(written):
        assert points.index(value) == index
        assert entry.contains(value)
        assert entry.clip(value + data.draw(st.floats(-0.049, 0.049)) * step) == value
    assert not entry.contains(written[-1] + step / 10)
    with pytest.raises(ValueError, match=r"is not in the range|not in tuple"):
        points.index(written[-1] + step / 10)


@pytest.mark.parametrize(
    ("tree", "number"),
    [
        ({"fusion.dropout": {"float": [0, 0.5], "step": 1e-8}}, 50_000_001),
        (
            {
                "teacher.hidden_dim": {"int": [1, 100_000_000]},
                "teacher.dropout": {"choice": [0.1, 0.2], "when": {"teacher.hidden_dim": [1, 7]}},
            },
            100_000_002,
        ),
        (
            {"fusion.epochs": {"int": [1, 4_000_000_000]}, "fusion.depth": {"int": [1, 3]}},
            12 * 10**9,
        ),
        ({"fusion.dropout": {"float": [0, 1e-10], "step": 1e-25}}, 10**15 + 1),
    ],
)
def test_large_ranges_are_counted_and_not_made(tree, number):
    space = Space.parse(tree)
    assert space.num_points(BASE) == number
    assert next(space.points(BASE)) == {name: one.probes()[0] for name, one in space.entries}
    for _, entry in space.entries:
        assert entry.resample(random.Random(0)) in entry.points()
        assert not entry.contains(0.123456789012)


@pytest.mark.parametrize(
    "tree",
    [
        {"float": [0, 1e30], "step": 0.1},
        {"float": [0, 1], "step": 1e-30},
        {"int": [1, 10**31]},
    ],
)
def test_ranges_of_more_steps_than_floats_tell_apart(tree):
    with pytest.raises(SweepError, match=r"steps of .* are more than 9007199254740992; take"):
        Space.parse({"fusion.dropout": tree})


def test_a_condition_on_a_value_that_is_nearly_a_point_counts_as_it_holds():
    tree = {
        "audio.dropout": {"float": [0.1, 0.5], "step": 0.1},
        "fusion.depth": {"int": [1, 3], "when": {"audio.dropout": [0.3, 0.30000000000000004]}},
    }
    space = Space.parse(tree)
    assert space.num_points(BASE) == len(list(space.points(BASE))) == 4 + 3


def test_num_points_needs_no_walk():
    tree = {f"fusion.{name}": {"int": [1, 10**6]} for name in ("depth", "epochs", "batch_size")}
    assert Space.parse(tree).num_points(BASE) == 10**18


def test_a_range_without_step_is_not_finite():
    assert Space.parse(TREE).num_points(BASE) is None
    with pytest.raises(SweepError, match=r"^audio\.distill\.temperature: float: .* give it a step"):
        Space.parse(TREE).points(BASE)


def test_a_stepped_range_has_the_decimals_that_were_written():
    assert tuple(FloatRange(0.1, 0.5, step=0.1).points()) == (0.1, 0.2, 0.3, 0.4, 0.5)
    assert list(IntRange(2, 11, step=3).points()) == [2, 5, 8, 11]


def test_conditions_chain_over_tied_names_and_the_base():
    tree = {
        "fusion.num_heads": {"choice": [2, 4], "when": {"fusion.model": "magt"}},
        "fusion.model": {"choice": ["magt", "concat"], "when": {"video.epochs": [3, 5]}},
        "audio.epochs": {"int": [2, 5], "tie": ["video.epochs"]},
    }
    space = Space.parse(tree)
    for point in space.points(with_values(BASE, {"fusion.model": "concat"})):
        assert point["audio.epochs"] == point["video.epochs"]
        assert ("fusion.model" in point) == (point["audio.epochs"] in {3, 5})
        assert ("fusion.num_heads" in point) == (point.get("fusion.model") == "magt")
    # Where the parent is not searched in a trial, the base's value decides.
    heads = [point.get("fusion.num_heads") for point in space.points(BASE)]
    assert heads.count(2) == 2 + 2


@settings(max_examples=30)
@given(st.integers(0, 2**31 - 1))
def test_suggestions_are_points_of_the_space(seed):
    space = finite(TREE)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    assert space.suggest(study.ask(), BASE) in list(space.points(BASE))


def test_suggestions_include_tied_names_and_leave_out_the_inactive():
    space = Space.parse(TREE)
    fixed = {"fusion.model": "concat", "fusion.num_heads": 2, "fusion.depth": 3}
    fixed |= {"audio.distill.temperature": 2.0, "teacher.hidden_dim": 32}
    values = space.suggest(optuna.trial.FixedTrial(fixed), BASE)
    assert values["video.distill.temperature"] == values["audio.distill.temperature"] == 2.0
    assert "fusion.num_heads" not in values
    assert space.own_values(values) == {
        name: value for name, value in fixed.items() if name != "fusion.num_heads"
    }


# --- parsing errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (3, r"3 names no values; write"),
        (None, r"None names no values"),
        ({"choices": [3]}, r".* names no values"),
        ({"choice": [3], "int": [1, 2]}, r".* names no values"),
        ({"choice": []}, r"choice: there is no value"),
        ({"choice": [1, 2], "prior": 3}, r"prior: 3 is none of its values"),
        ({"float": [1, 8], "prior": 9}, r"prior: 9\.0 is none of its values"),
        ({"float": [1, 8], "prior": "x"}, r"prior: float: 'x' is not a number"),
        ({"int": [1, 8], "prior": 2.5}, r"prior: int: 2\.5 is not an int"),
        (
            {"int": [1, 8], "prior": 2, "prior_confidence": "sure"},
            r"prior_confidence: 'sure' is none of low",
        ),
        ({"int": [1, 8], "prior_confidence": "low"}, r"prior_confidence: there is no prior; give"),
        ({"choice": 3}, r"choice: 3 is not a list"),
        ({"choice": [3, 5, 3.0]}, r"choice: 3\.0 is duplicated"),
        ({"choice": [{3}]}, r"choice: \{3\} is neither a value nor a list or mapping"),
        ({"choice": [math.nan]}, r"choice: nan is not finite"),
        ({"choice": [3], "log": True}, r"log: unknown key"),
        ({"int": [1, 3], "stepp": 1}, r"stepp: unknown key; did you mean 'step'\?"),
        ({"int": [1, 3, 5]}, r"int: \[1, 3, 5\] is not \[low, high\]"),
        ({"int": [3, 1]}, r"int: the range goes from 3 to 1; write the lower end first"),
        ({"int": [1.5, 3]}, r"int: 1\.5 is not an int"),
        ({"int": [True, 3]}, r"int: True is not an int"),
        ({"int": [0, 3], "log": True}, r"int: log needs a range above 0, but it begins at 0"),
        ({"int": [1, 9], "log": True, "step": 2}, r"int: step and log exclude each other"),
        ({"int": [1, 4], "step": 2}, r"int: steps of 2 from 1 end at 3, not 4"),
        ({"float": [1, "x"]}, r"float: 'x' is not a number"),
        ({"float": [1, math.inf]}, r"float: inf is not a number"),
        ({"float": [0, 1], "log": True}, r"float: log needs a range above 0"),
        ({"float": [0, 1], "step": 0}, r"float: step is 0\.0; it must be above 0"),
        ({"float": [0.1, 1], "step": 0.4}, r"float: steps of 0\.4 from 0\.1 end at 0\.9, not 1\.0"),
        ({"float": [1, 2], "log": True, "step": 1}, r"float: step and log exclude each other"),
        ({"float": [1, 2], "log": "yes"}, r"log: 'yes' is neither true nor false"),
        ({"int": [1, 3], "tie": 3}, r"tie: 3 is not a list of names"),
        ({"int": [1, 3], "when": ["a"]}, r"when: \['a'\] is not a mapping"),
        ({"int": [1, 3], "when": {"seed": []}}, r"when: seed: it is empty; write a value"),
    ],
)
def test_parse_refuses(entry, message):
    with pytest.raises(SweepError, match=r"^fusion\.depth: " + message):
        Space.parse({"fusion.depth": entry})


def test_parse_refuses_what_is_not_a_mapping():
    with pytest.raises(SweepError, match=r"\[3\] is not a mapping"):
        Space.parse([3])


def test_a_name_may_be_decided_once_only():
    tree = {"audio.dropout": {"choice": [0.1], "tie": ["video.dropout"]}}
    with pytest.raises(SweepError, match=r"video\.dropout: it is in the space already"):
        Space.parse(tree | {"video.dropout": {"choice": [0.2]}})
    with pytest.raises(SweepError, match=r"tie: 'video\.dropout' is in the space already"):
        Space.parse(tree | {"teacher.dropout": {"choice": [0.2], "tie": "video.dropout"}})


@pytest.mark.parametrize("length", [1, 2, 3])
def test_conditions_must_not_go_in_a_circle(length):
    ring = [f"name{index}" for index in range(length)]
    following = itertools.islice(itertools.cycle(ring), 1, None)
    tree = {
        name: {"choice": [3], "when": {after: 3}}
        for name, after in zip(ring, following, strict=False)
    }
    with pytest.raises(SweepError, match=r"the conditions are cyclic"):
        Space.parse(tree)


# --- checking against the configuration -------------------------------------------------------


def test_a_legal_space_passes():
    Space.parse(TREE).check(BASE)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"fusion.dpeth": {"int": [1, 3]}}, r"fusion\.dpeth: no such name.*'fusion\.depth'\?"),
        ({"audio.train": {"choice": [None]}}, r"audio\.train: must be one of"),
        (
            {"audio.dropout": {"choice": [0.1], "tie": ["vidoe.dropout"]}},
            r"audio\.dropout: tie: vidoe\.dropout: no such name.*'video\.dropout'\?",
        ),
        (
            {"fusion.depth": {"int": [1, 3], "when": {"fusion.modle": "magt"}}},
            r"fusion\.depth: when: fusion\.modle: no such name; did you mean 'fusion\.model'\?",
        ),
        (
            {"fusion.depth": {"int": [1, 3], "when": {"fusion.model": "mgat"}}},
            r"fusion\.depth: when: fusion\.model: must be .*, got 'mgat'; did you mean 'magt'\?$",
        ),
        (
            {
                "fusion.depth": {"int": [1, 3], "when": {"audio.epochs": 7}},
                "audio.epochs": {"int": [2, 5]},
            },
            r"fusion\.depth: when: audio\.epochs: it is never 7",
        ),
        ({"fusion.depth": {"int": [0, 3]}}, r"fusion\.depth: must be >= 1, got 0$"),
        ({"fusion.dropout": {"float": [0.5, 1.0]}}, r"fusion\.dropout: must be < 1, got 1\.0$"),
        ({"fusion.depth": {"float": [1, 3]}}, r"fusion\.depth: must be an integer, got "),
        (
            {"fusion.model": {"choice": ["magt", "mlp"]}},
            r"fusion\.model: must be one of 'magt', .*, got 'mlp'",
        ),
        (
            {"fusion.recipe": {"choice": [None]}},
            r"recipe: cannot be searched: it stands for several",
        ),
        ({"teacher.hidden_dim": {"choice": ["64"]}}, r"'64' would be read as 64; write it so"),
        ({"fusion.hidden_dim": {"int": [16, 64]}}, r"num_heads is 8, which does not divide"),
        ({"name": {"choice": ["a"]}}, r"name: cannot be searched: it is a display name"),
        ({"resources.fusion.cpu": {"int": [1, 2]}}, r"cannot be searched: it limits what a stage"),
        ({"data.path": {"choice": ["a"]}}, r"data\.path: cannot be searched: trials on different"),
        ({"data.synthetic.seed": {"int": [1, 2]}}, r"cannot be searched: trials on different"),
        (
            {"seed": {"choice": [1], "tie": ["data.synthetic.seed"]}},
            r"seed: tie: data\.synthetic\.seed: cannot be searched",
        ),
        ({"fusion.changes": {"choice": [None]}}, r"fusion\.changes: cannot be searched"),
    ],
)
def test_check_refuses(tree, message):
    with pytest.raises(SweepError, match=message):
        Space.parse(tree).check(BASE)


def test_seed_and_dev_fraction_may_be_searched():
    tree = {"seed": {"choice": [0, 1]}, "data.dev_fraction": {"float": [0.1, 0.3]}}
    Space.parse(tree).check(BASE)


def test_check_finds_an_illegal_combination_of_legal_values():
    tree = {"fusion.hidden_dim": {"choice": [24, 60]}, "fusion.num_heads": {"choice": [4, 8]}}
    with pytest.raises(SweepError, match=r"num_heads is 8, which does not divide hidden_dim, 60"):
        Space.parse(tree).check(BASE)
    tree["fusion.num_heads"]["when"] = {"fusion.hidden_dim": 24}
    Space.parse(tree).check(with_values(BASE, {"fusion.num_heads": 4}))


def test_check_finds_an_illegal_value_in_a_space_too_large_for_all_combinations():
    tree = {
        f"{stage}.{name}": {"float": [0.1, 0.9]}
        for stage in ("teacher", "audio", "video", "fusion")
        for name in ("dropout", "weight_decay")
    }
    tree["teacher.warmup"] = {"choice": [*(index / 100 for index in range(99)), 1.5]}
    with pytest.raises(SweepError, match=r"teacher\.warmup: must be <= 1, got 1\.5$"):
        Space.parse(tree).check(BASE)


def test_a_condition_keeps_an_illegal_combination_out():
    tree = {
        "teacher.encoder": {"choice": ["features", "tiny"]},
        "teacher.prompt_length": {"int": [1, 5], "when": {"teacher.encoder": "tiny"}},
    }
    Space.parse(tree).check(BASE)
    del tree["teacher.prompt_length"]["when"]
    with pytest.raises(SweepError, match=r"teacher: prompt_length is 1, but encoder 'features'"):
        Space.parse(tree).check(BASE)


def test_a_name_in_a_null_section_creates_it():
    base = with_values(BASE, {"audio.distill": None})
    space = Space.parse({"audio.distill.temperature": {"choice": [2.0, 3.0]}})
    space.check(base)
    values = next(space.points(base))
    assert get_value(with_values(base, values), "audio.distill.temperature") == 2.0


@pytest.mark.parametrize(
    ("tree", "points"),
    [({"int": [1.0, 3]}, [1, 2, 3]), ({"int": [0, 4.0], "step": 2.0}, [0, 2, 4])],
)
def test_whole_numbers_with_a_point(tree: dict[str, Any], points: list[int]) -> None:
    entry = parse_entry(tree)
    assert list(entry.points() or ()) == points
    assert all(type(value) is int for value in entry.probes())


@pytest.mark.parametrize(
    ("name", "choices", "read"),
    [
        (
            "fusion.modalities",
            [["text"], ["text", "audio"], "audio+video", None],
            ["text", "text+audio", "audio+video", None],
        ),
        ("audio.distill", [None, {"temperature": 8.0}], [None, 8.0]),
        ("teacher.lora", [None, {"rank": 2}], [None, 2]),
    ],
)
def test_lists_and_mappings_as_choices(name: str, choices: list[Any], read: list[Any]) -> None:
    space = Space.parse({name: {"choice": choices}})
    base = Config.model_validate({"teacher": {"encoder": "tiny"}})
    space.check(base)
    assert space.to_tree() == {name: {"choice": choices}}
    assert Space.parse(space.to_tree()) == space
    trials = list(space.points(base))
    names = [trial[name] for trial in trials]
    assert all(isinstance(value, str) or value is None for value in names)
    assert names[1] in {'["text", "audio"]', '{"temperature": 8.0}', '{"rank": 2}'}
    found = [get_value(Candidate(values=trial).config(base), name) for trial in trials]
    parts = {"audio.distill": "temperature", "teacher.lora": "rank"}
    assert [getattr(one, parts.get(name, ""), one) for one in found] == read
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
    for _ in range(15):
        trial = study.ask()
        assert space.suggest(trial, base)[name] in names
        study.tell(trial, 0.0)


def test_conditions_on_lists() -> None:
    tree = {
        "fusion.modalities": {"choice": [["text"], ["text", "audio"]]},
        "audio.dropout": {"choice": [0.1, 0.2], "when": {"fusion.modalities": [["text", "audio"]]}},
    }
    space = Space.parse(tree)
    space.check(BASE)
    assert space.num_points(BASE) == len(list(space.points(BASE))) == 3
    assert Space.parse(space.to_tree()) == space


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"audio.distill": {"choice": [{"temprature": 1}]}}, "did you mean 'temperature'"),
        ({"fusion.modalities": {"choice": [["text", "smell"]]}}, "must be one of 'text'"),
        ({"fusion.depth": {"choice": [[1]]}}, "must be an integer"),
        ({"fusion.modalities": {"choice": [["text"], ["text"]]}}, "is duplicated"),
        ({"audio.distill": {"choice": [{1: {2}}]}}, "neither a value nor a list or mapping"),
        ({"audio": {"choice": [{"dropout": 0.1}]}}, "no such name"),
        (
            {
                "audio.distill": {"choice": [None, {"temperature": 4}]},
                "audio.distill.temperature": {"choice": [1.0, 2.0]},
            },
            "it is in audio.distill, whose choices have all of its values",
        ),
        (
            {"fusion.depth": {"choice": [1, 2], "when": {"fusion.modalities": [["text"]]}}},
            "it is not searched, so compare it with a single value",
        ),
    ],
)
def test_wrong_lists_and_mappings(tree: dict[str, Any], message: str) -> None:
    with pytest.raises(SweepError, match=message):
        Space.parse(tree).check(BASE)


def test_true_is_not_1() -> None:
    assert not Choice((1, 2)).contains(True)
    assert not Choice((True, False)).contains(0)
    assert Choice((1, 2)).contains(1.0)


def test_counting_is_arithmetic() -> None:
    """No walk through the values of a range, however many they are."""
    space = Space.parse(
        {
            "fusion.patience": {"int": [1, 100_000_000]},
            "fusion.num_heads": {"choice": [2, 4], "when": {"fusion.patience": [5, 7]}},
            "teacher.patience": {"int": [1, 2_000_000_000], "when": {"fusion.num_heads": 4}},
            "audio.patience": {"int": [1, 2_000_000_000]},
        }
    )
    space.check(BASE)
    # 8 heads where patience is neither 5 nor 7; else 2, or 4 with each of the teacher's.
    number = (100_000_000 - 2 + 2 * (1 + 2_000_000_000)) * 2_000_000_000
    assert space.num_points(BASE) == number
    assert len(list(itertools.islice(space.points(BASE), 1000))) == 1000


LONG = "x" * 70_000


@pytest.mark.parametrize(
    "tree",
    [
        {LONG: {"choice": [1]}},
        {"fusion.depth": LONG},
        {"fusion.depth": {LONG: 1}},
        {"fusion.depth": {"int": [1, 2], LONG: 1}},
        {"fusion.depth": {"int": LONG}},
        {"fusion.depth": {"int": [LONG, 1]}},
        {"fusion.depth": {"choice": [LONG, LONG]}},
        {"fusion.depth": {"choice": [LONG]}},
        {"fusion.depth": {"choice": [1], "tie": [LONG]}},
        {"fusion.depth": {"choice": [1], "when": {LONG: 1}}},
        {"fusion.depth": {"choice": [1], "when": {"fusion.model": LONG}}},
        {"fusion.depth": {"choice": list(range(1, 9000)), "when": {"fusion.model": [[LONG]]}}},
    ],
)
def test_messages_cut_long_values(tree: dict[str, Any]) -> None:
    with pytest.raises(SweepError, match=r"x{20}") as raised:
        Space.parse(tree).check(Config())
    assert len(str(raised.value)) < 1000
