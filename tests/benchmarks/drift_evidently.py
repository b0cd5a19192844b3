"""Run by bench_drift.py with an interpreter that has Evidently: its four metrics on columns of two windows.

Arguments: a folder with ``<column>_before.npy`` and ``<column>_now.npy`` of both columns, and rounds. The last line is
JSON: the seconds and processor seconds of each round, the peak memory, and the figures by column and method.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from evidently import DataDefinition, Dataset, Report
from evidently.metrics import ValueDrift

COLUMNS = ("output", "input")
METHODS = ("ks", "psi", "jensenshannon", "wasserstein")


def _dataset(folder: Path, column: str, side: str) -> Dataset:
    frame = pd.DataFrame({column: np.load(folder / f"{column}_{side}.npy")})
    return Dataset.from_pandas(frame, data_definition=DataDefinition(numerical_columns=[column]))


def main() -> None:
    """Load, run and print."""
    folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
    pairs = {column: tuple(_dataset(folder, column, side) for side in ("now", "before")) for column in COLUMNS}
    seconds, processor, values = [], [], {}
    for _ in range(rounds):
        begun, used = time.perf_counter(), time.process_time()
        for column, (current, reference) in pairs.items():
            report = Report([ValueDrift(column=column, method=method) for method in METHODS])
            values[column] = [metric["value"] for metric in report.run(current, reference).dict()["metrics"]]
        seconds.append(time.perf_counter() - begun)
        processor.append(time.process_time() - used)
    figures = {column: dict(zip(METHODS, map(float, found), strict=True)) for column, found in values.items()}
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "processor_s": processor, "peak_mb": peak_mb, "figures": figures}))


if __name__ == "__main__":
    main()
