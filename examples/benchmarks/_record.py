"""Time a function, and write a benchmark's table as CSV with the versions and the processor."""

import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"


def clock(function, repeats=1):
    """Return the result of the last call and the median of the seconds."""
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


def heading(command, packages, where):
    """Return comment lines with the command, the versions and the hardware of a table."""
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            versions.append(f"{package} absent")
    return [
        f"# {command}",
        f"# python {platform.python_version()}, {', '.join(versions)}",
        f"# {where}",
    ]


def record(table, name, *, command, packages=("numpy", "scipy", "scikit-learn")):
    """Write the table to results/<name>.csv, below comment lines that say how it was made.

    Read it back with ``pandas.read_csv(path, comment="#")``.
    """
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    head = heading(command, ("sklearn-skmm", *packages), processor())
    path.write_text("\n".join(head) + "\n" + table.to_csv(index=False))
    return path
