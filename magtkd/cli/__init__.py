"""The command line of the core trainer: `train`, `import`, `data`, `config`.

The functions here only read arguments and print; what they call can be called from a notebook.
"""

from magtkd.cli.app import EXIT_CODES, complain, examples, new_app, run_app, warn, write_text
from magtkd.cli.config import make_config_app
from magtkd.cli.data import data_app
from magtkd.cli.import_weights import add_import
from magtkd.cli.options import JsonOption, Overrides, StorageOption
from magtkd.cli.train import add_train

__all__ = [
    "EXIT_CODES",
    "JsonOption",
    "Overrides",
    "StorageOption",
    "add_import",
    "add_train",
    "app",
    "complain",
    "data_app",
    "examples",
    "make_config_app",
    "new_app",
    "run_app",
    "warn",
    "write_text",
]

app = new_app()
add_train(app)
add_import(app)
app.add_typer(data_app, name="data")
app.add_typer(make_config_app(), name="config")
