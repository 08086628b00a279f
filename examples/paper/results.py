"""Table of results that an interrupted run can resume from."""

import csv
import os
import sys
from pathlib import Path

import torch

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
import _record

KEY = ("task", "method", "n", "seed")
# Rows of a task are comparable if these agree. `inputs` is a digest of weights, images and labels.
SETTINGS = ("model", "inputs", "m", "target", "epochs")
METRICS = ("accuracy", "macro_f1", "mae", "select_seconds", "train_seconds")
COLUMNS = (*KEY, *SETTINGS, *METRICS)
PACKAGES = ("sklearn-skmm", "numpy", "scipy", "scikit-learn", "torch", "transformers", "pillow")


def heading(device):
    """Return comment lines with the command, the versions and the hardware."""
    where = _record.processor()
    if torch.device(device).type == "cuda":
        where = f"{torch.cuda.get_device_name(device)}, {where}"
    return _record.heading("python examples/paper/run.py", PACKAGES, where)


class Table:
    """Finished rows in a CSV file; read it with ``pandas.read_csv(path, comment="#")``.

    Only one process may write to a file at a time.
    """

    def __init__(self, path, head):
        self.path, self.head, self.rows = Path(path), head, []
        if not self.path.exists():
            return
        lines = self.path.read_text(encoding="utf-8").splitlines()
        found = [line for line in lines if line.startswith("#")]
        if found != head:
            raise SystemExit(
                f"{path} was made with\n"
                + "\n".join(found)
                + "\nbut this run uses\n"
                + "\n".join(head)
                + "\nThese rows cannot be in one table: pass another --out."
            )
        reader = csv.DictReader(lines[len(found) :])
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise SystemExit(f"{path} is no table of these experiments: pass another --out.")
        self.rows = list(reader)

    def check(self, task, settings):
        """Raise SystemExit if rows of this task were made with other settings."""
        wanted = _as_text(settings)
        for row in self.rows:
            other = [name for name in SETTINGS if row[name] != wanted[name]]
            if row["task"] == task and other:
                had = ", ".join(f"{name}={row[name]}" for name in other)
                now = ", ".join(f"{name}={wanted[name]}" for name in other)
                raise SystemExit(
                    f"{self.path} has rows of {task} with {had}, not {now}. Pass another --out."
                )

    def finished(self, *key):
        """Return whether there is a row of this task, method, n and seed."""
        return any(tuple(row[name] for name in KEY) == tuple(map(str, key)) for row in self.rows)

    def append(self, row):
        """Add a row atomically: a killed process never leaves part of a row in the file."""
        self.rows.append(_as_text(row))
        partial = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            with partial.open("w", encoding="utf-8", newline="") as file:
                file.write("".join(f"{line}\n" for line in self.head))
                writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
                writer.writeheader()
                writer.writerows(self.rows)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.path)
        finally:
            partial.unlink(missing_ok=True)


def _as_text(row):
    return {k: f"{v:.6g}" if isinstance(v, float) else str(v) for k, v in row.items()}
