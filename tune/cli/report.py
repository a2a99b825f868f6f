"""`magtkd report`: look at a sweep instead of reading about it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from magtkd.cli import StorageOption, examples, write_text
from magtkd.errors import StorageLostError, SweepError, TrackingError
from magtkd.store import patience_of
from tune.cli.options import PATIENCE_SECONDS, NoTrackingOption
from tune.ledger import SweepLayout, first_event, pull_ledger
from tune.redact import redact

__all__ = ["add_report"]


def add_report(app: typer.Typer) -> None:
    """Add `report` to a command line."""
    shown = examples(
        "magtkd report mosi",
        "magtkd report mosi --figures figures",
        "magtkd report mosi --watch",
        "magtkd report mosi_tpe mosi_random --out compared.html",
    )
    app.command("report", epilog=shown)(patience_of(PATIENCE_SECONDS)(report))


def report(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The sweeps' names.")],
    storage: StorageOption = "magtkd-results",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The page; default report-NAME.html here."),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write each figure there as PDF and SVG, too."),
    ] = None,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Serve the page on the loopback address, and keep it new."),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="With --watch; 0 for any.")
    ] = 8750,
    no_tracking: NoTrackingOption = False,
) -> None:
    """Draw a sweep, running or ended, as one HTML page that needs no network and no server.

    Several sweeps are compared first.
    """
    from tune.report import check_output, make_parts, page_of, write_all_figures

    if watch:
        if out is not None or figures is not None:
            raise SweepError(
                "--watch: serves the page and writes nothing; leave out --out, --figures"
            )
        _watch(names, storage, port)
        return
    path = out or Path(f"report-{'-'.join(names)[:100]}.html")
    check_output(path)
    parts = make_parts(storage, names)
    page = page_of(parts)
    write_text(path, page)
    print(f"{path}: {len(page.encode()) / 1e6:.1f} MB; open it in a browser")
    if figures is not None:
        written = write_all_figures(parts, figures)
        print(f"{figures}: {len(written)} files")
    if len(names) == 1 and not no_tracking:
        _send_to_mlflow(SweepLayout.of(storage, names[0]), page)


def _send_to_mlflow(layout: SweepLayout, page: str) -> None:
    """As `report.html` with the sweep's run, where the sweep is recorded in MLflow."""
    opened = first_event(layout.ledger)
    if opened is None or not opened.tracked:
        return
    from tune.tracking import attach

    def note(line: str) -> None:
        print(f"magtkd: {line}", file=sys.stderr)

    try:
        attach(layout, layout.tracking_uri, "report.html", page, note)
    except (StorageLostError, TrackingError) as error:
        note(f"not sent to MLflow: {error}")
    else:
        print(f"MLflow: {redact(layout.tracking_uri)}: report.html of the sweep's run")


def _watch(names: list[str], storage: str, port: int) -> None:
    from tune.report import ADDRESS, Pages, make_parts, make_server, page_of

    layouts = [SweepLayout.of(storage, name) for name in names]

    def make(version: str) -> str:
        return page_of(make_parts(storage, names), version)

    def refresh() -> None:
        for layout in layouts:
            pull_ledger(layout)

    pages = Pages([layout.ledger for layout in layouts], make, refresh)
    pages.page()  # what is wrong with the names is said before anything is served
    server = make_server(pages, port)
    print(f"http://{ADDRESS}:{server.server_port}/   (Ctrl-C ends it)", flush=True)
    with server:
        server.serve_forever()
