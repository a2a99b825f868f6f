"""The sweep of experiments/mosi_sweep.yaml on CMU-MOSI by the command line, and the test metrics of
the trial that dev selected.

    python benchmarks/mosi.py --data mosi.parquet
    python benchmarks/mosi.py --data mosi.parquet --trials 4
"""

from __future__ import annotations

import json
import time
from typing import Any

import common
import pyarrow.compute as pc
import pyarrow.parquet as pq

TARGET_SECONDS = 600
# Poria et al., Context-Dependent Sentiment Analysis in User-Generated Videos, ACL 2017: accuracy of
# bc-LSTM on the 31 videos of the published test split. Here 10 of these are dev.
PUBLISHED = {"text": 78.1, "audio": 60.3, "video": 55.8, "text + audio + video": 80.3}


def majority(data: str) -> float:
    """Percent of test that has the most frequent label of train."""
    table = pq.read_table(data, columns=["split", "label"])
    train = table.filter(pc.equal(table["split"], "train"))["label"]
    test = table.filter(pc.equal(table["split"], "test"))["label"]
    most = pc.mode(train.dictionary_encode().combine_chunks().indices)[0]["mode"]
    label = train.dictionary_encode().combine_chunks().dictionary[most.as_py()]
    return 100 * float(pc.mean(pc.equal(test, label)).as_py())


def main() -> None:
    parser = common.arguments(__doc__)
    parser.add_argument("--data", required=True, help="MOSI as Parquet")
    parser.add_argument("--trials", type=int, default=40)
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": common.machine(), "trials": options.trials}
    with common.scratch() as storage:
        where = ["--storage", str(storage)]
        started = time.perf_counter()
        common.command_line(
            "sweep",
            str(common.EXPERIMENTS / "mosi_sweep.yaml"),
            f"data.path={options.data}",
            f"search.num_trials={options.trials}",
            *where,
        )
        result["seconds"] = time.perf_counter() - started
        best = json.loads(common.command_line("best", "mosi", "--json", "--reveal-test", *where))
        trials = json.loads(common.command_line("trials", "mosi", "--format", "json", *where))
    result |= {
        "target_seconds": TARGET_SECONDS,
        "states": {s: [t["state"] for t in trials].count(s) for s in {t["state"] for t in trials}},
        "selected": best,
        "majority_accuracy": majority(options.data),
        "published_accuracy": PUBLISHED,
    }
    publish(result, options.out)


def publish(result: dict[str, Any], out: Any) -> None:
    best, trials = result["selected"], result["trials"]
    rows: list[list[Any]] = [
        [f"wall time of {trials} trials (under {TARGET_SECONDS} s)", f"{result['seconds']:.0f} s"],
        *([f"selected: {name}", value] for name, value in best["values"].items()),
        *(
            [f"{split} {name} of trial {best['trial']}", f"{100 * best[split][name]:.1f}"]
            for split in ("dev", "test")
            for name in ("accuracy", "weighted_f1")
        ),
        ["test accuracy of the majority class", f"{result['majority_accuracy']:.1f}"],
        *(
            [f"published test accuracy, bc-LSTM, {name} (31 videos)", f"{value:.1f}"]
            for name, value in PUBLISHED.items()
        ),
    ]
    common.publish("MOSI", result, ["", ""], rows, out)


if __name__ == "__main__":
    main()
