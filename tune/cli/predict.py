"""`magtkd predict`: emotions of new conversations, by a configuration or by a sweep's choice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from rich.console import Console
from rich.table import Table

from magtkd.cli import StorageOption, examples, warn
from magtkd.config import load_config
from magtkd.data import read_parquet
from magtkd.errors import StorageError, SweepError
from magtkd.prediction import Predictor
from magtkd.store import Store
from tune.ledger import SweepLayout, read_sweep
from tune.results import best, choose, find_confirmation, trained_chain

__all__ = ["add_predict"]

NUM_SHOWN = 20


def add_predict(app: typer.Typer) -> None:
    """Add `predict` to a command line."""
    shown = examples(
        "magtkd predict best.yaml calls.parquet --out predictions.parquet",
        "magtkd predict mosi calls.parquet --storage results",
    )
    app.command("predict", epilog=shown)(predict)


def predict(
    chain: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|SWEEP", help="A configuration that was trained, or a sweep's name."
        ),
    ],
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="Parquet; needs no labels.")],
    storage: StorageOption = "magtkd-results",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Parquet or CSV.")] = None,
    number: Annotated[
        int | None, typer.Option("--trial", min=0, metavar="N", help="Another trial of the sweep.")
    ] = None,
    media: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="What the clips' paths are relative to.")
    ] = None,
) -> None:
    """Predict the emotions of new conversations, with their probabilities.

    Of a sweep, the confirmed choice predicts, else the best trial on dev, or the one of --trial.
    """
    kind = (".parquet", ".csv")
    if out is not None and out.suffix not in kind:
        raise SweepError(f"--out {out}: end it with {' or '.join(kind)}")
    predictor = _predictor(chain, storage, number)
    found = predictor.predict(read_parquet(table), str(table), media or table.parent)
    if out is not None:
        _write(found, out)
        print(f"{out}: {found.num_rows} utterances, {len(predictor.labels)} emotions")
        return
    shown = Table(box=None, pad_edge=False)
    for name in ("dialogue_id", "utterance_id", "speaker", "emotion", "probability"):
        is_number = name in {"utterance_id", "probability"}
        shown.add_column(name, justify="right" if is_number else "left")
    for row in found.slice(0, NUM_SHOWN).to_pylist():
        values = (row[name] for name in ("dialogue_id", "utterance_id", "speaker", "emotion"))
        shown.add_row(*map(str, values), f"{row['probability']:.3f}")
    Console().print(shown)
    if found.num_rows > NUM_SHOWN:
        rest = found.num_rows - NUM_SHOWN
        print(f"and {rest} more; all with --out FILE", file=sys.stderr)


def _predictor(chain: str, storage: str, number: int | None) -> Predictor:
    store = Store(storage)
    if Path(chain).suffix in {".yaml", ".yml"}:
        if number is not None:
            raise SweepError(f"--trial {number}: is for a sweep, and {chain} is a configuration")
        return Predictor(load_config(chain), store, warn=warn)
    layout = SweepLayout.of(storage, chain)
    state = read_sweep(layout)
    rows = best(state, None if number is None else len(state.trials))
    confirmed = find_confirmation(layout, state)
    if number is None and confirmed is not None:
        chosen, why = confirmed.chosen, ", the confirmed choice,"
    else:
        chosen, why = choose(state, rows, number), ""
    print(f"sweep {chain!r}: trial {chosen}{why} predicts", file=sys.stderr)
    return trained_chain(state, chosen, store, warn)


def _write(found: pa.Table, out: Path) -> None:
    try:
        if out.suffix == ".csv":
            import pyarrow.csv as pa_csv

            pa_csv.write_csv(found, out)
        else:
            pq.write_table(found, out)
    except OSError as error:
        raise StorageError(f"{out}: cannot write: {error.strerror}") from None
