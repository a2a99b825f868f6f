"""`magtkd data`: inspect conversations, convert a release, generate synthetic ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from magtkd.cli.app import examples
from magtkd.cli.options import JsonOption, Overrides
from magtkd.config import SyntheticConfig, load_config
from magtkd.data import make_synthetic, read_path, write_parquet
from magtkd.data.describe import describe, render
from magtkd.data.formats.conversion import MISSING, UNLABELLED, Options
from magtkd.data.formats.convert import FORMATS, convert
from magtkd.data.formats.feature_pickles import TEXT_CHOICES
from magtkd.data.formats.labels import ORDERS

__all__ = ["data_app"]

data_app = typer.Typer(
    no_args_is_help=True,
    help="Inspect conversations, convert a release, or generate synthetic ones.",
    epilog=examples("magtkd data inspect meld.parquet"),
)
OutOption = Annotated[Path, typer.Option("--out", metavar="FILE", help="Parquet file to write.")]


@data_app.command("inspect", epilog=examples("magtkd data inspect meld.parquet"))
def inspect_data(
    path: Annotated[
        Path, typer.Argument(help="Parquet file, folder of these, or of MELD's CSV files.")
    ],
    as_json: JsonOption = False,
) -> None:
    """Check a table and show its counts, lengths, widths and warnings."""
    corpus = read_path(path)
    _print(describe(corpus) if as_json else None, render(corpus))


@data_app.command(
    "convert",
    epilog=examples(
        "magtkd data convert MELD.Raw --out meld.parquet --on-missing keep",
        "magtkd data convert MELD_features_raw1.pkl --out meld_features.parquet",
    ),
)
def convert_data(
    source: Annotated[Path, typer.Argument(help="Folder or file of the release.")],
    out: OutOption,
    format: Annotated[
        str | None,
        typer.Option("--format", help=f"{', '.join(FORMATS)}; by default recognised by content."),
    ] = None,
    on_missing: Annotated[
        str,
        typer.Option(
            "--on-missing",
            metavar="|".join(MISSING),
            help="Utterances whose file is missing: stop, drop them, or keep them without a path.",
        ),
    ] = "error",
    text: Annotated[
        str | None,
        typer.Option(
            "--text", metavar="|".join(TEXT_CHOICES), help="Which of a pickle's four text features."
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            "--labels",
            metavar=f"{'|'.join(ORDERS)}|NAME,...",
            help="Names of numbered labels, in order; by default their numbers.",
        ),
    ] = None,
    classes: Annotated[
        int, typer.Option("--classes", help="IEMOCAP's number of classes: 6 or 4.")
    ] = 6,
    distilled: Annotated[
        bool, typer.Option(help="The first stage's students with distillation, or those without.")
    ] = True,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            "--unlabelled",
            metavar="|".join(UNLABELLED),
            help="Utterances without a label, or with one that is not used: drop them, or keep "
            "them as context. By default the former are kept, the latter dropped.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a public release and write it as one Parquet file."""
    options = Options(on_missing, text, labels, classes, distilled, unlabelled)
    summary = convert(source, out, options, format)
    _print(summary.facts() if as_json else None, summary.render())


@data_app.command(
    "synth",
    epilog=examples("magtkd data synth --out toy.parquet num_dialogues=200 audio_signal=0.5"),
)
def synthesise_data(out: OutOption, overrides: Overrides = None) -> None:
    """Write synthetic conversations to a Parquet file."""
    settings = load_synthetic(overrides or [])
    table = make_synthetic(settings)
    write_parquet(table, out)
    print(f"{out}: {table.num_rows} utterances of {settings.num_dialogues} conversations")


def load_synthetic(overrides: list[str]) -> SyntheticConfig:
    """The synthetic corpus's settings from `key=value` overrides."""
    config = load_config(None, [f"data.synthetic.{override}" for override in overrides])
    return config.data.synthetic or SyntheticConfig()


def _print(facts: dict[str, Any] | None, shown: Any) -> None:
    if facts is None:
        Console().print(shown)
    else:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
