"""The trial: a small Ray Tune trainable that holds no accelerator and imports no torch.

It asks the engine for its stages, then its worker for one fusion epoch after another, and reports
each. What a stage does wrong ends the trial with a result, never with an exception: Tune would
retry it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
import ray.tune as ray_tune
from ray.exceptions import RayActorError, RayTaskError

from magtkd.errors import InputError
from magtkd.pipeline import StageRecord
from tune.engine import ENGINE_NAMESPACE, Opened
from tune.sweep_config import SweepConfig, config_of
from tune.workers import Failure, Step

__all__ = ["Trial", "trial_resources"]


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


class Trial(ray_tune.Trainable):  # type: ignore[misc]
    """One configuration of a sweep. Its results carry `epoch`, the report's metrics by name,
    `stages` when there is news of them, `fusion`, and at the end `state` and `chosen` or
    `message`. What is not a number is JSON text, which Tune leaves as it is."""

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
        self._wanted = values
        self._values, self._changes = dict(values), dict[int, dict[str, Any]]()
        self._exported: bytes | None = None
        self._replay: list[dict[str, Any]] = []
        self._news: dict[str, Any] = {}
        self._num_failures = 0
        self._start_epoch = 0
        self._went_on = False
        return True

    # --- one epoch ----------------------------------------------------------------------------

    def step(self) -> dict[str, Any]:
        while True:
            try:
                return self._step()
            except RayActorError as error:
                self._num_failures += 1
                self._opened = self._engine = None
                if self._num_failures > self._max_failures:
                    return self._ended(
                        "failed", f"fusion: its worker died: {error}".splitlines()[0]
                    )
                ray.get(self._find_engine().worker_died.remote(self.trial_id))

    def _step(self) -> dict[str, Any]:
        if self._opened is None and (failure := self._open()) is not None:
            return self._ended(failure.state, failure.message)
        assert self._opened is not None
        if self._opened.metrics is not None:
            return self._replayed(self._opened.metrics)
        opened = self._opened
        step = ray.get(opened.worker.advance.remote(opened.session))
        if isinstance(step, Failure):
            return self._ended(step.state, step.message)
        return self._reported(step)

    def _open(self) -> Failure | None:
        try:
            config = config_of(self._sweep, self._values, self._changes)
            opened: Opened = ray.get(
                self._find_engine().open.remote(
                    self.trial_id, config, self._exported, self._sweep.scheduler.kind == "pbt"
                )
            )
        except InputError as error:
            return Failure("failed", str(error))
        except RayTaskError as error:
            return Failure("failed", str(error.cause).splitlines()[0])
        self._news |= {stage: _record(record) for stage, record in opened.records.items()}
        if opened.failure is not None:
            return opened.failure
        self._opened, self._opened_by = opened, self.trial_id
        if opened.metrics is not None:
            reports = opened.metrics["reports"]
            self._replay = [report for report in reports if report["epoch"] > self._start_epoch]
        return None

    def _find_engine(self) -> Any:
        if self._engine is None:
            self._engine = ray.get_actor(self._engine_name, namespace=ENGINE_NAMESPACE)
        return self._engine

    # --- results ------------------------------------------------------------------------------

    def _reported(self, step: Step) -> dict[str, Any]:
        assert self._opened is not None
        fusion = StageRecord(self._opened.fusion_key, "trained", step.seconds)
        result = self._result(step.epoch, step.metrics) | {"fusion": json.dumps(_record(fusion))}
        return result if step.final is None else result | _completed(step.final)

    def _replayed(self, metrics: dict[str, Any]) -> dict[str, Any]:
        report = self._replay.pop(0)
        result = self._result(report["epoch"], report["metrics"])
        return result if self._replay else result | _completed(metrics)

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
        if self._opened is not None and self._opened.worker is not None:
            opened = self._opened
            self._exported = ray.get(opened.worker.export.remote(opened.session))
        Path(checkpoint_dir, "session.safetensors").write_bytes(self._exported or b"")
        state = {"values": self._values, "changes": self._changes, "epoch": self._epoch()}
        Path(checkpoint_dir, "trial.json").write_text(json.dumps(state))

    def _epoch(self) -> int:
        return int((self._last_result or {}).get("epoch", 0))

    def load_checkpoint(self, checkpoint: str) -> None:
        state = json.loads(Path(checkpoint, "trial.json").read_text())
        exported = Path(checkpoint, "session.safetensors").read_bytes()
        self._exported, self._went_on = exported or None, True
        self._start_epoch = state["epoch"]
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
            start = state["epoch"] + 1
            self._changes[start] = self._changes.get(start, {}) | new

    def cleanup(self) -> None:
        self._close()

    def _close(self) -> None:
        """Give the worker back: this actor ends, or goes on as another trial, while the one that it
        was may be paused."""
        if self._opened is not None and self._opened.worker is not None:
            self._find_engine().close.remote(self._opened_by, self._opened.session)
        self._opened = None
