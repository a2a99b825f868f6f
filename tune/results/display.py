"""The live display of a sweep: a panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group
from rich.live import Live as LivePanel
from rich.table import Table
from rich.text import Text

from tune.ledger import (
    Event,
    Live,
    LiveNode,
    RoundDecided,
    SweepState,
    TrialEnded,
    TrialState,
    TrialStatus,
    Warned,
)
from tune.results.confirmation import round_lines
from tune.results.costs import sweep_cost
from tune.results.formats import metric_header, shown_score
from tune.results.time_left import TimeLeft

__all__ = ["Display", "duration", "node_line", "short_value"]

REFRESH_SECONDS = 0.5
MAX_NODES, MAX_WANTED = 8, 4


def duration(seconds: float) -> str:
    """Seconds as `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def short_value(value: Any) -> str:
    """A value with four significant digits where it is a float."""
    if value is None:
        return "null"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def node_line(node: LiveNode) -> str:
    """A node, and what the workers there do, as `h1 (8 CPU, 1 GPU): 2 holding, 1 idle`."""
    parts = [f"{number} {name}" for name, number in node.workers.items() if number]
    return f"{node.name} ({node.has}): {', '.join(parts) or 'no worker'}"


class Display:
    """Shows a sweep while it runs, from the ledger's events.

    Args:
        state: the sweep's state, which is up to date when an event arrives.
        num_trials: trials that there will be; None where that is open.
        console: where to write; a terminal gets a live panel.
        budget_left: gives the seconds after which the sweep ends in any case, where there are any.
    """

    def __init__(
        self,
        state: SweepState,
        num_trials: int | None,
        console: Console,
        budget_left: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._state, self._num_trials, self._console = state, num_trials, console
        self._budget_left = budget_left
        self._started = time.monotonic()
        self._time_left = TimeLeft(state, num_trials)
        self._now: Live | None = None
        self._best: TrialState | None = None
        self._live: LivePanel | None = None
        self._refreshed = 0.0
        for trial in state.trials.values():
            self._compare(trial)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = LivePanel(console=self._console, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the terminal back."""
        if self._live is not None:
            self._live.stop()

    def note(self, message: str) -> None:
        """A line that stays."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    def on_event(self, event: Event) -> None:
        """Show what one event changed."""
        match event:
            case TrialEnded():
                trial = self._state.trials[event.trial]
                self._time_left.on_end()
                is_best = self._compare(trial)
                if self._live is None:
                    self.note(self._line(trial, is_best))
            case RoundDecided():
                for line in round_lines(self._state, event):
                    self.note(line)
            case Warned():
                self.note(f"warning: {event.message}")
        self._refresh()

    def on_live(self, now: Live) -> None:
        """Show what nodes and trials do now."""
        self._now = now
        self._refresh()

    def _refresh(self) -> None:
        if self._live is not None and time.monotonic() - self._refreshed > REFRESH_SECONDS:
            self._refreshed = time.monotonic()
            self._live.update(self._panel(), refresh=True)

    def _compare(self, trial: TrialState) -> bool:
        """Whether a trial is the best so far."""
        score, best = trial.score, self._best.score if self._best else None
        if score is None:
            return False
        sign = self._state.objectives[0].sign
        if best is None or sign * score > sign * best:
            self._best = trial
            return True
        return False

    # --- what is shown ------------------------------------------------------------------------

    def _counts(self) -> str:
        count = self._state.count()
        ended = sum(number for state, number in count.items() if state != TrialStatus.RUNNING)
        total = "" if self._num_trials is None else f"/{self._num_trials}"
        parts = [f"{ended}{total} trials"]
        parts += [f"{count[state]} {state}" for state in TrialStatus if count[state]]
        return ", ".join(parts)

    def _left(self) -> str:
        ends = (self._time_left.seconds, self._budget_left())
        left = min((seconds for seconds in ends if seconds is not None), default=None)
        return "?" if left is None else duration(left)

    def _stages(self) -> str:
        return ", ".join(
            f"{stage} {cost.num_trained}+{cost.num_reused}"
            for stage, cost in sweep_cost(self._state).items()
        )

    def _best_line(self) -> str:
        if self._state.rounds:
            return "; ".join(round_lines(self._state, self._state.rounds[-1]))
        if self._best is None or self._best.score is None:
            return "none yet"
        metric = self._state.objectives[0].metric
        values = ", ".join(f"{k}={short_value(v)}" for k, v in self._best.candidate.current.items())
        score = f"{metric_header(metric)} {shown_score(metric, self._best.score)}"
        return f"{self._state.title(self._best)}: {score} ({values})"

    def _panel(self) -> Group:
        grid = Table.grid(padding=(0, 2))
        grid.add_row("trials", self._counts())
        grid.add_row("best", Text(self._best_line(), overflow="fold"))
        grid.add_row("stages", f"{self._stages()} (trained+reused)")
        passed = duration(time.monotonic() - self._started)
        if self._now is not None:
            grid.add_row("nodes", "; ".join(map(node_line, self._now.nodes[:MAX_NODES])))
            for line in self._now.wanted[:MAX_WANTED]:
                grid.add_row("waits", line)
        grid.add_row("time", f"{passed} passed, {self._left()} left")
        return Group(Text(f"sweep {self._state.name}", style="bold"), grid)

    def _line(self, trial: TrialState, is_best: bool) -> str:
        metric = self._state.objectives[0].metric
        value = trial.objectives[0] if trial.objectives else None
        shown = trial.message or ""
        if value is not None:
            shown = f"{metric_header(metric)} {shown_score(metric, value)}"
        # With one seed more or less, the best trial of a confirmation means nothing.
        star = " (best so far)" if is_best and self._state.race is None else ""
        return (
            f"{self._state.title(trial)} {trial.state}: {shown}{star}; "
            f"{self._counts()}, {self._left()} left"
        )
