"""What stages take, by what ledgers have recorded."""

from __future__ import annotations

from magtkd.config import Config
from magtkd.pipeline import Outcome, StageRecord
from tune.ledger import StagesRecorded, SweepOpened, SweepState, TrialSuggested, fold
from tune.results import Seconds, StageSeconds


def state_of(*records: StageRecord, stage: str = "audio") -> SweepState:
    state = fold([SweepOpened(time=1, name="toy", config={})])
    for number, record in enumerate(records):
        state.apply(TrialSuggested(time=1, trial=number, values={}))
        state.apply(StagesRecorded(time=1, trial=number, stages={stage: record}))
    return state


def test_each_key_counts_once_and_what_was_stopped_as_what_it_took() -> None:
    one = state_of(
        StageRecord("a", Outcome.TRAINED, 4.0),
        StageRecord("a", Outcome.REUSED, 0.0, 4.0),
        StageRecord("b", Outcome.STOPPED, 1.0),
        StageRecord("c", Outcome.REUSED, 0.0, None),
    )
    other = state_of(StageRecord("d", Outcome.REUSED, 0.0, 7.0))
    known = StageSeconds([one, other])
    assert known.expected("audio", Config()) == Seconds(4.0, 1.0, 7.0)
    assert known.expected("video", Config()) is None
    assert StageSeconds([]).expected("audio", Config()) is None


def test_seconds_add_up() -> None:
    each = Seconds(2.0, 1.0, 3.0)
    assert each.times(4) == Seconds(8.0, 4.0, 12.0) == each.times(3).plus(each)


def test_an_encoder_is_not_expected_to_take_what_another_one_took() -> None:
    state = fold([SweepOpened(time=1, name="toy", config={"space": {}})])
    for number, encoder in enumerate(("features", "transformer")):
        values = {"teacher.encoder": encoder}
        state.apply(TrialSuggested(time=1, trial=number, values=values))
        record = StageRecord(encoder, Outcome.TRAINED, 1.0 + 99 * number)
        state.apply(StagesRecorded(time=1, trial=number, stages={"teacher": record}))
    known = StageSeconds([state])
    assert known.expected("teacher", Config()) == Seconds(1.0, 1.0, 1.0)
