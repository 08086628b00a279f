"""Files are read as data: they run no code, lead to no other files and are rejected if damaged."""

import ast
import io
import json
import os
import re
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest

import sklearn_skmm
from sklearn_skmm.cli._main import main
from sklearn_skmm.sketch import _cache
from sklearn_skmm.sketch._cache import SketchCache, digest

PACKAGE = Path(sklearn_skmm.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
KEY = {"m": 2, "seed": 0, "loss": "mean", "scale": 0.5, "centred": True, "layers": None}
BLOCKS = {k: np.arange(6 * (k + 1), dtype=np.float64).reshape(-1, 2) for k in range(3)}

# Modules and functions that run code from files, or run a shell.
UNSAFE_MODULES = {
    *("pickle", "cPickle", "_pickle", "marshal", "shelve", "dill", "cloudpickle"),
    *("subprocess", "pty", "ctypes", "runpy", "code", "codeop", "imp", "xmlrpc"),
    *("urllib", "http", "socket", "ftplib", "requests"),
}
UNSAFE_NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
UNSAFE_CALLS = {
    *("os.system", "os.popen", "joblib.load", "torch.load", "pd.read_pickle"),
    *("pandas.read_pickle", "yaml.load", "numpy.loads", "importlib.import_module"),
}
UNSAFE_CALL_PATTERN = re.compile(r"(^|\.)(exec[lv]p?e?|spawn[lv]p?e?|read_pickle|to_pickle)$")


def nodes(kind):
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, kind):
                yield f"{path.name}:{node.lineno}", node


# The source


def test_package_imports_no_unsafe_modules():
    assert len(MODULES) > 30
    found = []
    for place, node in nodes((ast.Import, ast.ImportFrom)):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [(place, name) for name in names if name.split(".")[0] in UNSAFE_MODULES]
    assert found == []


def test_package_evaluates_no_text():
    found = [(place, n.id) for place, n in nodes(ast.Name) if n.id in UNSAFE_NAMES]
    assert found == []


def test_package_calls_no_shell_and_unpickles_nothing():
    found = []
    for place, node in nodes(ast.Call):
        name = ast.unparse(node.func)
        if name in UNSAFE_CALLS or UNSAFE_CALL_PATTERN.search(name):
            found.append((place, name))
        found += [(place, k.arg) for k in node.keywords if k.arg == "shell"]
    assert found == []


def test_arrays_are_read_and_written_without_pickle():
    """Only reading needs a check: the command line's table of indices cannot contain objects."""
    loads = [(place, node) for place, node in nodes(ast.Call) if "load" in ast.unparse(node.func)]
    arrays = [(p, n) for p, n in loads if ast.unparse(n.func) in ("np.load", "numpy.load")]
    assert arrays
    for place, node in arrays:
        arguments = {k.arg: ast.unparse(k.value) for k in node.keywords}
        assert arguments.get("allow_pickle") == "False", place
    others = {ast.unparse(n.func) for _, n in loads} - {"np.load", "json.loads"}
    assert not {name for name in others if name.endswith((".load", ".loads"))}


def test_checks_of_the_source_detect_unsafe_code():
    bad = ast.parse("import pickle\nnp.load(f)\neval('1')\nos.system('ls')\nrun(x, shell=True)")
    calls = [ast.unparse(n.func) for n in ast.walk(bad) if isinstance(n, ast.Call)]
    assert set(calls) & UNSAFE_CALLS == {"os.system"}
    assert {n.id for n in ast.walk(bad) if isinstance(n, ast.Name)} & UNSAFE_NAMES == {"eval"}


# A cache that has been tampered with


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    directory = tmp_path_factory.mktemp("original") / "cache"
    cache = SketchCache(directory, KEY)
    for k, block in BLOCKS.items():
        cache.put(k, digest(k), block)
    return directory


@pytest.fixture
def copied(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "cache"))


def bit_flip(data, rng):
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return bytes(data)


def truncation(data, rng):
    return data[: rng.integers(len(data))]


def repetition(data, rng):
    start, stop = np.sort(rng.integers(len(data) + 1, size=2))
    return data[:stop] + data[start:]


def removal(data, rng):
    start, stop = np.sort(rng.integers(len(data) + 1, size=2))
    return data[:start] + data[stop:]


def noise(data, rng):
    return rng.bytes(len(data))


def exchange(data, rng):
    start, middle = np.sort(rng.integers(len(data) + 1, size=2))
    return data[middle:] + data[start:middle] + data[:start]


MUTATIONS = [bit_flip, truncation, repetition, removal, noise, exchange]


@pytest.mark.filterwarnings("ignore:cache_dir=.*is damaged and is not used:UserWarning")
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_mutated_block_is_unchanged_or_missing(original, copied, mutate):
    rng = np.random.default_rng(MUTATIONS.index(mutate))
    paths = sorted(original.glob("block-*"))
    missing = 0
    for _ in range(60):
        path = paths[rng.integers(len(paths))]
        k = int(path.name.split("-")[1])
        (copied / path.name).write_bytes(mutate(path.read_bytes(), rng))
        cache = SketchCache(copied, KEY)
        for j, block in BLOCKS.items():
            found = cache.get(j, digest(j))
            if found is None:
                assert j == k  # the others are undamaged
                missing += 1
                continue
            np.testing.assert_array_equal(found, block, strict=True)
        # A newly computed block replaces the damaged one.
        cache.put(k, digest(k), BLOCKS[k])
        np.testing.assert_array_equal(SketchCache(copied, KEY).get(k, digest(k)), BLOCKS[k])
    assert missing > 40


def renamed_path(path, content, rng):
    """Return the path with another index or digest, or with its two digests exchanged."""
    kind = rng.integers(4)
    _, index, inputs, own = path.stem.split("-")
    if kind == 0:
        index = f"{rng.integers(3):08d}"
    elif kind == 1:
        inputs = rng.bytes(16).hex()
    elif kind == 2:
        own = rng.bytes(16).hex()
    else:
        inputs, own = own, inputs
    return path.with_name(f"block-{index}-{inputs}-{own}.npy")


@pytest.mark.filterwarnings("ignore:cache_dir=.*is damaged and is not used:UserWarning")
def test_renamed_block_is_never_mistaken_for_another(original, tmp_path):
    rng = np.random.default_rng(0)
    for trial in range(120):
        directory = Path(shutil.copytree(original, tmp_path / str(trial)))
        paths = sorted(directory.glob("block-*"))
        path = paths[rng.integers(len(paths))]
        path.rename(renamed_path(path, path.read_bytes(), rng))
        cache = SketchCache(directory, KEY)
        for k, block in BLOCKS.items():
            try:
                found = cache.get(k, digest(k))
            except ValueError as error:
                assert "was made from other data" in str(error)  # noqa: PT017
                continue
            assert found is None or np.array_equal(found, block)


def json_edits(manifest, rng):
    """Yield manifests, as text, that differ from this one in one place."""
    values = [None, True, 1, 1.5, "x", "../x", "/etc/x", [], {}, [1], {"a": 1}, -1, 2**70, "NaN"]
    while True:
        edited = json.loads(json.dumps(manifest))
        target = edited if rng.integers(2) else edited["key"]
        name = [*target, "directory", "path", "../x"][rng.integers(len(target) + 3)]
        if name in target and not rng.integers(3):
            del target[name]
        else:
            target[name] = values[rng.integers(len(values))]
        yield json.dumps(edited, indent=[None, 1][rng.integers(2)])


def cache_opens(directory):
    """Return whether the cache opens, and check that it then returns the stored blocks."""
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    try:
        cache = SketchCache(directory, KEY)
    except ValueError as error:
        assert "cache_dir=" in str(error)  # noqa: PT017
        assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
        return False
    for k, block in BLOCKS.items():
        np.testing.assert_array_equal(cache.get(k, digest(k)), block, strict=True)
    return True


def test_edited_manifest_is_equivalent_or_rejected(copied):
    manifest = json.loads((copied / "manifest.json").read_text())
    edits = json_edits(manifest, np.random.default_rng(0))
    refused = 0
    for _ in range(300):
        text = next(edits)
        (copied / "manifest.json").write_text(text)
        edited = json.loads(text)
        same = False
        if edited.keys() == manifest.keys() and isinstance(edited.get("key"), dict):
            # The order of the key's entries does not matter.
            key = {n: json.dumps(v) for n, v in edited["key"].items()}
            same_key = key == {n: json.dumps(v) for n, v in manifest["key"].items()}
            same = same_key and all(edited.get(n) == manifest[n] for n in ("format", "version"))
            same = same and type(edited.get("version")) is int
        assert cache_opens(copied) == same, text
        refused += not same
    assert refused > 200


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_mutated_manifest_is_equivalent_or_rejected(original, copied, mutate):
    rng = np.random.default_rng(100 + MUTATIONS.index(mutate))
    data = (original / "manifest.json").read_bytes()
    for _ in range(60):
        mutated = mutate(data, rng)
        (copied / "manifest.json").write_bytes(mutated)
        if cache_opens(copied):
            # Only white space and duplicate names may differ.
            assert json.loads(mutated)["key"] == KEY


# Paths: a manifest refers to no file, and a block is found only by its own name


@pytest.mark.parametrize("name", ["../outside.npy", "/outside.npy", "a/../../outside.npy", "..\\x"])
@pytest.mark.parametrize("place", ["directory", "blocks", "key"])
def test_paths_in_a_manifest_are_rejected(copied, tmp_path, name, place):
    np.save(tmp_path / "outside.npy", np.full((2, 2), 666.0))
    manifest = json.loads((copied / "manifest.json").read_text())
    if place == "key":
        manifest["key"]["loss"] = name
        (copied / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(ValueError, match="is stale: loss is"):
            SketchCache(copied, KEY)
        return
    manifest[place] = name if place == "directory" else {"0": name}
    (copied / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match=f"it has '{place}', which no manifest"):
        SketchCache(copied, KEY)


@pytest.mark.parametrize(
    "name", ["block-00000000-..-x.npy", "block-0-0-0.npy", "../block.npy", "block-/etc/passwd.npy"]
)
def test_block_names_contain_no_path(name):
    assert _cache.BLOCK.fullmatch(name) is None


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="needs links")
def test_symbolic_links_to_blocks_are_rejected(copied, tmp_path):
    (path,) = copied.glob("block-00000000-*")
    outside = tmp_path / "outside.npy"
    shutil.move(path, outside)
    path.symlink_to(outside)
    with pytest.raises(ValueError, match="not a regular file"):
        SketchCache(copied, KEY)
    assert outside.exists()


# The command line writes only to the given paths

POOL = np.random.RandomState(0).normal(size=(30, 3))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Return the working folder and a folder outside of it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "theirs").write_text("precious")
    monkeypatch.chdir(tmp_path / "here")
    np.save("pool.npy", POOL)
    return tmp_path / "here", tmp_path / "outside"


OPTIONS = {
    "--out": ("picks.csv", "picks.npy"),
    "--summary": ("summary.json",),
    "--plot": ("plot.png",),
}


@pytest.mark.parametrize("force", [[], ["--force"]], ids=["", "force"])
@pytest.mark.parametrize("dangling", [False, True], ids=["existing", "dangling"])
@pytest.mark.parametrize(
    ("option", "name"), [(option, name) for option, names in OPTIONS.items() for name in names]
)
def test_outputs_do_not_follow_symbolic_links(folders, option, name, dangling, force, capsys):
    if option == "--plot":
        pytest.importorskip("matplotlib")
    here, outside = folders
    target = outside / ("nothing" if dangling else "theirs")
    os.symlink(target, name)
    status = main(["select", "pool.npy", "--n", "5", "--quiet", option, name, *force])
    capsys.readouterr()
    assert status == (0 if force else 1)
    assert sorted(path.name for path in outside.iterdir()) == ["theirs"]
    assert (outside / "theirs").read_text() == "precious"
    # With --force the link itself is replaced.
    assert os.path.islink(name) == (not force)
    assert sorted(path.name for path in here.iterdir()) == sorted(["pool.npy", name])


def test_link_in_place_of_a_temporary_file_is_not_followed(folders, monkeypatch, capsys):
    """An attacker who guesses the name gains nothing."""
    _, outside = folders
    monkeypatch.setattr("sklearn_skmm.cli._output.secrets.token_hex", lambda n: "0" * 2 * n)
    os.symlink(outside / "theirs", ".sklearn-skmm-0000000000000000.tmp")
    argv = ["select", "pool.npy", "--n", "5", "--quiet", "--out", "picks.csv"]
    assert main(argv) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert (outside / "theirs").read_text() == "precious"
    assert not os.path.exists("picks.csv")


class Trap:
    def __reduce__(self):
        return os.mkdir, ("sprung",)


def pickled_objects(save):
    buffer = io.BytesIO()
    save(buffer, np.array([[Trap()]], dtype=object), allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["pool.npy", "pool.npz"])
@pytest.mark.parametrize("save", [np.save, np.savez], ids=["npy", "npz"])
def test_mutated_pool_of_objects_is_rejected(folders, name, save, capsys):
    """Whatever the header says, no object is created and no file is written."""
    if save is np.savez:
        buffer = io.BytesIO()
        np.savez(buffer, a=np.array([[Trap()]], dtype=object), allow_pickle=True)
        data = buffer.getvalue()
    else:
        data = pickled_objects(save)
    rng = np.random.default_rng(0)
    argv = ["select", name, "--n", "1", "--quiet", "--out", "picks.csv"]
    for trial in range(40):
        Path(name).write_bytes(data if not trial else bit_flip(data, rng))
        before = sorted(os.listdir())
        assert main(argv) == 1
        assert "Traceback" not in capsys.readouterr().err
        assert sorted(os.listdir()) == before
    assert not os.path.exists("sprung")


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required:UserWarning")
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda f: f.__name__)
def test_forged_block_is_a_float_array_or_missing(original, tmp_path, mutate):
    """The digest in its name is correct, so NumPy reads the forged content."""
    rng = np.random.default_rng(200 + MUTATIONS.index(mutate))
    (path,) = original.glob("block-00000001-*")
    inputs = path.name.split("-")[2]
    for trial in range(40):
        content = bytearray(path.read_bytes())
        content[:128] = mutate(bytes(content[:128]), rng)
        directory = tmp_path / str(trial)
        cache = SketchCache(directory, KEY)
        name = f"block-00000001-{inputs}-{_cache._content_digest(bytes(content))}.npy"
        (directory / name).write_bytes(content)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "cache_dir=.*is damaged", UserWarning)
            found = cache.get(1, digest(1))
        assert found is None or (found.ndim == 2 and found.dtype.kind == "f")
