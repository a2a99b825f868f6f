"""The specification of a paper's table: its rows, data sets, metrics and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from magtkd.config import Section, nearest, override, read_config_file, validate
from magtkd.errors import shorten
from magtkd.metrics import OVERALL

__all__ = ["BASELINES", "TableRow", "TableSpec", "baseline_values", "load_table"]

Name = Annotated[str, Field(min_length=1, max_length=100)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Score = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
MOST_SEEDS = 100
F1_OF_EACH = "f1"
"""The F1 of each class, a column each."""
OF_A_CLASS = "f1/"

_WITHOUT_DISTILLATION = {"audio.distill": None, "video.distill": None}
_WITHOUT_HEADS = {
    "magt": {"fusion.inter_weight": 0.0, "fusion.intra_weight": 0.0, "fusion.feature_weight": 0.0},
    "sdt": {"fusion.distill_weight": 0.0},
}
BASELINES: dict[str, dict[str, Any]] = {
    **{
        name: {"fusion.modalities": name}
        for name in ("text", "audio", "video", "text+audio", "text+video", "audio+video")
    },
    "no_distillation": _WITHOUT_DISTILLATION,
    "no_head_distillation": {},
    "no_prompt_vectors": {"teacher.prompt_length": 0},
    "no_prompt": {"teacher.prompt_length": 0, "teacher.template": "none"},
    "no_gates": {"fusion.gate": "none"},
    "no_anchor": {"fusion.anchor": False},
    "concat": {"fusion.model": "concat"},
}
"""What of a configuration is another in a baseline of `docs/fusion.md`, by dotted name; that of
`no_head_distillation` depends on the model."""


def baseline_values(name: str, model: str) -> dict[str, Any]:
    """The values of a baseline, by dotted name.

    Args:
        name: one of `BASELINES`.
        model: the fusion model that it is a baseline of.

    Raises:
        ValueError: the model has nothing that the baseline leaves out.
    """
    if name != "no_head_distillation":
        return BASELINES[name]
    if model not in _WITHOUT_HEADS:
        raise ValueError(
            f"fusion.model {model} has no distillation between heads; leave the row out"
        )
    return _WITHOUT_HEADS[model]


_OneOrEach = str | dict[str, str] | None
_Figures = dict[str, Score | dict[str, Score]] | None


class TableRow(Section):
    """A row: one of `sweep`, `config`, `baseline` and `published` says what it is."""

    name: Name
    """As the table shows it."""
    sweep: _OneOrEach = None
    """A sweep, whose confirmed choice is the row, and without a confirmation its best trial on dev;
    or one for each data set, by its name."""
    config: _OneOrEach = None
    """The file of a configuration; or one for each data set."""
    baseline: str | None = None
    """A baseline of the row `of`, such as `no_distillation`."""
    of: Name | None = None
    """Of which row the baseline is; by default of the reference."""
    published: _Figures = None
    """Figures as a paper prints them, in percent, by metric; or those of each data set."""
    source: str | None = None
    """Where these are from."""
    set: dict[str, Any] = Field(default_factory=dict)
    """Values by dotted name, which replace those of the configuration."""

    @field_validator("sweep", "config", mode="before", json_schema_input_type=_OneOrEach)
    @classmethod
    def _one_or_each(cls, given: Any) -> Any:
        each = given.values() if isinstance(given, Mapping) and given else [given]
        if given is not None and not all(isinstance(one, str) for one in each):
            raise ValueError(
                f"must be a string, or one for each data set such as {{MELD: a}}, got "
                f"{shorten(repr(given))}"
            )
        return given

    @field_validator("published", mode="before", json_schema_input_type=_Figures)
    @classmethod
    def _numbers(cls, given: Any) -> Any:
        for one in given.values() if isinstance(given, Mapping) else ():
            for figure in one.values() if isinstance(one, Mapping) else [one]:
                is_number = isinstance(figure, int | float) and not isinstance(figure, bool)
                if not (is_number and 0 <= figure <= 100):
                    raise ValueError(
                        f"must be numbers between 0 and 100, got {shorten(repr(figure))}"
                    )
        return given

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = ("sweep", "config", "baseline", "published")
        given = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(given) != 1:
            has = f"has {' and '.join(given)}" if given else "says not what it is"
            raise ValueError(f"row {shorten(self.name)!r} {has}; give one of {', '.join(kinds)}")
        if given == ["published"] and (self.set or not self.source):
            why = "values cannot be set in" if self.set else "there is no source of"
            raise ValueError(
                f"row {shorten(self.name)!r}: {why} published figures; give a `source` alone"
            )
        if given != ["published"] and self.source:
            raise ValueError(
                f"row {shorten(self.name)!r}: `source` is that of published figures; leave it out"
            )
        if self.of is not None and self.baseline is None:
            raise ValueError(f"row {shorten(self.name)!r}: `of` needs a `baseline`; leave it out")
        if self.baseline is not None and self.baseline not in BASELINES:
            raise ValueError(
                f"row {shorten(self.name)!r}: no such baseline {shorten(self.baseline)!r}"
                f"{nearest(self.baseline, list(BASELINES))}; known are {', '.join(BASELINES)}"
            )
        return self

    def figures(self, data: str, is_only: bool) -> dict[str, float]:
        """The published figures of a data set, in percent by metric.

        Args:
            data: its name.
            is_only: whether there is no other.
        """
        flat = {name: one for name, one in (self.published or {}).items() if isinstance(one, float)}
        if flat:
            return flat if is_only else {}
        own = (self.published or {}).get(data)
        return own if isinstance(own, dict) else {}


class TableSpec(Section):
    """What `magtkd table` makes a table of."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,59}$")]
    """Of the table: letters, digits, dot, underscore and hyphen."""
    seeds: tuple[Seed, ...] = (1, 2, 3, 4, 5)
    """The seeds of every row: a list, or their number, from 1 on, which leaves out that of
    sweeps."""
    reference: Name
    """The row that all others are compared with."""
    data: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,29}$")], dict[str, Any]]
    """The data sets, each a group of columns: values of the section `data`, such as `path`, or
    that path alone."""
    metrics: tuple[str, ...] = ("accuracy", "weighted_f1")
    """The columns of each data set: `accuracy`, `weighted_f1`, `macro_f1`, `f1/<label>`, or `f1`
    for each label."""
    rows: tuple[TableRow, ...]
    """The rows, in their order."""
    max_concurrent: Annotated[int, Field(ge=1, lt=2**31)] = 2
    """Trainings at the same time."""

    @field_validator("seeds", mode="before", json_schema_input_type=int | tuple[Seed, ...])
    @classmethod
    def _number_or_list(cls, seeds: Any) -> Any:
        is_number = isinstance(seeds, int) and not isinstance(seeds, bool)
        if is_number:
            if not 2 <= seeds <= MOST_SEEDS:
                raise ValueError(
                    f"{seeds}: a mean and its deviation take 2 or more; give 2 to {MOST_SEEDS}"
                )
            return list(range(1, seeds + 1))
        if isinstance(seeds, list | tuple) and not 2 <= len(seeds) <= MOST_SEEDS:
            raise ValueError(
                f"a list of {len(seeds)}: a mean and its deviation take 2 or more; give 2 to "
                f"{MOST_SEEDS}"
            )
        return seeds

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        for seed in seeds:
            if seeds.count(seed) > 1:
                raise ValueError(f"{seed} is duplicated; keep one")
        return seeds

    @field_validator("data", mode="before", json_schema_input_type=dict[str, str | dict[str, Any]])
    @classmethod
    def _paths(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if not data:
            raise ValueError("there is none; write {MOSI: mosi.parquet}")
        return {name: {"path": one} if isinstance(one, str) else one for name, one in data.items()}

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        known = (*OVERALL, F1_OF_EACH)
        if not metrics:
            raise ValueError(f"there is none; known are {', '.join(known)}")
        for metric in metrics:
            if metric not in known and not metric.startswith(OF_A_CLASS):
                raise ValueError(
                    f"{shorten(metric)!r}: no such metric{nearest(metric, known)}; known are "
                    f"{', '.join(known)} and f1/<label>"
                )
            if metrics.count(metric) > 1:
                raise ValueError(f"{shorten(metric)!r} is duplicated; keep one")
        return metrics

    @model_validator(mode="after")
    def _fit(self) -> Self:
        names = [row.name for row in self.rows]
        if not names:
            raise ValueError("rows: there is none; write - {name: MAGT, config: mosi.yaml}")
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"rows: {shorten(name)!r} is duplicated; give each its own name")
        self._check_row("reference", self.reference)
        for row in self.rows:
            if row.baseline is not None:
                self._check_row(f"row {shorten(row.name)!r}: of", self.base_of(row))
                self._check_no_circle(row)
            for given in (row.sweep, row.config, row.published):
                self._check_groups(row, given)
        return self

    def _check_row(self, place: str, name: str) -> None:
        names = [row.name for row in self.rows]
        if name not in names:
            raise ValueError(
                f"{place}: there is no row {shorten(name)!r}{nearest(name, names)}; give one of "
                f"{shorten(', '.join(names))}"
            )
        if self.row(name).published is not None:
            raise ValueError(
                f"{place}: row {shorten(name)!r} has published figures, and no predictions to "
                "compare with; name a row that is trained"
            )

    def _check_no_circle(self, row: TableRow) -> None:
        seen = [row.name]
        while row.baseline is not None:
            row = self.row(self.base_of(row))
            if row.name in seen:
                raise ValueError(
                    f"row {shorten(row.name)!r}: is a baseline of itself; name the row that it "
                    "is one of with `of`"
                )
            seen.append(row.name)
            if self.base_of(row) not in {one.name for one in self.rows}:
                return  # which its own check says

    def _check_groups(self, row: TableRow, given: Any) -> None:
        if not isinstance(given, dict):
            return
        metrics = {*OVERALL, *self.metrics}
        flat = [name for name, one in given.items() if isinstance(one, float)]
        for name in given:
            if name in flat:
                if name not in metrics and not name.startswith(OF_A_CLASS):
                    raise ValueError(
                        f"row {shorten(row.name)!r}: published: no such metric {shorten(name)!r}"
                        f"{nearest(name, sorted(metrics))}; known are {', '.join(OVERALL)}"
                    )
            elif name not in self.data:
                raise ValueError(
                    f"row {shorten(row.name)!r}: there is no data set {shorten(name)!r}"
                    f"{nearest(name, list(self.data))}; known are {', '.join(self.data)}"
                )
        if flat and (len(self.data) > 1 or len(flat) < len(given)):
            raise ValueError(
                f"row {shorten(row.name)!r}: published figures of several data sets; give those "
                f"of each by its name, {next(iter(self.data))}: {{accuracy: 70.0}}"
            )

    def row(self, name: str) -> TableRow:
        """The row of a name, which there is."""
        return next(row for row in self.rows if row.name == name)

    def base_of(self, row: TableRow) -> str:
        """The name of the row whose baseline a row is."""
        return row.of or self.reference


def load_table(path: str | Path, overrides: Sequence[str] = ()) -> TableSpec:
    """Read and check the specification of a table.

    Paths of data sets and configurations are relative to the file; those of overrides to the
    working directory.

    Args:
        path: a YAML file.
        overrides: `key=value` with dotted keys, such as `data.MOSI.path=mosi.parquet`.

    Raises:
        ConfigError: anything that is wrong with the file by itself, in one line.
    """
    tree = read_config_file(path)
    folder = Path(path).parent
    _resolve_data(tree, folder)
    rows = tree.get("rows")
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("config"), str):
            row["config"] = _absolute(folder, row["config"])
        elif isinstance(row, dict) and isinstance(row.get("config"), dict):
            files = row["config"].items()
            row["config"] = {
                name: _absolute(folder, one) if isinstance(one, str) else one for name, one in files
            }
    override(tree, overrides)
    _resolve_data(tree, Path())
    return validate(TableSpec, tree, str(path))


def _resolve_data(tree: dict[str, Any], folder: Path) -> None:
    data = tree.get("data")
    if not isinstance(data, dict):
        return
    for name, one in data.items():
        if isinstance(one, str):
            data[name] = {"path": _absolute(folder, one)}
        elif isinstance(one, dict):
            for key in ("path", "media"):
                if isinstance(one.get(key), str):
                    one[key] = _absolute(folder, one[key])


def _absolute(folder: Path, path: str) -> str:
    return str((folder / Path(path).expanduser()).resolve())
