"""The trial: a small Ray Tune trainable that holds no accelerator and imports no torch.

It asks the engine for its stages, then its worker for one fusion epoch after another, and reports
each. What a stage does wrong ends the trial with a result, never with an exception: Tune would
retry it.
"""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.tune as ray_tune
from ray.exceptions import RayActorError, RayTaskError

from magtkd.errors import InputError
from magtkd.pipeline import StageRecord, trained_record
from tune.config.sweep import SweepConfig, config_of
from tune.engine.engine import ENGINE_NAMESPACE, Opened
from tune.engine.pool import reason_of
from tune.engine.worker import Failure, Step
from tune.ledger.state import TrialState

__all__ = ["Trial", "lineage_name", "resumed_config", "trial_resources"]


def trial_resources() -> dict[str, float]:
    """What a trial asks of the cluster: a place on the driver's node, and no CPU.

    Tune wants a request that is not empty, and 0.001 CPU for each of two trials would leave room
    for one worker on two CPUs. On the driver's node trials can pass their sessions on by files.
    """
    return {f"node:{ray.util.get_node_ip_address()}": 0.001}


def _record(record: StageRecord) -> dict[str, Any]:
    told = vars(record) | {"seconds": round(record.seconds, 4)}
    return {name: value for name, value in told.items() if value is not None}


def _completed(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """The last result, from a fusion artifact's metrics. The chosen epoch's report is told again:
    a trial that went on from another's session never reported the epochs before."""
    epoch = metrics["epoch"]
    chosen = next(report for report in metrics["reports"] if report["epoch"] == epoch)
    return {"done": True, "state": "completed", "chosen": json.dumps(chosen)}


def resumed_config(trial: TrialState) -> dict[str, Any]:
    """The configuration of a trial that goes on after a resume: its values of now, and its `past`,
    which is the epoch up to which its reports are known, and what it came from."""
    past: dict[str, Any] = {"epoch": max(trial.epochs_seen, default=0)}
    values = dict(trial.base or trial.values)
    if trial.base is not None:
        past |= {"base": trial.base, "changes": trial.lineage}
    for changed in trial.lineage.values():
        values |= {f"fusion.{name}": value for name, value in changed.items()}
    return {**values, "trial": trial.number, "past": json.dumps(past)}


def lineage_name(values: Mapping[str, Any], changes: Mapping[int, Any]) -> str:
    """A name for what population based training made of a trial: sessions that were exported
    before an exchange must not be taken for those after it."""
    told = json.dumps([values, {str(epoch): new for epoch, new in changes.items()}], sort_keys=True)
    return hashlib.sha256(told.encode()).hexdigest()[:16]


class Trial(ray_tune.Trainable):  # type: ignore[misc]
    """One configuration of a sweep. Its results carry `epoch`, the report's metrics by name,
    `stages` when there is news of them, `fusion`, and at the end `state` and `chosen` or
    `message`. What is not a number is JSON text, which Tune leaves as it is.

    Its configuration has its values by dotted name and its number as `trial`; see also
    `resumed_config`."""

    def setup(
        self, config: dict[str, Any], sweep: dict[str, Any], engine: str, max_failures: int
    ) -> None:
        self._sweep = SweepConfig.model_validate(sweep)
        self._engine_name, self._max_failures = engine, max_failures
        self._engine: Any = None
        self._opened: Opened | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._close()
        values = dict(new_config)
        self._number = int(values.pop("trial"))
        past = json.loads(values.pop("past", "{}"))
        self._wanted = values
        self._values: dict[str, Any] = past.get("base") or dict(values)
        self._changes = {int(epoch): new for epoch, new in past.get("changes", {}).items()}
        self._epoch = int(past.get("epoch", 0))
        self._went_on = bool(past.get("base"))
        self._exported: bytes | None = None
        self._replay = deque[dict[str, Any]]()
        self._news: dict[str, Any] = {}
        self._num_failures = 0
        return True

    # --- one epoch ----------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        while True:
            try:
                result = self._step()
            except RayActorError as error:
                self._num_failures += 1
                self._opened = self._engine = None
                if self._num_failures > self._max_failures:
                    return self._ended("failed", f"fusion: its worker died: {reason_of(error)}")
                ray.get(self._find_engine().worker_died.remote(self._number))
                continue
            if result["epoch"] > self._epoch:
                self._epoch, self._num_failures = result["epoch"], 0
            return result

    def _step(self) -> dict[str, Any]:
        if self._opened is None and (failure := self._open()) is not None:
            return self._ended(failure.state, failure.message)
        assert self._opened is not None
        opened = self._opened
        if self._replay or opened.metrics is not None:
            return self._replayed(opened)
        step = ray.get(opened.worker.advance.remote(opened.session))
        if isinstance(step, Failure):
            return self._ended(step.state, step.message)
        return self._reported(step)

    def _open(self) -> Failure | None:
        try:
            config = config_of(self._sweep, self._values, self._changes)
            opened: Opened = ray.get(
                self._find_engine().open.remote(
                    self._number,
                    config,
                    lineage_name(self._values, self._changes),
                    self._exported,
                    self._sweep.scheduler.kind == "pbt",
                )
            )
        except InputError as error:
            return Failure("failed", str(error))
        except RayTaskError as error:
            return Failure("failed", str(error.cause).splitlines()[0])
        self._exported = None  # the worker has it, and exports what follows to the store
        self._news |= {stage: _record(record) for stage, record in opened.records.items()}
        if opened.failure is not None:
            return opened.failure
        self._opened = opened
        self._replay = deque(one for one in opened.reports if one["epoch"] > self._epoch)
        return None

    def _find_engine(self) -> Any:
        if self._engine is None:
            self._engine = ray.get_actor(self._engine_name, namespace=ENGINE_NAMESPACE)
        return self._engine

    # --- results ------------------------------------------------------------------------------

    def _reported(self, step: Step) -> dict[str, Any]:
        result = self._trained(step.epoch, step.metrics, step.seconds, step.final)
        return result if step.final is None else result | _completed(step.final)

    def _trained(
        self,
        epoch: int,
        metrics: Mapping[str, float],
        seconds: float,
        final: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        assert self._opened is not None
        fusion = trained_record(self._opened.fusion_key, {**(final or {}), "seconds": seconds})
        return self._result(epoch, metrics) | {"fusion": json.dumps(_record(fusion))}

    def _replayed(self, opened: Opened) -> dict[str, Any]:
        """The next report of an epoch that was trained before; the last one again, where the end
        is all that was not told."""
        report = self._replay.popleft() if self._replay else opened.reports[-1]
        if opened.metrics is None:
            return self._trained(report["epoch"], report["metrics"], opened.seconds)
        result = self._result(report["epoch"], report["metrics"])
        return result if self._replay else result | _completed(opened.metrics)

    def _result(self, epoch: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        result: dict[str, Any] = dict(metrics) | {"epoch": epoch, "number": self._number}
        if self._news:
            result["stages"], self._news = json.dumps(self._news), {}
        if self._went_on:
            result["changes"] = json.dumps(self._changes)
            result["base"] = json.dumps(self._values)
        return result

    def _ended(self, state: str, message: str) -> dict[str, Any]:
        return self._result(0, {}) | {"done": True, "state": state, "message": message}

    # --- pausing, and going on from another trial's session (population based training) -------

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        exported, trained = self._exported, self._epoch
        if self._opened is not None and self._opened.worker is not None:
            opened = self._opened
            exported = ray.get(opened.worker.export.remote(opened.session))
            # Epochs of an earlier driver that are still being told are trained already.
            trained = opened.reports[-1]["epoch"] if self._replay else trained
        Path(checkpoint_dir, "session.safetensors").write_bytes(exported or b"")
        state = {"values": self._values, "changes": self._changes}
        state |= {"epoch": self._epoch, "trained": trained}
        Path(checkpoint_dir, "trial.json").write_text(json.dumps(state))

    def load_checkpoint(self, checkpoint: str) -> None:
        state = json.loads(Path(checkpoint, "trial.json").read_text())
        exported = Path(checkpoint, "session.safetensors").read_bytes()
        self._exported, self._went_on = exported or None, True
        self._epoch = state["epoch"]
        self._values = state["values"]
        self._changes = {int(epoch): values for epoch, values in state["changes"].items()}
        current = dict(self._values)
        for changed in self._changes.values():
            current |= {f"fusion.{name}": value for name, value in changed.items()}
        new = {
            name.removeprefix("fusion."): value
            for name, value in self._wanted.items()
            if current.get(name) != value
        }
        if new:
            start = state["trained"] + 1
            self._changes[start] = self._changes.get(start, {}) | new

    def cleanup(self) -> None:
        self._close()

    def _close(self) -> None:
        """Give the worker back: this actor ends, or goes on as another trial, while the one that it
        was may be paused."""
        if self._opened is not None and self._opened.worker is not None:
            self._find_engine().close.remote(self._number, self._opened.session)
        self._opened = None
