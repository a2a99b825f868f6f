"""The whole command line: the search's commands, and those of the core trainer."""

from __future__ import annotations

import sys

from magtkd.cli import add_import, add_train, data_app, make_config_app, new_app, run_app
from tune.cli.confirm import add_confirm
from tune.cli.doctor import add_doctor
from tune.cli.predict import add_predict
from tune.cli.report import add_report
from tune.cli.results import add_results
from tune.cli.slurm import add_slurm
from tune.cli.storage import add_storage
from tune.cli.sweep import add_sweep
from tune.cli.table import add_table
from tune.config import SweepConfig, TableSpec

__all__ = ["app", "main"]

app = new_app()
# In the order in which the help lists them.
add_sweep(app)
add_slurm(app)
add_train(app)
add_confirm(app)
add_table(app)
add_results(app)
add_report(app)
add_predict(app)
add_storage(app)
add_doctor(app)
add_import(app)
app.add_typer(data_app, name="data")
app.add_typer(make_config_app(SweepConfig, TableSpec), name="config")


def main() -> None:
    """The console script."""
    sys.exit(run_app(app))
