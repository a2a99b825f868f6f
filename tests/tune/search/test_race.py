"""The race and lists of trainings, without Ray: trials end at once, with made-up predictions."""

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from magtkd.errors import SweepError
from magtkd.pipeline import StageRecord
from magtkd.scoring import Predictions
from tune.ledger import (
    RaceEntry,
    RaceSetup,
    RoundDecided,
    StagesRecorded,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    decode_event,
    encode_event,
)
from tune.search import Race, Trainings, fresh_seeds
from tune.space import Candidate

LABELS = ("joy", "anger", "fear")
CONVERSATION = np.repeat([f"c{number}" for number in range(20)], 6)
UTTERANCE = np.tile(np.arange(6), 20)
LABEL = np.random.default_rng(7).integers(0, 3, 120)
RATES = {4: 0.8, 0: 0.79, 9: 0.2, 2: 0.78}


def setup_of(rates=RATES, num_seeds=6, **fields):
    entries = [
        RaceEntry(trial=trial, values={"fusion.depth": trial}, score=0.9 - place / 100)
        for place, trial in enumerate(rates)
    ]
    seeds = tuple(range(1, num_seeds + 1))
    return RaceSetup(name="confirm", sweep_id="1", entries=tuple(entries), seeds=seeds, **fields)


class World:
    """Trains what a race asks for, and keeps its ledger; `state_of` says how a trial ends."""

    def __init__(self, setup, rates=RATES, state_of=lambda trial, seed: TrialStatus.COMPLETED):
        self.setup, self.rates, self.state_of = setup, rates, state_of
        self.events, self.num_trained = [], 0

    def predict(self, keys):
        trial, seed = map(int, keys["fusion"].split("-"))
        generator = np.random.default_rng([trial, seed])
        rate = self.rates[trial] + 0.02 * generator.normal()
        is_right = generator.random(len(LABEL)) < rate
        wrong = (LABEL + generator.integers(1, 3, len(LABEL))) % 3
        order = generator.permutation(len(LABEL))  # the rows of a table may be in any order
        return Predictions(
            labels=LABELS,
            conversation=CONVERSATION[order],
            utterance=UTTERANCE[order],
            label=LABEL[order],
            prediction=np.where(is_right, LABEL, wrong)[order],
        )

    def new(self):
        return Race(self.setup, "weighted_f1", self.predict, self.events)

    def record(self, race, event):
        event = msgspec.structs.replace(event, time=len(self.events) + 1)
        self.events.append(decode_event(encode_event(event)))
        race.apply(self.events[-1])

    def run(self, race, most=10**6, at_once=3, in_order=True):
        """Run until the race is over, or so many events were recorded."""
        while not race.is_over and len(self.events) < most:
            while len(race.running) < at_once and (asked := race.ask()) is not None:
                number, one = asked
                suggested = TrialSuggested(trial=number, values=one.values, seed=one.seed)
                self.record(race, suggested)
            if race.running:
                self.end(race, (min if in_order else max)(race.running))
            if (due := race.due()) is not None:
                self.record(race, due)
        return race

    def end(self, race, number):
        candidate = race.running[number]
        trial = self.setup.entry_of(candidate).trial
        state = self.state_of(trial, candidate.seed)
        records = {"fusion": StageRecord(f"{trial}-{candidate.seed}", "trained", 1.0)}
        self.record(race, StagesRecorded(trial=number, stages=records))
        self.record(race, TrialEnded(trial=number, state=state, message="broken"))
        self.num_trained += 1

    @property
    def rounds(self):
        return [event for event in self.events if isinstance(event, RoundDecided)]

    @property
    def given(self):
        """The seeds of each trial of the sweep, in order."""
        found = {}
        for event in self.events:
            if isinstance(event, TrialSuggested):
                trial = self.setup.entry_of(event.candidate).trial
                found.setdefault(trial, []).append(event.seed)
        return found


def test_a_clearly_worse_one_gets_no_more_and_the_others_get_all():
    world = World(setup_of())
    race = world.run(world.new())
    assert world.given == {trial: list(range(1, 4 if trial == 9 else 7)) for trial in RATES}
    assert [one.num_seeds for one in world.rounds] == [3, 4, 5, 6]
    assert [one.trial for one in world.rounds[0].standings if one.is_out] == [9]
    last = world.rounds[-1]
    assert last.is_last
    assert last.chosen == last.standings[0].trial
    means = [one.mean for one in last.standings]
    assert means == sorted(means, reverse=True)
    assert (race.ask(), race.due(), race.has_more, race.max_trials) == (None, None, False, 21)


def test_the_seeds_of_a_round_are_the_same_for_all():
    world = World(setup_of(dict.fromkeys(RATES, 0.5)), dict.fromkeys(RATES, 0.5))
    race = world.new()
    asked = [race.ask() for _ in range(13)]
    assert [candidate.seed for _, candidate in asked[:12]] == [1] * 4 + [2] * 4 + [3] * 4
    assert asked[12] is None
    assert race.has_more
    assert race.due() is None  # while they run


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_few_seeds_make_one_round(num_seeds):
    world = World(setup_of(num_seeds=num_seeds))
    world.run(world.new())
    assert [(one.num_seeds, one.is_last) for one in world.rounds] == [(num_seeds, True)]
    assert world.num_trained == 4 * num_seeds


def test_one_configuration_alone_gets_all_seeds_at_once():
    world = World(setup_of({4: 0.8}))
    world.run(world.new())
    assert [(one.num_seeds, one.chosen) for one in world.rounds] == [(6, 4)]
    (standing,) = world.rounds[0].standings
    assert (standing.gap, standing.p, standing.is_out) == (0.0, 1.0, False)
    assert standing.low < standing.mean < standing.high


def test_the_last_one_that_is_left_gets_the_rest_at_once():
    rates = {4: 0.9, 9: 0.2, 2: 0.25}
    world = World(setup_of(rates), rates)
    world.run(world.new())
    assert [one.num_seeds for one in world.rounds] == [3, 6]
    assert world.given == {4: [1, 2, 3, 4, 5, 6], 9: [1, 2, 3], 2: [1, 2, 3]}


def test_one_that_fails_is_out_and_says_why():
    def state_of(trial, seed):
        failed = (trial, seed) == (4, 2)
        return TrialStatus.DIVERGED if failed else TrialStatus.COMPLETED

    world = World(setup_of(), state_of=state_of)
    world.run(world.new(), at_once=1)
    (failed,) = (one for one in world.rounds[0].standings if one.failed)
    assert (failed.trial, failed.is_out, failed.mean) == (4, True, None)
    assert failed.failed == "diverged with seed 2: broken"
    assert world.given[4] == [1, 2]  # and no third one
    assert world.rounds[-1].chosen in {0, 2}


def test_where_all_fail_nothing_is_chosen():
    world = World(setup_of(), state_of=lambda trial, seed: TrialStatus.FAILED)
    race = world.run(world.new())
    assert (race.is_over, world.rounds[-1].chosen, race.ask()) == (True, None, None)
    assert {one.failed for one in world.rounds[-1].standings} == {"failed with seed 1: broken"}


@settings(max_examples=20)
@given(stop=st.integers(0, 70), at_once=st.integers(1, 5), in_order=st.booleans())
def test_a_race_that_was_killed_anywhere_goes_on_as_if_it_had_not_been(stop, at_once, in_order):
    whole = World(setup_of())
    whole.run(whole.new())
    world = World(setup_of())
    world.run(world.new(), most=stop, at_once=at_once, in_order=in_order)
    # What ended before the ledger had it ends again.
    del world.events[stop:]
    again = world.new()
    if (due := again.due()) is not None:
        world.record(again, due)
    world.run(again, at_once=at_once, in_order=in_order)
    assert world.given == whole.given
    figures = [(one.num_seeds, one.standings, one.is_last, one.chosen) for one in world.rounds]
    assert figures == [
        (one.num_seeds, one.standings, one.is_last, one.chosen) for one in whole.rounds
    ]


def test_decisions_are_read_and_not_made_again():
    """What was decided holds, though the predictions are gone."""
    world = World(setup_of())
    world.run(world.new())
    race = Race(world.setup, "weighted_f1", lambda keys: 1 / 0, world.events)
    assert (race.is_over, race.ask(), race.due()) == (True, None, None)


def test_the_order_of_the_configurations_changes_no_verdict():
    one, other = World(setup_of()), World(setup_of(dict(reversed(RATES.items()))))
    for world in (one, other):
        world.run(world.new())
    for first, second in zip(one.rounds, other.rounds, strict=True):
        assert first.chosen == second.chosen
        for a, b in zip(first.standings, second.standings, strict=True):
            assert (a.trial, a.is_out) == (b.trial, b.is_out)
            assert (a.mean, a.p, a.low) == pytest.approx((b.mean, b.p, b.low))


def test_other_utterances_are_refused():
    world = World(setup_of())
    race = world.new()

    def predict(keys):
        found = world.predict(keys)
        if not keys["fusion"].startswith("9"):
            return found
        return Predictions(
            **{name: one if name == "labels" else one[1:] for name, one in vars(found).items()}
        )

    race._predict = predict
    with pytest.raises(SweepError, match="dev has other utterances than in the first trial"):
        world.run(race)


# --- trainings --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("used", "expected"), [({0}, (1, 2, 3)), (set(), (0, 1, 2)), ({0, 2, 3, 7}, (1, 4, 5))]
)
def test_fresh_seeds_are_the_smallest_that_are_not_used(used, expected):
    assert fresh_seeds(used, 3) == expected


def test_a_list_of_trainings_is_given_in_order_and_once():
    wanted = [
        Candidate(values={"fusion.depth": depth}, seed=seed) for depth in (1, 2) for seed in (0, 5)
    ]
    first = Trainings(wanted)
    assert first.ask() == (0, wanted[0])
    events = [TrialSuggested(trial=0, values=wanted[0].values, seed=0)]
    again = Trainings(wanted, events)
    assert again.running == {0: wanted[0]}
    assert [again.ask() for _ in range(4)] == [*enumerate(wanted[1:], start=1), None]
    assert (again.num_trials, again.max_trials, again.has_more) == (4, 4, False)


def test_a_trial_out_of_order_is_refused():
    with pytest.raises(SweepError, match="trial 3 comes after -1; restore"):
        Trainings([], [TrialSuggested(trial=3, values={})])
