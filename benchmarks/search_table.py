"""A table of real trainings, on which searches are replayed at no cost.

    magtkd sweep benchmarks/mosi_table_sweep.yaml data.path=mosi.parquet --no-tracking --storage DIR
    python benchmarks/search_table.py DIR/sweeps/mosi_table [DIR/sweeps/mosi_table_seed1 ...]

The second command writes the sweeps' learning curves and seconds to `mosi_table.parquet`; the first
sweep is the table, others are repetitions of some of its rows with other seeds.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from magtkd.pipeline import Plan
from tune.ledger import SweepLayout, SweepState, TrialsLearned, TrialStatus, read_sweep
from tune.samplers import EarlierTrial
from tune.search.study import section_plan
from tune.space import Values

__all__ = ["HISTORY", "TABLE", "TABLE_REGIMES", "Recorded"]

TABLE = Path(__file__).resolve().parent / "mosi_table.parquet"
HISTORY = TABLE.with_name("synthetic_table.parquet")
"""Some of the same configurations on the synthetic corpus."""
METRIC = "dev/weighted_f1"
UPSTREAM = ("teacher", "audio", "video")
TABLE_REGIMES: dict[str, Mapping[str, float]] = {
    "as recorded": {},
    "teacher dear": {"teacher": 30.0},
    "students dear": {"audio": 10.0, "video": 10.0},
}
"""Factors on the recorded seconds of stages."""


def rows_of(state: SweepState) -> list[dict[str, Any]]:
    """A row for each completed trial: its values as JSON, seed, dev scores of all epochs, and the
    seconds of each stage that it trained."""
    return [
        {
            "values": json.dumps(trial.values, sort_keys=True),
            "seed": state.sweep.seed,
            "dev": [report.metrics[METRIC] for report in trial.reports],
            "seconds": {
                stage: record.seconds for stage, record in trial.stages.items() if record.seconds
            },
        }
        for trial in state.ended
        if trial.state == TrialStatus.COMPLETED
    ]


class Recorded:
    """A problem whose answers were recorded; see `search_simulation.Problem`.

    A stage takes the median of what it took in all trials, fusion of those with the same depth: the
    machine had other work at times.

    Args:
        factors: on the seconds of stages.
        path: of the table.
    """

    def __init__(self, factors: Mapping[str, float], path: Path = TABLE) -> None:
        table = pq.read_table(path)
        self.space: dict[str, Any] = json.loads(table.schema.metadata[b"space"])
        self._factors = factors
        self._curves: dict[str, Sequence[float]] = {}
        self._best = defaultdict[str, list[float]](list)
        seconds = defaultdict[tuple[str, str], list[float]](list)
        first = table["seed"][0].as_py()
        for row in table.to_pylist():
            name, values = row["values"], json.loads(row["values"])
            self._best[name].append(100 * max(row["dev"]))
            if row["seed"] == first:
                self._curves[name] = [100 * score for score in row["dev"]]
            for stage, taken in row["seconds"]:
                seconds[stage, self._kind(stage, values)].append(taken)
        self._seconds = {kind: statistics.median(found) for kind, found in seconds.items()}
        self.epochs = max(map(len, self._curves.values()))

    @staticmethod
    def _kind(stage: str, values: Values) -> str:
        return str(values["fusion.depth"]) if stage == "fusion" else ""

    @staticmethod
    def _name(values: Values) -> str:
        return json.dumps(values, sort_keys=True)

    @cached_property
    def whole(self) -> float:
        """Seconds of an average chain."""
        rows = [json.loads(name) for name in self._curves]
        stages = (*UPSTREAM, "fusion")
        return statistics.fmean(
            sum(self.seconds(stage, values) for stage in stages) for values in rows
        )

    def plan(self, values: Values) -> Plan:
        return section_plan(values)

    def seconds(self, stage: str, values: Values) -> float:
        return self._factors.get(stage, 1.0) * self._seconds[stage, self._kind(stage, values)]

    def curve(self, values: Values) -> Sequence[float]:
        return self._curves[self._name(values)]

    def answer(self, values: Values) -> float:
        """The dev score of a configuration that was chosen."""
        return max(self.curve(values))

    def true_score(self, values: Values) -> float | None:
        """The mean of the best epochs on dev over other seeds; None where there are none."""
        _, *others = self._best[self._name(values)]
        return statistics.fmean(others) if others else None

    def as_learned(self) -> TrialsLearned:
        """Its rows as trials of an earlier sweep of another table."""
        trials = [
            EarlierTrial(json.loads(name), dict(enumerate(curve, 1)))
            for name, curve in self._curves.items()
        ]
        return TrialsLearned(source="recorded", is_same=False, trials=trials)

    def nearest(self, values: Mapping[str, Any]) -> Values:
        """The levels of the table that are nearest to some values."""
        found = {}
        for name, entry in self.space.items():
            distances = [abs(level - values[name]) for level in entry["choice"]]
            found[name] = entry["choice"][distances.index(min(distances))]
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sweeps", nargs="+", metavar="STORAGE/sweeps/NAME")
    parser.add_argument("--out", type=Path, default=TABLE)
    options = parser.parse_args()
    states = []
    for sweep in options.sweeps:
        storage, _, name = sweep.rstrip("/").rpartition("/sweeps/")
        states.append(read_sweep(SweepLayout.of(storage, name)))
    rows = [row for state in states for row in rows_of(state)]
    schema = pa.schema(
        {
            "values": pa.string(),
            "seed": pa.int32(),
            "dev": pa.list_(pa.float32()),
            "seconds": pa.map_(pa.string(), pa.float32()),
        },
        metadata={"space": json.dumps(states[0].sweep.space)},
    )
    pq.write_table(pa.Table.from_pylist(rows, schema), options.out, compression="zstd")
    size = options.out.stat().st_size / 1e6
    print(f"{options.out}: {len(rows)} rows of {len(states)} sweeps, {size:.2f} MB")


if __name__ == "__main__":
    main()
