"""`magtkd confirm`, and `best` of what was confirmed, without Ray: from ledgers and artifacts."""

import json
import statistics

import pytest
import yaml

from magtkd.config import load_config
from magtkd.data import read_corpus
from magtkd.errors import SweepError
from magtkd.metrics import OVERALL
from magtkd.pipeline import StageRecord, run_chain, source_of
from magtkd.scoring import score_split
from magtkd.store import Store
from tune.config import SweepConfig
from tune.driver.confirm import ConfirmRequest, _new
from tune.ledger import (
    RaceEntry,
    RaceSetup,
    RoundDecided,
    StagesRecorded,
    Standing,
    SweepClosed,
    SweepEnd,
    SweepLayout,
    SweepOpened,
    TestRevealed,
    TrialEnded,
    TrialStatus,
    TrialSuggested,
    fold,
    open_ledger,
    read_events,
    read_sweep,
)
from tune.report.confirmation import confirmation_section
from tune.report.subject import Subject
from tune.space import Candidate

STAGE = {"epochs": 1, "hidden_dim": 8}
TREE = {
    "name": "toy",
    "data": {"synthetic": {"num_dialogues": 15, "mean_length": 3, "num_emotions": 2}},
    "teacher": STAGE,
    "audio": STAGE,
    "video": STAGE,
    "fusion": STAGE | {"model": "concat"},
    "space": {"fusion.learning_rate": {"choice": [0.001, 0.002, 0.003]}},
}
NAME = "fusion.learning_rate"
SCORES = {0: 0.5, 1: 0.75, 2: 0.625}
"""Of the sweep's trials."""
SEEDS = (1, 2)
REQUEST = ConfirmRequest(num_seeds=2)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(call, folder):
    """Runs what is wrong: exit code 2, one line, nothing written. Gives the line."""

    def run(*arguments, expected=2):
        before = sorted(folder.rglob("*"))
        code, out, err = call(*arguments)
        assert (code, out) == (expected, ""), out
        assert err.startswith("magtkd: ")
        assert err.count("\n") == 1
        assert sorted(folder.rglob("*")) == before
        return err.removeprefix("magtkd: ").strip()

    return run


@pytest.fixture(scope="module")
def source():
    return source_of(read_corpus(SweepConfig.model_validate(TREE).data))


@pytest.fixture
def write_sweep(folder, source):
    """Writes the ledger of a sweep whose trials had some scores; None is one that failed."""

    def write(scores=SCORES, ends=True, values=None, **sections):
        layout = SweepLayout(folder / "magtkd-results", "toy")
        config = SweepConfig.model_validate(TREE | sections)
        with open_ledger(layout) as ledger:
            ledger.append(
                SweepOpened(
                    name="toy",
                    config=config.model_dump(mode="json"),
                    sweep_id="s1",
                    fingerprint=source.fingerprint,
                    tracked=False,
                )
            )
            write_trials(ledger, scores, values)
            if ends:
                ledger.append(SweepClosed(reason=SweepEnd.FINISHED))
        return layout

    return write


def write_trials(ledger, scores, values=None):
    for number, score in scores.items():
        chosen = values[number] if values else {NAME: (1 + number) / 1000}
        ledger.append(TrialSuggested(trial=number, values=chosen))
        state = TrialStatus.FAILED if score is None else TrialStatus.COMPLETED
        objectives = None if score is None else [score]
        ledger.append(TrialEnded(trial=number, state=state, objectives=objectives))


def decided():
    first = Standing(trial=2, mean=0.625, deviation=0.125, low=0.5, high=0.75, gap=0.0, p=1.0)
    second = Standing(trial=1, mean=0.5, deviation=0.0625, low=0.25, high=0.75, gap=0.125, p=0.5)
    third = Standing(
        trial=0, mean=0.25, deviation=0.0625, low=0.125, high=0.375, gap=0.375, p=0.01, is_out=True
    )
    return RoundDecided(num_seeds=2, standings=[first, second, third], is_last=True, chosen=2)


def race_of(**fields):
    entries = tuple(
        RaceEntry(trial=trial, values={NAME: (1 + trial) / 1000}, score=SCORES[trial])
        for trial in (1, 2, 0)
    )
    known = {"name": "confirm", "sweep_id": "s1", "entries": entries, "seeds": SEEDS}
    return RaceSetup(**{**known, "num_completed": 3, **fields})


def write_confirmation(layout, race=None, keys=None, is_over=True, number=1):
    """The ledger of a confirmation that chose trial 2; all stages have some keys by seed."""
    race = race or race_of()
    tree = TREE | {"seeds": {"data": 0}, "search": {"num_trials": 6, "start": []}}
    with open_ledger(layout.confirmation(number)) as ledger:
        config = SweepConfig.model_validate(tree).model_dump(mode="json")
        ledger.append(
            SweepOpened(name="toy", config=config, sweep_id=f"c{number}", race=race, tracked=False)
        )
        for place, (seed, entry) in enumerate((s, e) for s in race.seeds for e in race.entries):
            ledger.append(TrialSuggested(trial=place, values=entry.values, seed=seed))
            if keys:
                ledger.append(StagesRecorded(trial=place, stages=keys[seed]))
            end = TrialEnded(trial=place, state=TrialStatus.COMPLETED, objectives=[0.5])
            ledger.append(end)
        if is_over:
            ledger.append(decided())
        ledger.append(SweepClosed(reason=SweepEnd.FINISHED))


# --- what is confirmed ------------------------------------------------------------------------


def test_the_best_are_taken_with_seeds_that_no_trial_had(write_sweep, source):
    state = read_sweep(write_sweep())
    sweep, race = _new(state, source, ConfirmRequest(), "confirm")
    assert [(entry.trial, entry.score) for entry in race.entries] == [
        (1, 0.75),
        (2, 0.625),
        (0, 0.5),
    ]
    assert race.seeds == tuple(range(1, 11))
    assert (race.num_completed, race.vary, race.sweep_id) == (3, "all", "s1")
    assert (sweep.scheduler.kind, sweep.search.num_trials, sweep.search.start) == ("fifo", 30, ())
    config = race.entries[0].candidate(7).config(sweep.base)
    assert [config.seed_of(stage) for stage in ("data", "teacher", "fusion")] == [0, 7, 7]


def test_what_fusion_reads_may_keep_its_seed(write_sweep, source):
    state = read_sweep(write_sweep())
    request = ConfirmRequest(vary="fusion", top=1, num_seeds=2)
    sweep, race = _new(state, source, request, "confirm")
    before = state.trials[1].candidate.plan(state.sweep.base, source)
    after = race.entries[0].candidate(1).plan(sweep.base, source)
    assert {stage: after.keys[stage] for stage in after.upstream} == {
        stage: before.keys[stage] for stage in before.upstream
    }
    assert after.fusion_key != before.fusion_key
    assert len(race.entries) == 1


def test_trials_that_differ_in_the_seed_alone_are_one_configuration(write_sweep, source):
    """Sweeps of earlier versions may have searched the seed."""
    values = {n: {NAME: 0.001 * (1 + n // 2), "seed": n % 2 * 3} for n in range(4)}
    space = TREE["space"] | {"seed": {"choice": [0, 3]}}
    scores = {0: 0.5, 1: 0.75, 2: 0.6, 3: 0.7}
    state = read_sweep(write_sweep(scores, values=values, space=space))
    _, race = _new(state, source, ConfirmRequest(num_seeds=3), "confirm")
    assert [entry.trial for entry in race.entries] == [1, 3]
    assert [entry.values for entry in race.entries] == [{NAME: 0.001}, {NAME: 0.002}]
    assert race.seeds == (1, 2, 4)


def test_what_a_population_changed_is_part_of_a_configuration():
    changes = {3: {"dropout": 0.2}}
    entry = RaceEntry(trial=4, values={"fusion.dropout": 0.1}, changes=changes, score=0.5)
    candidate = Candidate(values={"fusion.dropout": 0.1}, changes=changes, seed=6)
    assert entry.candidate(6) == candidate
    event = TrialSuggested(trial=0, values=entry.values, seed=6, changes=changes)
    assert event.candidate == candidate
    assert race_of(entries=(entry,)).entry_of(candidate) == entry


# --- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--seeds", "1"), "--seeds 1: a mean and its deviation take 2 or more; give 2 to 1000"),
        (("--confidence", "1"), "--confidence 1: give a number between 0 and 1, such as 0.95"),
        (("--confidence", "nan"), "--confidence nan: give a number between 0 and 1"),
        (("--top", "0"), "--top 0: give 1 or more"),
        (("--vary", "teacher"), "--vary 'teacher': use one of all, fusion"),
        (("search.num_trials=9",), "search.num_trials=9: a confirmation trains what the sweep has"),
        (("fusion.depth=2",), "fusion.depth=2: a confirmation trains what the sweep has trained;"),
        (("--top", "4"), "--top 4: sweep 'toy' has 3 completed configurations that differ; give"),
    ],
)
def test_values_that_no_confirmation_can_have(refused, write_sweep, options, message):
    write_sweep()
    assert refused("confirm", "toy", *options).startswith(message)


def test_a_sweep_that_does_not_exist(refused, write_sweep):
    write_sweep()
    assert "did you mean 'toy'?" in refused("confirm", "toi")


def test_a_sweep_without_a_completed_trial(refused, write_sweep):
    write_sweep({0: None, 1: None})
    message = refused("confirm", "toy", expected=1)
    assert message.startswith("sweep 'toy': no trial has completed: 2 failed; see the messages")


def test_a_sweep_that_is_running(refused, write_sweep):
    layout = write_sweep()
    with open_ledger(layout, resume=True):
        message = refused("confirm", "toy")
    assert "is running it; wait for its end, or interrupt it" in message


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        ([{"metric": "dev/accuracy"}, {"metric": "dev/loss"}], "has 2 objectives, dev/accuracy, "),
        ([{"metric": "dev/loss"}], "its objective is dev/loss, which the weights of the losses"),
    ],
)
def test_objectives_that_are_not_one_score(refused, write_sweep, objective, message):
    write_sweep({}, objective=objective)
    assert message in refused("confirm", "toy")


def test_other_values_than_a_confirmation_has(refused, write_sweep):
    write_confirmation(write_sweep())
    message = refused("confirm", "toy", "--top", "2")
    assert message.startswith(
        "--top 2: there is a confirmation with 3; leave it out, or add --again"
    )
    assert "--vary fusion: there is a confirmation with all" in refused(
        "confirm", "toy", "--vary", "fusion"
    )


def test_a_confirmation_of_another_sweep_of_that_name(refused, write_sweep):
    write_confirmation(write_sweep(), race_of(sweep_id="s0"))
    message = "is not a confirmation of this sweep 'toy', but of an earlier one of that name; move"
    assert message in refused("confirm", "toy")


@pytest.mark.parametrize("command", [("sweep",), ("sweep", "--dry-run"), ("slurm", "--print")])
def test_a_new_sweep_does_not_search_the_seed(refused, folder, command):
    tree = TREE | {"space": {"fusion.dropout": {"choice": [0.1], "tie": ["seed"]}}}
    for space in ({"seed": {"choice": [0, 1]}}, {"seed": {"int": [0, 9]}, **TREE["space"]}):
        (folder / "toy.yaml").write_text(yaml.safe_dump(tree | {"space": space}))
        message = refused(*command, "toy.yaml")
        assert message.startswith("space: seed: is no hyperparameter: the luckiest one would win;")
        assert message.endswith("magtkd confirm toy")


def test_an_old_sweep_over_the_seed_is_still_resumed(call, write_sweep):
    write_sweep(values={n: {"seed": n} for n in SCORES}, space={"seed": {"choice": [0, 1, 2]}})
    assert call("sweep", "--resume", "toy")[0] == 0
    assert call("trials", "toy")[0] == 0


# --- what was confirmed -----------------------------------------------------------------------


def test_one_that_is_over_is_shown_again(call, write_sweep):
    layout = write_sweep()
    write_confirmation(layout)
    before = layout.confirmation(1).ledger.read_bytes()
    code, out, err = call("confirm", "toy", "--seeds", "2", "--top", "3")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[1].split()[:5] == ["1", "2", "62.50", "±", "12.50"]
    assert lines[1].rstrip().endswith("62.50      0.00  chosen")
    assert "cannot be distinguished" in lines[2]
    assert "25.00" in lines[2]  # the optimism of the sweep's best
    assert "worse" in lines[3]
    assert lines[4] == (
        "chosen: trial 2, dev weighted F1 62.50 ± 12.50 over 2 seeds (1 to 2); the sweep had 62.50 "
        "with its own seed"
    )
    assert lines[5:7] == ["cannot be distinguished from it: trial 1", "6 of at most 6 trainings"]
    assert layout.confirmation(1).ledger.read_bytes() == before
    code, out, _ = call("confirm", "toy", "--json")
    found = json.loads(out)
    assert (found["chosen"], found["seeds"], found["test"]) == (2, [1, 2], None)
    assert [one["optimism"] for one in found["configurations"]] == [0.0, 0.25, 0.25]


def test_best_prefers_the_confirmed_choice(call, write_sweep):
    layout = write_sweep()
    write_confirmation(layout)
    code, out, _ = call("best", "toy")
    assert code == 0
    assert out.splitlines()[1].split()[0] == "2"
    line = "confirmed: trial 2, dev weighted F1 62.50 ± 12.50 over 2 fresh seeds (1 to 2)"
    assert out.splitlines()[2] == line
    found = json.loads(call("best", "toy", "--json")[1])
    assert (found["trial"], found["confirmed"]["chosen"]) == (2, 2)
    code, out, _ = call("best", "toy", "--top", "2")
    assert [row.split()[0] for row in out.splitlines()] == ["trial", "1", "2", "confirmed:"]
    assert [row["trial"] for row in json.loads(call("best", "toy", "--top", "2", "--json")[1])] == [
        1,
        2,
    ]


def test_one_that_is_not_over_changes_nothing(call, write_sweep):
    write_confirmation(write_sweep(), is_over=False)
    assert call("best", "toy")[1].splitlines()[1].split()[0] == "1"
    status = call("status", "toy")[1]
    assert "confirmation: unfinished; to continue it: magtkd confirm toy" in status


def test_a_later_one_counts_and_a_sweep_that_has_more_says_so(call, write_sweep):
    layout = write_sweep()
    write_confirmation(layout)
    write_confirmation(layout, race_of(name="confirm-2"), number=2)
    with open_ledger(layout, resume=True) as ledger:
        write_trials(ledger, {3: 0.9})
    _, out, _ = call("best", "toy", "--json")
    assert json.loads(out)["confirmed"]["confirmation"] == "confirm-2"
    last = call("best", "toy")[1].splitlines()[-1]
    assert (
        last
        == "the sweep has completed a trial since; to confirm it anew: magtkd confirm toy --again"
    )
    assert "the sweep has completed a trial since" in call("confirm", "toy")[1]


def test_the_export_has_the_seeds(call, write_sweep, folder):
    layout = write_sweep()
    write_confirmation(layout)
    code, _, err = call("best", "toy", "--export", "best.yaml")
    assert (code, "magtkd train best.yaml" in err) == (0, True)
    config, text = load_config(folder / "best.yaml"), (folder / "best.yaml").read_text()
    assert text.startswith("# Trial 2 of sweep toy, chosen by its confirmation 'confirm'\n")
    assert "# on 2 fresh seeds: 1 2\n" in text
    assert (config.seed, config.seeds.data, config.fusion.learning_rate) == (1, 0, 0.003)
    other = load_config(folder / "best.yaml", ["seed=2"])
    state = read_sweep(layout.confirmation(1))
    configs = [trial.candidate.config(state.sweep.base) for trial in state.trials.values()]
    assert config in configs
    assert other in configs
    assert call("best", "toy", "--export", "best.yaml")[0] == 0  # it replaces its own
    code, *_ = call("best", "toy", "--trial", "1", "--top", "3", "--export", "second.yaml")
    assert load_config(folder / "second.yaml").fusion.learning_rate == 0.002


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A store in which the chosen configuration was trained with both seeds; the stages by seed,
    and the test scores by seed."""
    root = tmp_path_factory.mktemp("trained")
    store, stages, scores = Store(root), {}, {}
    for seed in SEEDS:
        values = {NAME: 0.003}
        config = Candidate(values=values, seed=seed).config(SweepConfig.model_validate(TREE).base)
        made = run_chain(config, store)
        stages[seed] = {name: StageRecord(one.key, "trained", 1.0) for name, one in made.items()}
        scores[seed] = score_split(made["data"].table, made["fusion"].table, "test")
    return root, stages, scores


def audit():
    """The audit in the report on the sweep, line by line."""
    subject = Subject.read("magtkd-results", "toy")
    *_, table = confirmation_section(subject.confirmation, subject.store).blocks
    return {words: figure for words, figure, _ in table.rows}


def test_test_is_revealed_of_all_seeds_together(call, refused, write_sweep, folder, trained):
    root, stages, scores = trained
    layout = write_sweep()
    write_confirmation(layout, keys=stages)
    (folder / "magtkd-results/artifacts").rmdir()
    (folder / "magtkd-results/artifacts").symlink_to(root / "artifacts")
    message = refused("best", "toy", "--trial", "1", "--reveal-test")
    assert message.startswith(
        "--trial 1: test is revealed of the confirmed choice, which is that of"
    )
    assert call("best", "toy", "--json")[1].count('"test": null') == 2
    assert audit() == {
        "dev in the sweep, by which it was found": "62.50",
        "dev, mean on fresh seeds": "62.50",
    }
    code, out, _ = call("best", "toy", "--reveal-test", "--json")
    assert code == 0
    means = [100 * scores[seed].weighted_f1 for seed in SEEDS]
    # Here all configurations have the same artifacts, so the best on test is no better.
    honest, luckiest = f"{statistics.fmean(means):.2f}", f"{max(means):.2f}"
    assert list(audit().values())[2:] == [honest, luckiest, honest]
    found = json.loads(out)
    assert found["test"] is None  # the sweep's trial, with its one seed, stays sealed
    for name in OVERALL:
        values = [getattr(scores[seed], name) for seed in SEEDS]
        expected = {"mean": statistics.fmean(values), "deviation": statistics.stdev(values)}
        assert found["confirmed"]["test"][name] == pytest.approx(expected)
    place = layout.confirmation(1)
    revealed = [event for event in read_events(place.ledger) if isinstance(event, TestRevealed)]
    assert [event.test for event in revealed] == [scores[seed] for seed in SEEDS]
    assert not any(isinstance(event, TestRevealed) for event in read_events(layout.ledger))
    before = place.ledger.read_bytes()
    code, out, _ = call("best", "toy", "--reveal-test")
    assert "revealed, over the same seeds: test accuracy " in out
    assert place.ledger.read_bytes() == before


def test_where_one_seed_s_artifact_is_gone_nothing_is_revealed(call, write_sweep):
    layout = write_sweep()
    keys = {
        seed: {s: StageRecord("gone", "trained", 1.0) for s in ("data", "fusion")} for seed in SEEDS
    }
    write_confirmation(layout, keys=keys)
    before = layout.confirmation(1).ledger.read_bytes()
    code, _, err = call("best", "toy", "--reveal-test")
    assert (code, "there is no such artifact" in err) == (1, True)
    assert layout.confirmation(1).ledger.read_bytes() == before


def test_all_failed_is_said_and_is_no_success(call, write_sweep):
    layout = write_sweep()
    write_confirmation(layout, is_over=False)
    why = "diverged with seed 1: fusion: diverged"
    out_of_it = [Standing(trial=trial, is_out=True, failed=why) for trial in (1, 2, 0)]
    with open_ledger(layout.confirmation(1), resume=True) as ledger:
        ledger.append(RoundDecided(num_seeds=2, standings=out_of_it, is_last=True))
    code, out, _ = call("confirm", "toy")
    assert code == 1
    assert "nothing is chosen: each configuration failed with a seed" in out
    assert out.count(f"failed: {why}") == 3
    found = json.loads(call("confirm", "toy", "--json")[1])
    assert (found["chosen"], found["is_over"]) == (None, True)
    assert call("best", "toy")[1].splitlines()[1].split()[0] == "1"


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (
            RoundDecided(num_seeds=2, standings=[]),
            r"a round was decided of trials \[\], and the race",
        ),
        (
            RoundDecided(num_seeds=2, standings=[Standing(trial=9)]),
            r"trials \[9\], and the race is",
        ),
        (
            TrialSuggested(trial=6, values={NAME: 9.0}, seed=1),
            "no configuration of it has the values",
        ),
    ],
)
def test_a_ledger_that_does_not_fit_its_race_is_refused(write_sweep, event, message):
    layout = write_sweep()
    write_confirmation(layout, is_over=False)
    with open_ledger(layout.confirmation(1), resume=True) as ledger:
        ledger.append(event)
    with pytest.raises(SweepError, match=f"{message}.*; restore the ledger from a copy"):
        read_sweep(layout.confirmation(1))


def test_the_state_names_trials_by_the_sweep_s(write_sweep):
    layout = write_sweep()
    write_confirmation(layout)
    state = fold(read_events(layout.confirmation(1).ledger))
    assert state.title(state.trials[4]) == "trial 2 with seed 2"
    assert read_sweep(layout).title(read_sweep(layout).trials[2]) == "trial 2"
