import io

import pytest
from rich.console import Console

from magtkd.pipeline import StageRecord
from tune.ledger import (
    StagesRecorded,
    SweepOpened,
    SweepState,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    Warned,
)
from tune.results.display import Display, duration, short_value

OBJECTIVE = {"metric": "dev/accuracy", "mode": "max"}
STATES = [state.value for state in TrialStatus]


def new_state(objective=OBJECTIVE):
    state = SweepState()
    config = {"objective": objective}
    opened = SweepOpened(time=1, sweep_id="i", name="toy", config=config)
    state.apply(opened)
    return state


class Shown:
    """A display, and the text that it has written."""

    def __init__(self, num_trials, is_terminal, state=None, **options):
        self.state = state or new_state()
        self.file = io.StringIO()
        console = Console(file=self.file, force_terminal=is_terminal, width=100, color_system=None)
        self.display = Display(self.state, num_trials, console, **options)

    @property
    def text(self):
        return self.file.getvalue()

    def apply(self, event):
        self.state.apply(event)
        self.display.on_event(event)

    def run_trial(self, number, state, value=None, message=None):
        self.apply(TrialSuggested(time=2, trial=number, values={"fusion.dropout": 0.123456}))
        record = StageRecord("a", "reused" if number else "trained", 1.0)
        self.apply(StagesRecorded(time=2, trial=number, stages={"teacher": record}))
        if state != "running":
            self.apply(
                TrialEnded(
                    time=2,
                    trial=number,
                    state=TrialStatus(state),
                    objectives=None if value is None else [value],
                    message=message,
                )
            )


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3599.7, "1:00:00"), (7384, "2:03:04")],
)
def test_a_duration_is_rounded_to_seconds(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.123456, "0.1235"), (3, "3"), ("magt", "magt")])
def test_a_float_has_four_digits(value, shown):
    assert short_value(value) == shown


def test_a_pipe_gets_a_line_for_each_trial_that_ends():
    shown = Shown(num_trials=5, is_terminal=False)
    with shown.display:
        shown.run_trial(0, "completed", 0.5)
        shown.run_trial(1, "completed", 0.25)
        shown.run_trial(2, "diverged", message="fusion: diverged: [loss] was nan")
        shown.run_trial(3, "running")
    lines = shown.text.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("trial 0 completed: dev accuracy 50.00 (best so far); 1/5 trials")
    assert lines[1].startswith("trial 1 completed: dev accuracy 25.00; 2/5 trials, 2 completed")
    assert lines[2].startswith("trial 2 diverged: fusion: diverged: [loss] was nan; 3/5 trials")
    assert "\x1b" not in shown.text


def test_without_a_number_of_trials_the_budget_is_what_is_left():
    shown = Shown(None, is_terminal=False)
    shown.run_trial(0, "completed", 0.5)
    assert shown.text.endswith("(best so far); 1 trials, 1 completed, ? left\n")
    shown = Shown(5, is_terminal=False, budget_left=lambda: 61.0)
    shown.run_trial(0, "completed", 0.5)
    shown.run_trial(1, "completed", 0.4)
    assert shown.text.splitlines()[-1].endswith(" left")
    assert Shown(None, is_terminal=False, budget_left=lambda: 61.0).display._left() == "1:01"


def test_small_is_good_where_the_objective_says_so():
    state = new_state({"metric": "dev/loss", "mode": "min"})
    shown = Shown(num_trials=2, is_terminal=False, state=state)
    with shown.display:
        shown.run_trial(0, "completed", 0.5)
        shown.run_trial(1, "completed", 0.25)
    assert shown.text.count("(best so far)") == 2


def test_an_early_stopped_trial_is_not_the_best():
    shown = Shown(num_trials=2, is_terminal=False)
    with shown.display:
        shown.run_trial(0, "stopped", 0.75)
        shown.run_trial(1, "completed", 0.25)
    assert [line.count("best") for line in shown.text.splitlines()] == [0, 1]


def test_a_terminal_gets_a_panel_with_everything(monkeypatch):
    monkeypatch.setattr("tune.results.display.REFRESH_SECONDS", -1.0)
    shown = Shown(num_trials=7, is_terminal=True)
    with shown.display:
        for number, state in enumerate(STATES):
            shown.run_trial(number, state, 0.5 if state == "completed" else None, "why")
        panel = shown.text
    for state in STATES:
        assert f"1 {state}" in panel
    assert "4/7 trials" in panel
    assert "trial 1: dev accuracy 50.00 (fusion.dropout=0.1235)" in panel
    assert "teacher 1+4" in panel
    assert "left" in panel


def test_what_a_resumed_sweep_did_before_does_not_count_for_the_time_left():
    state = new_state()
    for number in range(3):
        suggested = TrialSuggested(time=2, trial=number, values={})
        state.apply(suggested)
        state.apply(
            TrialEnded(time=3, trial=number, state=TrialStatus.COMPLETED, objectives=[0.75])
        )
    shown = Shown(num_trials=5, is_terminal=False, state=state)
    with shown.display:
        shown.run_trial(3, "failed", message="why")
        shown.run_trial(4, "completed", 0.5)
    first, second = shown.text.splitlines()
    assert "4/5 trials" in first
    assert second.endswith(", 0:00 left")
    assert "best" not in second


def test_a_warning_of_the_ledger_is_shown():
    shown = Shown(num_trials=1, is_terminal=False)
    with shown.display:
        shown.apply(Warned(time=2, message="x.arrow: the file is damaged; quarantined as [y]"))
    assert shown.text == "warning: x.arrow: the file is damaged; quarantined as [y]\n"
