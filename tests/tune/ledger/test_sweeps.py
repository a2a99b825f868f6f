"""Sweeps by their names, and the ones beside them."""

from __future__ import annotations

import os
from pathlib import Path

from tune.ledger import SweepLayout, SweepOpened, open_ledger, sweeps_on


def test_the_latest_sweeps_on_the_same_table(tmp_path: Path) -> None:
    for time, (name, fingerprint) in enumerate(
        [("one", "a"), ("two", "a"), ("other", "b"), ("three", "a"), ("damaged", "a")]
    ):
        layout = SweepLayout(tmp_path, name)
        with open_ledger(layout) as ledger:
            ledger.append(SweepOpened(name=name, config={}, fingerprint=fingerprint))
        if name == "damaged":
            layout.ledger.write_bytes(layout.ledger.read_bytes() + b"{}\n{}\n")
        os.utime(layout.ledger, (time, time))
    new = SweepLayout(tmp_path, "new")
    assert [state.name for state in sweeps_on(new, "a", 9)] == ["three", "two", "one"]
    assert [state.name for state in sweeps_on(new, "a", 2)] == ["three"]
    assert sweeps_on(new, "c", 9) == []
    assert sweeps_on(SweepLayout(tmp_path / "nowhere", "new"), "a", 9) == []
