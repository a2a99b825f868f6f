"""From a sweep of CMU-MOSI to the table of a paper, by the command line: the sweep, its
confirmation, and the table of its choice, of what is left out of it, and of other models.

    python benchmarks/paper.py --data mosi.parquet --table table.tex
    python benchmarks/paper.py --data mosi.parquet --trials 8 --seeds 3
"""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import common
import yaml

from tune.ledger import SweepLayout, SweepState, read_sweep

TARGET_SECONDS = 900
SPEC = common.EXPERIMENTS / "paper_mosi.yaml"


def write_spec(path: Path) -> None:
    """The table of the experiment, with the sweep's confirmed choice as its reference."""
    tree = yaml.safe_load(SPEC.read_text(encoding="utf-8"))
    for row in tree["rows"]:
        if row["name"] == tree["reference"]:
            del row["config"]
            row["sweep"] = "mosi"
        elif "config" in row:
            row["config"] = str(SPEC.parent / row["config"])
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")


def count(state: SweepState) -> dict[str, int]:
    """How many stages were trained and reused, over all trials."""
    outcomes = [
        str(one.outcome) for trial in state.trials.values() for one in trial.stages.values()
    ]
    found = {name: outcomes.count(name) for name in ("trained", "reused")}
    return {"trials": len(state.trials), **found}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", required=True, help="MOSI as Parquet")
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5, help="of the table, and of a confirmation")
    parser.add_argument("--table", type=Path, metavar="FILE", help="write table.tex here as well")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine()}
    seconds: dict[str, float] = {}

    def call(*words: str) -> str:
        started = time.perf_counter()
        printed = common.command_line(*words, "--storage", str(storage))
        seconds[words[0]] = time.perf_counter() - started
        return printed

    with common.scratch() as folder:
        storage, spec = folder / "storage", folder / "paper.yaml"
        write_spec(spec)
        data, sweep_file = options.data, str(common.EXPERIMENTS / "mosi_sweep.yaml")
        call("sweep", sweep_file, f"data.path={data}", f"search.num_trials={options.trials}")
        confirmed = json.loads(call("confirm", "mosi", "--seeds", str(options.seeds), "--json"))
        overrides = (f"data.MOSI.path={Path(data).resolve()}", f"seeds={options.seeds}")
        table = json.loads(call("table", str(spec), *overrides, "--json"))
        layout = SweepLayout.of(str(storage), "mosi")
        layouts = {
            "sweep": layout,
            "confirm": layout.confirmation(1),
            "table": SweepLayout.of(str(storage), "paper-mosi-MOSI"),
        }
        result["work"] = {name: count(read_sweep(one)) for name, one in layouts.items()}
        if options.table is not None:
            shutil.copyfile(storage / "tables" / "paper-mosi" / "table.tex", options.table)
    result |= {
        "seconds": seconds,
        "target_seconds": TARGET_SECONDS,
        "confirmation": confirmed,
        "table": table,
    }
    publish(result, options.out)


def publish(result: dict[str, Any], out: Path | None) -> None:
    confirmed, table = result["confirmation"], result["table"]
    chosen = next(row for row in confirmed["configurations"] if row["trial"] == confirmed["chosen"])
    most = len(confirmed["configurations"]) * len(confirmed["seeds"])
    given = result["work"]["confirm"]["trials"]
    whole = sum(result["seconds"].values())
    rows: list[list[Any]] = [
        [f"wall time of all three (under {TARGET_SECONDS} s)", f"{whole:.0f} s"],
        *([f"wall time of {name}", f"{one:.0f} s"] for name, one in result["seconds"].items()),
        *(
            [
                f"{name}: trials; stages trained, reused",
                f"{one['trials']}; {one['trained']}, {one['reused']}",
            ]
            for name, one in result["work"].items()
        ),
        [
            f"optimism of the chosen trial on {confirmed['metric']}",
            f"{100 * chosen['optimism']:+.2f}",
        ],
        [f"trainings that racing spared, of {most}", most - given],
        *(
            [f"test {cell['metric']} of {cell['row']}", f"{100 * cell['mean']:.2f}"]
            for cell in table["cells"]
            if cell["metric"] == "weighted_f1"
        ),
        *([note, ""] for note in table["notes"]),
    ]
    common.publish("From a sweep to a paper's table", result, ["", ""], rows, out)


if __name__ == "__main__":
    main()
