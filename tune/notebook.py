"""Sweeps from Python, for notebooks and scripts.

    from tune.notebook import Sweep

    sweep = Sweep.run({"extends": "experiments/quickstart.yaml", "space": {...}}, name="toy")
    sweep.trials()          # a DataFrame
    sweep.study()           # an Optuna study
    sweep.best()            # the best configuration

What it shows is of train and dev. Whoever reads artifacts by hand has the logits of test as well:
the seal on test is one of this interface and the command line, and ends there.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from magtkd.config import Config
from magtkd.metrics import OVERALL
from magtkd.prediction import Predictor
from magtkd.store import Store
from tune.config import SweepConfig, SweepOptions, load_sweep
from tune.ledger import SweepLayout, SweepState, TrialState, read_sweep
from tune.results import best, choose, trained_chain

if TYPE_CHECKING:
    import optuna
    import pandas as pd

__all__ = ["Sweep"]


class Sweep:
    """A sweep of a storage, running or ended; each call reads the ledger anew.

    Args:
        name: the sweep's.
        storage: a folder, or the address of an object store.

    Raises:
        SweepError: there is no such sweep.
        StorageLostError: an object store does not answer or refuses.
    """

    def __init__(self, name: str, storage: str = "magtkd-results") -> None:
        self.name, self.storage = name, storage
        self._layout = SweepLayout.of(storage, name)
        _ = self.state

    @classmethod
    def run(
        cls,
        sweep: str | Path | Mapping[str, Any],
        overrides: Sequence[str] = (),
        *,
        name: str | None = None,
        storage: str = "magtkd-results",
        **options: Any,
    ) -> Sweep:
        """Run a sweep to its end, or until it is interrupted; its progress is on stderr. One that
        was begun is resumed.

        Args:
            sweep: a file, or what would be in one; paths in it are relative to the working
                directory.
            overrides: `key=value`, as on the command line.
            name: the sweep's, in place of that in the file.
            storage: where it is recorded.
            options: the others of `SweepOptions`, such as `tracking_uri=""`.

        Raises:
            InputError: anything that is wrong with the sweep.
            ResumableError: the storage or Ray went away.
        """
        from tune.driver import is_to_resume, resume_sweep, run_sweep

        changes = [*overrides, *([] if name is None else [f"name={name}"])]
        loaded = _load(sweep, changes)
        chosen = SweepOptions(storage=storage, **options)
        if is_to_resume(loaded, chosen):
            resume_sweep(loaded.name, chosen)
        else:
            run_sweep(loaded, chosen)
        return cls(loaded.name, storage)

    def __repr__(self) -> str:
        state = self.state
        counts = ", ".join(f"{number} {one}" for one, number in state.count().items())
        return f"Sweep({self.name!r}, {self.storage!r}): {counts or 'no trial yet'}"

    @property
    def state(self) -> SweepState:
        """All that the ledger has."""
        return read_sweep(self._layout)

    def trials(self) -> pd.DataFrame:
        """A row for each trial, by its number: state, values, dev metrics and their epoch, seconds
        of each stage (0 where it was reused), when it was suggested and ended, why it failed."""
        import pandas as pd

        state = self.state
        frame = pd.DataFrame([_row(trial, state) for _, trial in sorted(state.trials.items())])
        return frame if frame.empty else frame.set_index("trial")

    def curves(self) -> pd.DataFrame:
        """A row for each epoch of each trial, with all metrics."""
        import pandas as pd

        rows = [
            {"trial": trial.number, "epoch": report.epoch, **report.metrics}
            for _, trial in sorted(self.state.trials.items())
            for report in trial.reports
        ]
        return pd.DataFrame(rows)

    def study(self) -> optuna.Study:
        """Its trials as an Optuna study in memory, for Optuna's figures."""
        from tune.search import frozen_study

        return frozen_study(self.state)

    def best(self, trial: int | None = None) -> Config:
        """The configuration of the best trial on dev, or of another completed one.

        Raises:
            SweepError: no trial has completed, or it is none of these.
        """
        state, number = self._choose(trial)
        return state.trials[number].candidate.config(state.sweep.base)

    def predictor(self, trial: int | None = None) -> Predictor:
        """The trained chain of that trial."""
        return trained_chain(*self._choose(trial), Store(self.storage), warnings.warn)

    def report(self) -> str:
        """The page of `magtkd report`, which a notebook shows with
        `IPython.display.HTML(sweep.report())`."""
        from tune.report import make_parts, page_of

        return page_of(make_parts(self.storage, [self.name]))

    def _choose(self, trial: int | None) -> tuple[SweepState, int]:
        state = self.state
        rows = best(state, None if trial is None else len(state.trials))
        return state, choose(state, rows, trial)


def _load(sweep: str | Path | Mapping[str, Any], overrides: Sequence[str]) -> SweepConfig:
    if not isinstance(sweep, Mapping):
        return load_sweep(sweep, overrides)
    # In a file of the working directory, so that paths are read as in any other; JSON is YAML.
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", prefix=".sweep-", dir=".") as file:
        json.dump(dict(sweep), file)
        file.flush()
        return load_sweep(file.name, overrides)


def _row(trial: TrialState, state: SweepState) -> dict[str, Any]:
    import pandas as pd

    metrics = [one.metric for one in state.objectives]
    objectives = trial.objectives or [None] * len(metrics)
    dev: dict[str, float | None] = {}
    if trial.dev is not None:
        dev = {f"dev/{name}": getattr(trial.dev, name) for name in OVERALL}
        dev |= {f"dev/f1/{label}": value for label, value in trial.dev.per_class.items()}
    return {
        "trial": trial.number,
        "state": str(trial.state),
        **dict(zip(metrics, objectives, strict=True)),
        **dev,
        "epoch": trial.epoch,
        "epochs": len(trial.reports),
        **{f"values.{name}": value for name, value in trial.candidate.current.items()},
        **{f"seconds.{stage}": record.seconds for stage, record in trial.stages.items()},
        "suggested": pd.to_datetime(trial.suggested_time, unit="ms", utc=True),
        "ended": pd.to_datetime(trial.ended_time, unit="ms", utc=True),
        "message": trial.message,
    }
