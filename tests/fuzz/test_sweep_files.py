"""Sweep files, and overrides of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from magtkd.config import Config, SyntheticConfig, dump_yaml, names_of
from magtkd.data import make_corpus, make_synthetic
from magtkd.pipeline import source_of
from tests.fuzz.limits import FUZZ, is_taken
from tests.fuzz.mutations import NUMBERS, RARELY, SCALARS, TEXTS, VALUES, torn
from tune.config import SweepConfig, load_sweep
from tune.driver.preview import unread_in_sweep
from tune.samplers import SAMPLERS
from tune.schedulers import SCHEDULERS

NAMES = st.sampled_from(list(names_of(Config))) | st.sampled_from(list(names_of(SweepConfig)))
SEARCHED = st.sampled_from(
    [
        *("fusion.depth", "fusion.dropout", "fusion.epochs", "fusion.model", "fusion.num_heads"),
        *("teacher.hidden_dim", "audio.distill", "fusion.modalities", "seed"),
    ]
)
SMALL = st.integers(-1, 20) | st.sampled_from([0.0, 0.1, 0.3, 1.0, 2.5])
ENDS = SMALL | SMALL | NUMBERS


@st.composite
def entries(draw: st.DrawFn) -> Any:
    """What a name is searched over."""
    kind = draw(st.sampled_from(["choice", "float", "int"]))
    if kind == "choice":
        tree: Any = {"choice": draw(st.lists(SMALL | VALUES, max_size=4))}
    else:
        tree = {kind: draw(st.lists(ENDS, min_size=2, max_size=2).map(sorted))}
    optional = {
        "log": st.booleans(),
        "step": ENDS,
        "tie": st.lists(SEARCHED, max_size=2) | VALUES,
        "when": st.dictionaries(SEARCHED, st.lists(ENDS | TEXTS, max_size=2) | ENDS, max_size=2),
    }
    for key in draw(st.sets(st.sampled_from(list(optional)), max_size=2)):
        tree[key] = draw(optional[key])
    return tree


RIGHT = {
    "fusion.depth": {"int": [1, 3]},
    "fusion.dropout": {"float": [0.1, 0.7], "step": 0.1},
    "fusion.learning_rate": {"float": [1e-4, 1e-2], "log": True},
    "fusion.num_heads": {"choice": [2, 4], "when": {"fusion.model": "magt"}},
    "audio.distill.temperature": {"choice": [1, 2.0], "tie": ["video.distill.temperature"]},
    "fusion.epochs": {"int": [2, 2_000_000_000]},
}


@st.composite
def sweeps(draw: st.DrawFn) -> dict[str, Any]:
    """A sweep, most of it right."""
    names = draw(st.sets(st.sampled_from(list(RIGHT)), min_size=1, max_size=3))
    tree: dict[str, Any] = {
        "name": "mosi",
        "data": {"synthetic": {"num_dialogues": 20}},
        "objective": {"metric": draw(st.sampled_from(["dev/weighted_f1", "dev/loss"]))},
        "search": {"sampler": draw(st.sampled_from(["tpe", "random", *SAMPLERS])), "num_trials": 4},
        "scheduler": {"kind": draw(st.sampled_from(["fifo", "asha", *SCHEDULERS]))},
        "space": {name: dict(RIGHT[name]) for name in sorted(names)},
    }
    for how in draw(
        st.lists(st.sampled_from(["entry", "detail", "value", "anywhere"]), max_size=2)
    ):
        if how == "entry":
            tree["space"] = {draw(SEARCHED): draw(entries())}
        elif how == "detail":
            entry = draw(st.sampled_from(list(tree["space"].values())))
            if isinstance(entry, dict):
                entry[draw(st.sampled_from(["log", "step", "tie", "when"]))] = draw(ENDS | VALUES)
        elif how == "value":
            _set(tree, draw(NAMES), draw(SCALARS | VALUES))
        else:
            places = [tree, *(inner for inner in tree.values() if isinstance(inner, dict))]
            place = draw(st.sampled_from(places))
            place[draw(TEXTS | st.sampled_from([*place, "x"]))] = draw(VALUES)
        if not isinstance(tree.get("space"), dict) or not tree["space"]:
            break
    return tree


def _set(tree: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        inner = tree.get(parent)
        tree[parent] = tree = inner if isinstance(inner, dict) else {}
    tree[last] = value


def _aliases(depth: int, width: int) -> str:
    """A few lines that stand for `width ** depth` values."""
    lines = ["a0: &a0 [x, x]"]
    for level in range(1, depth):
        lines.append(f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]")
    return "\n".join(lines) + "\n"


ODD_LINES = st.sampled_from(
    [
        "<<: *none",
        "space: &s {fusion.depth: *s}",
        "extends: sweep.yaml",
        "extends: [a]",
        "x: !!python/object/apply:os.system [ls]",
        "? [a, b]\n: 1",
        "%YAML 9.9",
        "---\n- a",
        "\tseed: 1",
        "name: !!binary aGk=",
        "1: 2",
        "null: 1",
        "2024-01-31: 1",
        "seed: 0o17",
        "seed: 1:30",
        "a" * 70000,
    ]
) | st.builds(_aliases, st.sampled_from([2, 9, 40]), st.integers(1, 9))


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """The bytes of a sweep file."""
    try:
        text = yaml.dump(draw(sweeps()), sort_keys=False, allow_unicode=draw(st.booleans()))
    except RecursionError:  # deeper than it writes
        text = "name: mosi\nspace: " + "[" * 3000 + "]" * 3000 + "\n"
    if draw(RARELY):
        lines = text.splitlines(keepends=True)
        lines.insert(draw(st.integers(0, len(lines))), draw(ODD_LINES) + "\n")
        text = "".join(lines)
    encoding = draw(st.sampled_from(["utf-8"] * 20 + ["utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(encoding, "replace")
    return draw(torn(content)) if draw(RARELY) else content


OVERRIDE = st.builds(lambda name, value: f"{name}={value}", NAMES | TEXTS, SCALARS) | TEXTS
OVERRIDES = RARELY.flatmap(lambda given: st.tuples(*[OVERRIDE] * given))


@pytest.fixture(scope="module")
def look() -> Callable[[SweepConfig], None]:
    """What a dry run looks at, apart from the cluster."""
    source = source_of(make_corpus(make_synthetic(SyntheticConfig(num_dialogues=20)), "synthetic"))

    def run(sweep: SweepConfig) -> None:
        sweep.search_space.num_points(sweep.base)
        unread_in_sweep(sweep, source)

    return run


@FUZZ
@given(content=files(), overrides=OVERRIDES)
def test_a_sweep_file(
    content: bytes,
    overrides: tuple[str, ...],
    look: Callable[[SweepConfig], None],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.getbasetemp() / "sweep-files"
    folder.mkdir(exist_ok=True)
    path = folder / "sweep.yaml"
    path.write_bytes(content)
    sweep = None

    def read() -> None:
        nonlocal sweep
        sweep = load_sweep(path, overrides)
        look(sweep)

    if is_taken(read, folder):
        assert isinstance(sweep, SweepConfig)
        path.write_text(dump_yaml(sweep), encoding="utf-8")
        assert load_sweep(path) == sweep
