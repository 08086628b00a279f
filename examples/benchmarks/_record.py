"""Time a function; write a benchmark's table as CSV, headed by what it ran on."""

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"


def clock(function, repeats=1):
    """Return the last result and the median seconds."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return result, float(np.median(seconds))


def processor():
    """Return the processor's model name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def record(table, name, *, command, packages=("numpy", "scipy", "scikit-learn")):
    """Write the table to results/<name>.csv under comment lines that say how it was made.

    Read it back with ``pandas.read_csv(path, comment="#")``.
    """
    versions = []
    for package in ("sklearn-skmm", *packages):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} absent")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    head = [
        f"# {command}",
        f"# python {platform.python_version()}, {', '.join(versions)}",
        f"# {processor()}",
    ]
    path.write_text("\n".join(head) + "\n" + table.to_csv(index=False))
    return path
