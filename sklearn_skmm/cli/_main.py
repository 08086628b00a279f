"""The command line: reads a pool from a file, and writes the selected positions and weights."""

import argparse
import csv
import importlib.util
import io
import json
import math
import os
import sys
from contextlib import redirect_stdout, suppress
from typing import Any

import numpy as np
from scipy import sparse

import sklearn_skmm
from sklearn_skmm import diagnostics
from sklearn_skmm.cli._output import PROG, CommandError, StagedFiles, check_output_path
from sklearn_skmm.core._blocks import mean_squared_norm
from sklearn_skmm.core._criteria import bandwidth_of, coverage, sampled_rows, squared_mmd
from sklearn_skmm.core._moments import spectrum
from sklearn_skmm.data import SamplesFile, open_samples
from sklearn_skmm.data._files import (
    FILE_SUFFIXES,
    TABLE_SUFFIXES,
    one_line,
    quoted,
    read_positions,
    suffix,
)
from sklearn_skmm.data._weights import read_selected
from sklearn_skmm.plots._file import save_coreset_plot

SELECTORS = {
    "skmm": sklearn_skmm.SkMMSelector,
    "uniform": sklearn_skmm.UniformSelector,
    "k-means": sklearn_skmm.KMeansSelector,
    "facility-location": sklearn_skmm.FacilityLocationSelector,
    "v-optimal": sklearn_skmm.VOptimalSelector,
    "k-center": sklearn_skmm.KCenterSelector,
    "herding": sklearn_skmm.HerdingSelector,
    "adaptive": sklearn_skmm.AdaptiveSelector,
    "ridge-leverage": sklearn_skmm.RidgeLeverageSelector,
    "truncated-leverage": sklearn_skmm.TruncatedLeverageSelector,
}
# Those that select in an order that means something; `stratify` sorts by position.
IN_ORDER = ("facility-location", "k-center", "herding", "adaptive")
# Options that only these selectors have.
NEEDS_SELECTOR = {
    "c-S": ("skmm",),
    "budget": ("skmm", "facility-location", "v-optimal"),
    "clusters": ("skmm", "k-means", "facility-location"),
}
PLOT_SUFFIXES = (".png", ".pdf", ".svg")
UNIFORM_REPEATS = 20
# Coverage and MMD are computed on at most this many samples.
COMPARED = 4096
MEASURE_TITLES = {
    "mmd": "MMD (lower is better)",
    "coverage": "coverage (higher)",
    "effective_c_S": "effective c_S (lower)",
    "variance_term": "variance term (lower)",
    "bias_term": "bias term (lower)",
    "v_optimality": "V-optimality (lower)",
}


def _summary(args, pool, features, selector, sketch, given) -> dict[str, Any]:
    """Return diagnostics of the coreset, and their medians and ranges over random samples."""
    shape, wide = pool.X.shape, features.shape[1] > features.shape[0]
    # Coordinates in the span of the rows change no diagnostic, and keep the matrices small.
    if wide:
        features = features @ spectrum(features).eigenvectors
    elif sparse.issparse(features):
        features = features.toarray()
    coordinates = np.asarray(features, dtype=np.float64)
    # The ridge of `BaseSelector.score`, or 1 if all rows are zero.
    alpha = mean_squared_norm(coordinates) / len(coordinates) or 1.0
    compared = coordinates
    if len(compared) > COMPARED:
        compared = coordinates[
            np.random.RandomState([args.seed, 2]).choice(len(compared), COMPARED)
        ]
    bandwidth = bandwidth_of(coordinates[sampled_rows(len(coordinates))])

    def measure(indices):
        return {
            "mmd": squared_mmd(compared, coordinates[indices], bandwidth) ** 0.5,
            "coverage": coverage(compared, coordinates[indices], bandwidth),
            "effective_c_S": diagnostics.effective_c_S(coordinates, indices),
            "variance_term": diagnostics.variance_term(coordinates, indices),
            "bias_term": diagnostics.bias_term(coordinates, indices),
            "v_optimality": diagnostics.v_optimality(coordinates, indices, alpha=alpha),
        }

    n, rng = len(selector.sample_indices_), np.random.RandomState([args.seed, 1])
    uniform = sklearn_skmm.UniformSelector(
        selector.n_to_select if isinstance(selector.n_to_select, dict) else n,
        stratify=selector.stratify,
        random_state=rng,
    )

    def with_given(indices):
        return indices if given is None else np.concatenate([np.flatnonzero(given), indices])

    repeats = [
        measure(with_given(uniform.fit_transform(coordinates, pool.y, selected=given)))
        for _ in range(UNIFORM_REPEATS)
    ]
    return {
        "N": shape[0],
        "columns": shape[1],
        "left_out": list(pool.left_out),
        "m": None if sketch else args.m,
        "sketch": sketch or f"m = {args.m}",
        "n": n,
        "n_selected_before": 0 if given is None else int(given.sum()),
        "weight": args.weight,
        "selector": args.selector,
        "seed": args.seed,
        "intrinsic_dimension": diagnostics.intrinsic_dimension(coordinates),
        "alpha": alpha,
        "picks": measure(with_given(selector.sample_indices_)),
        **{
            key: {name: float(summarise([d[name] for d in repeats])) for name in repeats[0]}
            for key, summarise in (
                ("uniform", np.median),
                ("uniform_min", np.min),
                ("uniform_max", np.max),
            )
        },
    }


def _print_summary(summary) -> None:
    before = summary["n_selected_before"]
    added = f" besides {before} of --selected" if before else ""
    lines = [
        f"pool                 N = {summary['N']}, {summary['columns']} columns",
        f"sketch               {summary['sketch']}",
        f"coreset              n = {summary['n']}{added}, {summary['selector']}, seed "
        f"{summary['seed']}",
        *["the diagnostics below ignore the weights of --weight"] * (summary["weight"] is not None),
        f"intrinsic dimension  {summary['intrinsic_dimension']}",
        f"{'':<29}{'coreset':<12}random sampling, median and range of {UNIFORM_REPEATS} repeats",
    ]
    for name, title in MEASURE_TITLES.items():
        coreset, *uniform = (
            summary[key][name] for key in ("picks", "uniform", "uniform_min", "uniform_max")
        )
        median, low, high = (f"{value:.4g}" for value in uniform)
        lines.append(f"{title:<29}{coreset:<12.4g}{median:<12}{low} to {high}")
    _print_stderr("\n".join(lines))


def _write_and_flush(stream, text) -> None:
    """Write the text and flush the stream."""
    try:
        stream.write(text)
        stream.flush()
    except OSError:
        # Otherwise Python would flush again at exit, fail, print a message and exit with 120.
        with suppress(OSError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), stream.fileno())
        raise


def _print_stderr(text, end="\n") -> None:
    """Write a line to stderr; failures are ignored, because the result does not depend on it."""
    if sys.stderr is not None:
        with suppress(OSError):
            _write_and_flush(sys.stderr, text + end)


def _print_stdout(text) -> None:
    """Write to stdout, or raise an error if that fails."""
    if sys.stdout is None:
        raise CommandError("there is no stdout. Choose a file with --out.")
    try:
        _write_and_flush(sys.stdout, text)
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        pass
    except OSError as error:
        raise CommandError(f"stdout: {one_line(error)}") from None


def _table_bytes(path, columns) -> bytes:
    """Return the content of a file with these columns: ``.npy`` with fields, or otherwise CSV."""
    if suffix(path) != ".npy":
        return _csv(columns).encode()
    kinds = [(name, "<f8" if values.dtype.kind == "f" else "<i8") for name, values in columns]
    table = np.empty(len(columns[0][1]), dtype=kinds)
    for name, values in columns:
        table[name] = values
    # In memory, because NumPy does not notice a full disk when it writes to a file.
    buffer = io.BytesIO()
    np.save(buffer, table)
    return buffer.getvalue()


def _csv(columns) -> str:
    """Return the columns as text; floats keep all of their digits."""
    rows = zip(*(values.tolist() for _, values in columns), strict=True)
    lines = [",".join(name for name, _ in columns), *(",".join(map(repr, row)) for row in rows)]
    return "\n".join(lines) + "\n"


def _read_selected(paths, n_samples):
    """Return a mask of the samples in these files, or None if there are none."""
    mask = np.zeros(n_samples, dtype=bool)
    for path in paths:
        try:
            given = read_selected(read_positions(path), n_samples)
        except OSError as error:
            raise CommandError(f"--selected {path}: {error.strerror or error}") from None
        except ValueError as error:
            raise CommandError(f"--selected {path}: {one_line(error)}") from None
        if given is not None:
            if (mask & given).any():
                position = int(np.argmax(mask & given))
                raise CommandError(
                    f"--selected {path}: position {position} is in another file of --selected, too."
                )
            mask |= given
    return mask if mask.any() else None


def _null_for_infinity(value):
    """Replace infinities, which JSON does not have, by None."""
    if isinstance(value, dict):
        return {key: _null_for_infinity(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _progress_bar():
    from sklearn.callback import ProgressBar

    try:
        return ProgressBar()
    except ImportError:
        raise CommandError("--progress needs rich: pip install rich.") from None


def _run_select(args) -> None:
    to_stdout = args.out in (None, "-")
    inputs = {args.pool: "the pool", **dict.fromkeys(args.selected, "a file of --selected")}
    outputs = (None if to_stdout else args.out, args.summary, args.plot, args.clusters)
    for path in filter(None, outputs):
        check_output_path(path, inputs, force=args.force)
    callbacks = [_progress_bar()] if args.progress else []
    if args.plot and importlib.util.find_spec("matplotlib") is None:
        raise CommandError("--plot needs matplotlib: pip install 'sklearn-skmm[plot]'.")
    pool = open_samples(
        SamplesFile(args.pool, args.key, args.columns, args.stratify, args.weight, args.cost)
    )
    given = _read_selected(args.selected, pool.n_samples)
    if pool.left_out and not args.quiet:
        names = quoted(pool.left_out)
        _print_stderr(f"{PROG}: columns not used ({pool.left_out_as}): {names}")

    features, sketch = pool.X, ""
    if args.m is None:
        sketch = "none (--m none)"
    elif features.shape[1] <= args.m:
        sketch = f"none ({features.shape[1]} columns, m = {args.m})"
    else:
        features = sklearn_skmm.GradientSketcher(args.m, random_state=args.seed).fit_transform(
            features
        )
    n = args.n
    if args.per_class is not None:
        n = dict.fromkeys(np.unique(np.asarray(pool.y)).tolist(), args.per_class)
    selector = SELECTORS[args.selector](n, stratify=pool.y is not None)
    if not selector._reads_values:
        open_samples(features)  # the summary and the plot need numbers
    options = {"random_state": args.seed, "c_S": args.c_S, "budget": args.budget}
    known = selector.get_params()
    selector.set_params(**{k: v for k, v in options.items() if k in known and v is not None})
    # The progress bar is written to stdout, which is reserved for the result.
    selector.set_callbacks(*callbacks)
    with redirect_stdout(sys.stderr):
        optional = {"sample_weight": pool.weight, "selected": given, "cost": pool.cost}
        selector.fit(features, pool.y, **{k: v for k, v in optional.items() if v is not None})

    summary = None
    if args.summary or not args.quiet:
        summary = _summary(args, pool, features, selector, sketch, given)
    indices = selector.sample_indices_
    table = [("index", indices), ("weight", selector.sample_weight_)]
    if args.selector in IN_ORDER and not selector.stratify:
        table.append(("rank", np.arange(1, len(indices) + 1)))
    with StagedFiles(args.force) as staged:
        if not to_stdout:
            with staged.open(args.out) as file:
                file.write(_table_bytes(args.out, table))
        if args.clusters:
            labels = selector.labels_
            represented_by = np.where(labels < 0, -1, indices[labels])
            columns = [("sample", np.arange(len(labels))), ("represented_by", represented_by)]
            with staged.open(args.clusters) as file:
                file.write(_table_bytes(args.clusters, columns))
        if args.summary:
            with staged.open(args.summary) as file:
                file.write((json.dumps(_null_for_infinity(summary), indent=2) + "\n").encode())
        if args.plot:
            with staged.open(args.plot) as file:
                save_coreset_plot(file, suffix(args.plot)[1:], selector, features)
        if to_stdout:  # before publishing: if this fails, no files are written
            _print_stdout(_csv(table))
        staged.publish()
    if summary and not args.quiet:
        _print_summary(summary)


def _number_in(convert, low, high, what):
    """Return an argparse type that converts the text and checks that low <= value <= high."""

    def parse(text):
        try:
            value = convert(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(f"must be {what}, got {text!r}")
        return value

    return parse


_positive_integer = _number_in(int, 1, math.inf, "a positive integer")
_fraction = _number_in(float, math.ulp(0.0), 1.0, "a positive integer or a fraction in (0, 1]")
_seed_value = _number_in(int, 0, 2**32 - 1, "an integer from 0 to 2**32 - 1")
_positive_number = _number_in(float, math.ulp(0.0), sys.float_info.max, "a positive, finite number")


def _count_or_fraction(text):
    return _positive_integer(text) if text.isdecimal() else _fraction(text)


def _sketch_dimension(text):
    return None if text == "none" else _positive_integer(text)


def _column_names(text):
    names = next(csv.reader([text]), [])
    if not all(names) or not names or len(set(names)) < len(names):
        raise argparse.ArgumentTypeError(
            f"must be distinct names separated by commas, got {text!r}"
        )
    return names


def _path_ending_in(*endings):
    def parse(text):
        if suffix(text) not in endings:
            raise argparse.ArgumentTypeError(f"must end in {' or '.join(endings)}, got {text!r}")
        return text

    return parse


def _parser():
    parser = argparse.ArgumentParser(
        prog=PROG, description="Select which samples to label or finetune on.", allow_abbrev=False
    )
    version = f"{PROG} {sklearn_skmm.__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    select = commands.add_parser(
        "select", help="select a coreset of the pool in a file", allow_abbrev=False
    )
    add = select.add_argument
    add(
        "pool",
        type=_path_ending_in(*FILE_SUFFIXES),
        help="file with one row per sample: a 2-d array (.npy, .npz), a sparse matrix of "
        "scipy.sparse.save_npz (.npz), or a table (.csv, .parquet)",
    )
    how_many = select.add_mutually_exclusive_group(required=True)
    how_many.add_argument(
        "--n",
        type=_count_or_fraction,
        help="number of samples to select, or a fraction in (0, 1]",
    )
    how_many.add_argument(
        "--per-class",
        type=_positive_integer,
        metavar="COUNT",
        help="number of samples to select from each class of --stratify",
    )
    how_many.add_argument(
        "--budget",
        type=_positive_number,
        help="largest sum of the costs of the selected samples, for skmm, facility-location and "
        "v-optimal; needs --cost",
    )
    add("--selector", choices=SELECTORS, default="skmm", help="how to select; default: %(default)s")
    add(
        "--m",
        type=_sketch_dimension,
        default=64,
        help="sketch dimension, or none for no sketch; default: %(default)s",
    )
    add(
        "--c-S",
        type=_positive_number,
        metavar="C",
        help="constant of the moment constraint, for skmm only",
    )
    add("--seed", type=_seed_value, default=0, help="random seed; default: %(default)s")
    add("--key", help="name of the array in an .npz")
    add(
        "--columns",
        type=_column_names,
        metavar="A,B",
        help="columns of a table to use as features: numbers, or lists of equally many numbers; "
        "default: the column of lists if there is one, otherwise all numeric columns",
    )
    add(
        "--stratify",
        metavar="COLUMN",
        help="column of a table with labels, to select within each class",
    )
    add(
        "--weight",
        metavar="COLUMN",
        help="column of a table with the weights of the samples, which is not a feature",
    )
    add(
        "--cost",
        metavar="COLUMN",
        help="column of a table with the costs of the samples, which is not a feature",
    )
    add(
        "--selected",
        metavar="FILE",
        action="append",
        default=[],
        help="file of samples that are in the coreset already: an output of this program, or "
        "positions or a mask (.npy, .parquet or CSV); may be given several times",
    )
    add(
        "--out", metavar="FILE", help="file for positions and weights, .npy or CSV; default: stdout"
    )
    add(
        "--clusters",
        metavar="FILE",
        help="file that says which selected sample represents each sample, .npy or CSV; for skmm, "
        "k-means and facility-location",
    )
    add(
        "--summary",
        metavar="FILE.json",
        type=_path_ending_in(".json"),
        help="file for the diagnostics, as JSON",
    )
    add(
        "--plot",
        metavar="FILE",
        type=_path_ending_in(*PLOT_SUFFIXES),
        help="file for a plot of the pool and the coreset",
    )
    add("--force", action="store_true", help="replace existing files")
    add("--quiet", action="store_true", help="print only errors to stderr")
    add("--progress", action="store_true", help="show a progress bar on stderr")
    return parser, select


def _check_usage(args, error) -> None:
    """Call `error` if options cannot be combined."""
    kind = suffix(args.pool)
    if args.key is not None and kind != ".npz":
        error("--key needs a pool in an .npz")
    if kind not in TABLE_SUFFIXES:
        for option in ("columns", "stratify", "weight", "cost"):
            if (value := getattr(args, option)) is not None:
                error(
                    f"--{option} needs a table, {' or '.join(TABLE_SUFFIXES)}, got "
                    f"--{option} {value!r} and {args.pool!r}"
                )
    for option in ("stratify", "weight", "cost"):
        if getattr(args, option) in (args.columns or ()):
            error(
                f"the column of --{option}, {getattr(args, option)!r}, must not be one of --columns"
            )
    if args.weight is not None and args.weight == args.stratify:
        error(f"--weight and --stratify must be different columns, got {args.weight!r} for both")
    if args.per_class is not None and args.stratify is None:
        error(f"--per-class {args.per_class} needs the column of the classes, --stratify")
    if (args.budget is None) != (args.cost is None):
        error("--budget and --cost need each other")
    if args.budget is not None and args.stratify is not None:
        error("--budget and --stratify cannot be combined")
    for option, selectors in NEEDS_SELECTOR.items():
        value = getattr(args, option.replace("-", "_"))
        if value is not None and args.selector not in selectors:
            known = " or ".join(selectors)
            error(f"--{option} needs --selector {known}, got --selector {args.selector}")
    outputs = (args.out, args.summary, args.plot, args.clusters)
    files = [os.path.realpath(f) for f in outputs if f not in (None, "-")]
    if len(set(files)) < len(files):
        error("--out, --summary, --plot and --clusters must be different files")


def _run(argv) -> int:
    try:
        parser, select = _parser()
        args = parser.parse_args(argv)
        _check_usage(args, select.error)
    except SystemExit as stop:  # argparse has printed the error or the help
        _print_stderr("", end="")
        if sys.stdout is not None:
            _print_stdout("")
        return int(stop.code or 0)
    _run_select(args)
    return 0


def main(argv=None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments after the program's name. None means those of the process.

    Returns
    -------
    code : int
        Exit code: 0 on success, 1 on failure, 2 for wrong usage, 130 after Ctrl-C.
    """
    try:
        return _run(argv)
    except KeyboardInterrupt:
        return 130
    except (CommandError, ImportError, OSError, ValueError, MemoryError) as error:
        _print_stderr(f"{PROG}: error: {one_line(error)}")
        return 1
