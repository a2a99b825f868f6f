"""One training of experiments/meld.yaml on MELD, text only, with a small transformer that is made
on the spot: how long it takes, and the number it gives.

    python benchmarks/meld.py --data MELD_FOLDER
    python benchmarks/meld.py --data MELD_FOLDER --epochs 1
"""

from __future__ import annotations

import json
import time
from typing import Any

import common

from magtkd.data import read_metadata
from magtkd.scoring import score_split
from magtkd.store import Store


def test_scores(storage: str, stages: dict[str, str]) -> dict[str, Any]:
    """Scores of test, and the accuracy of train's most frequent label there."""
    store = Store(storage)
    data = store.read("data", stages["data"]).table
    fusion = store.read("fusion", stages["fusion"], weights=False).table
    split, label = data["split"].to_numpy(), data["label"].to_numpy()
    is_test = split == "test"
    names = read_metadata(data).labels
    scores = score_split(data, fusion, "test").to_json()
    counts = [int((label[split == "train"] == index).sum()) for index in range(len(names))]
    majority = float((label[is_test] == counts.index(max(counts))).mean())
    return {"test": scores, "majority_accuracy": majority}


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", required=True, help="the folder of MELD's three CSV files")
    parser.add_argument("--epochs", type=int, help="of teacher and fusion, to shrink it")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine()}
    shrink = [f"{stage}.epochs={options.epochs}" for stage in ("teacher", "fusion")]
    with common.scratch() as storage:
        started = time.perf_counter()
        answer = common.command_line(
            "train",
            str(common.EXPERIMENTS / "meld.yaml"),
            f"data.path={options.data}",
            *(shrink if options.epochs else []),
            *("--storage", str(storage), "--json"),
        )
        result["seconds"] = time.perf_counter() - started
        result |= json.loads(answer)
        result |= test_scores(str(storage), result["stages"])
        result["seconds_of_stages"] = {
            stage: Store(storage).read_metrics(stage, key)["seconds"]
            for stage, key in result["stages"].items()
        }
    rows: list[list[Any]] = [["wall time", f"{result['seconds']:.0f} s"]]
    rows += [[f"{stage}", f"{s:.0f} s"] for stage, s in result["seconds_of_stages"].items()]
    rows += [
        [f"{split} {name}", f"{100 * result[split][name]:.1f}"]
        for split in ("dev", "test")
        for name in ("accuracy", "weighted_f1")
    ]
    majority = f"{100 * result['majority_accuracy']:.1f}"
    rows.append(["test accuracy of the majority class", majority])
    common.publish("MELD, tiny teacher, text only", result, ["", ""], rows, options.out)


if __name__ == "__main__":
    main()
