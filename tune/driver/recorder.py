"""The recorder: what Ray Tune tells the driver becomes events of the ledger, and nothing else.

The state, the study and the display learn from the same events, in the same order, as a reader of
the ledger would.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ray.tune as ray_tune

from magtkd.errors import StorageError
from magtkd.metrics import dev_scores
from tune.config.sweep import SweepConfig, config_of
from tune.ledger.file import Ledger
from tune.ledger.state import Event, Report, SweepState

__all__ = ["Recorder", "chosen_report"]

DEV = "dev/"


def chosen_report(reports: Sequence[Report], select: str) -> Report | None:
    """The report of the epoch that dev chooses so far, as the trainer would: the first best."""
    finite = [report for report in reports if report.metrics.get(DEV + select) is not None]
    if not finite:
        return None
    sign = -1 if select == "loss" else 1
    return max(finite, key=lambda report: sign * (report.metrics[DEV + select] or 0.0))


class Recorder(ray_tune.Callback):  # type: ignore[misc]
    """Ray Tune's callback: the one writer of the ledger while trials run.

    Args:
        sweep: the sweep.
        ledger: where events go first.
        listeners: called with each event once it is written.
        on_end: called with the number of a trial that ended.
    """

    def __init__(
        self,
        sweep: SweepConfig,
        ledger: Ledger,
        state: SweepState,
        listeners: Sequence[Callable[[Event], Any]],
        on_end: Callable[[int], Any],
    ) -> None:
        self._sweep, self._ledger, self.state = sweep, ledger, state
        self._listeners, self._on_end = listeners, on_end
        self._fusion: dict[int, str] = {}
        self._chosen: dict[int, dict[str, Any]] = {}
        self._trained = {
            (stage, record.key)
            for trial in state.trials.values()
            for stage, record in trial.stages.items()
            if record.outcome == "trained"
        }
        self.error: StorageError | None = None
        """Why nothing is recorded any more, and the sweep must stop."""

    def record(self, kind: str, **fields: Any) -> None:
        """Write an event, then tell it to the state and the listeners.

        Once the storage cannot be written, nothing is: the ledger must not lack an event in its
        middle.
        """
        if self.error is not None:
            return
        try:
            event = self._ledger.append(kind, **fields)
        except StorageError as error:
            self.error = error
            return
        self.state.apply(event)
        for listen in self._listeners:
            listen(event)

    def close(self, reason: str) -> None:
        """Record the end of this driver's work, also where an artifact could not be written."""
        with contextlib.suppress(StorageError):
            self.state.apply(self._ledger.append("sweep_closed", reason=reason))

    # --- Ray Tune's hooks ---------------------------------------------------------------------

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number = result["number"]
        if result.get("state") == "storage":
            self.error = self.error or StorageError(result["message"])
        if self.error is not None:
            return
        if "stages" in result:
            self._record_stages(number, json.loads(result["stages"]))
        if "fusion" in result:
            self._fusion[number] = result["fusion"]
        self._record_changes(number, result)
        metrics = {
            name: value for name, value in result.items() if name.startswith((DEV, "train/"))
        }
        # A trial whose process died tells again what it had told before.
        if metrics and result["epoch"] not in self.state.trials[number].epochs_seen:
            self.record("trial_report", trial=number, epoch=result["epoch"], metrics=metrics)
        if "chosen" in result:
            self._chosen[number] = json.loads(result["chosen"])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        last = trial.last_result or {}
        self.end(trial.config["trial"], last.get("state", "stopped"), last.get("message"))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        lines = str(trial.get_error() or "").strip().splitlines()
        message = lines[-1] if lines else "the trial's process died"
        self.end(trial.config["trial"], "failed", message)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks into a folder that nobody reads; a ledger cannot be pickled.
        return {}

    # --- events -------------------------------------------------------------------------------

    def end(self, number: int, state: str, message: str | None = None) -> None:
        """Record the end of a trial, once."""
        told = self.state.trials[number]
        if told.ended_time is not None or self.error is not None:
            return
        self._record_fusion(number, state)
        chosen = self._chosen.pop(number, None)
        if chosen is None and state == "stopped":
            select = config_of(self._sweep, told.values).fusion.select
            report = chosen_report(told.reports, select)
            chosen = report._asdict() if report else None
        fields: dict[str, Any] = {"message": message} if message else {}
        if chosen is not None:
            metrics = chosen["metrics"]
            fields["dev"], fields["epoch"] = dev_scores(metrics), chosen["epoch"]
            fields["objectives"] = [metrics.get(one.metric) for one in self._sweep.objective]
        self.record("trial_ended", trial=number, state=state, **fields)
        if self.error is None:
            self._on_end(number)

    def _record_fusion(self, number: int, state: str) -> None:
        """Fusion's record, once, at the end. A trial that was stopped has no artifact, but what it
        cost counts."""
        told = self._fusion.pop(number, None)
        if told is None:
            return
        outcome = "trained" if state == "completed" else "stopped"
        fusion = json.loads(told) | {"outcome": outcome}
        self._record_trained(number, {"fusion": fusion})

    def _record_stages(self, number: int, stages: Mapping[str, Any]) -> None:
        """What is news: a trial that was paused finds the stages that it told of before."""
        known = self.state.trials[number].stages
        news = {
            stage: self._counted(stage, told)
            for stage, told in stages.items()
            if stage not in known or known[stage].key != told["key"]
        }
        if news:
            self._record_trained(number, news)
        if "fusion" in news:  # its artifact was there after all, though its worker had died
            self._fusion.pop(number, None)

    def _record_trained(self, number: int, stages: dict[str, dict[str, Any]]) -> None:
        self.record("trial_stages", trial=number, stages=stages)
        self._trained |= {
            (stage, told["key"]) for stage, told in stages.items() if told["outcome"] == "trained"
        }

    def _counted(self, stage: str, told: dict[str, Any]) -> dict[str, Any]:
        """A stage that this sweep trained before something died counts as trained once."""
        if told["outcome"] != "recovered":
            return told
        if (stage, told["key"]) in self._trained:
            return told | {"outcome": "reused", "seconds": 0.0, "saved": told["seconds"]}
        return told | {"outcome": "trained"}

    def _record_changes(self, number: int, result: Mapping[str, Any]) -> None:
        """Population based training went on from another trial's session, with other values."""
        trial = self.state.trials[number]
        base = json.loads(result["base"]) if "base" in result else trial.values
        told = json.loads(result["changes"]) if "changes" in result else {}
        changes = {int(epoch): values for epoch, values in told.items()}
        if (base, changes) == (trial.base or trial.values, trial.lineage):
            return
        values = dict(base)
        for changed in changes.values():
            values |= {f"fusion.{name}": value for name, value in changed.items()}
        epoch = max([result["epoch"], *changes])
        self.record(
            "trial_changed", trial=number, epoch=epoch, values=values, base=base, changes=changes
        )
