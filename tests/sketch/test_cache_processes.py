"""Processes that share a sketch cache or are killed while they write it."""

import inspect
import os
import subprocess
import sys

import pytest

from sklearn_skmm.sketch import _cache
from tests.sketch._caches import POSIX, blocks, temporaries

# Run by the child processes before their own code. It loads the module from its file, because
# importing scikit-learn would take most of the time.
CHILD = f"""
import errno, importlib.util, os, random, signal, sys, time, traceback
from pathlib import Path
import numpy as np

spec = importlib.util.spec_from_file_location("cache", {inspect.getsourcefile(_cache)!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
SketchCache, digest = module.SketchCache, module.digest
directory, KEY, N = Path(sys.argv[1]), {{"m": 64, "seed": 0}}, 24

def truth(index):
    return np.random.RandomState(index).normal(size=(500, 64))

def run(start=0):
    cache = SketchCache(directory, KEY)
    for index in range(start, N):
        if cache.get(index, digest(index)) is None:
            cache.put(index, digest(index), truth(index))

def fork(function, *args):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = function(*args) or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid

def code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def check():
    # Warnings are errors here, so no block may be damaged.
    cache = SketchCache(directory, KEY)
    done = 0
    for index in range(N):
        block = cache.get(index, digest(index))
        if block is not None:
            assert block.tobytes() == truth(index).tobytes(), index
            done += 1
    return done
"""


def child(code, directory, **kwargs):
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", CHILD + code, str(directory)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def finish(process):
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    return output


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    directory = tmp_path_factory.mktemp("uninterrupted")
    finish(child("run()", directory))
    content = blocks(directory)
    assert len(content) == 24
    return content


KILLS = """
random.seed(0)
partial, counts, kills = 0, [], 0
# Each run continues the last one, until twenty runs have been killed before they finished.
while kills < 20:
    if check() == N:
        for path in directory.glob("block-*"):
            path.unlink()
    # Wait for a random number of blocks, so that the moment does not depend on the machine's speed.
    first, pid = random.randrange(N), fork(run)
    while len(list(directory.glob("block-*"))) < first:
        pass
    if kills % 2:
        time.sleep(random.uniform(0.0, 0.002))
    else:  # kill it in the middle of a block, however short that moment is
        while not any(directory.glob("tmp-*")) and len(list(directory.glob("block-*"))) < N:
            pass
    os.kill(pid, signal.SIGKILL)
    kills += code(pid) == -signal.SIGKILL
    partial += len(list(directory.glob("tmp-*")))
    for path in directory.glob("tmp-*"):
        path.unlink()
    counts.append(check())
print(partial, len(set(counts)))
run()
assert check() == N
"""


@POSIX
@pytest.mark.slow
def test_run_killed_at_random_moments_can_be_resumed(tmp_path, uninterrupted):
    partial, different = map(int, finish(child(KILLS, tmp_path)).split())
    # Some runs were killed while they were writing, and at different blocks.
    assert partial > 0
    assert different > 3
    assert blocks(tmp_path) == uninterrupted


STEPS = """
def die(step):
    # Python calls this hook before every open, link, rename and remove.
    def hook(event, args):
        nonlocal step
        if event in ("open", "os.link", "os.rename", "os.remove", "os.mkdir", "os.listdir"):
            if str(directory) in str(args[0]):
                step -= 1
                if step < 0:
                    os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    run(N - 2)

step = 0
while True:
    for path in directory.glob("*"):
        path.unlink()
    killed = code(fork(die, step)) == -signal.SIGKILL
    done = check()
    if not killed:
        break
    step += 1
assert done == 2
run()
print(step)
"""


@POSIX
def test_run_killed_before_any_file_operation_can_be_resumed(tmp_path, uninterrupted):
    directory = tmp_path / "cache"
    directory.mkdir()
    # Creating the manifest and two blocks takes an open and a rename or link each, at least.
    assert int(finish(child(STEPS, directory))) >= 6
    assert blocks(directory) == uninterrupted


@POSIX
def test_two_processes_can_write_the_same_cache(tmp_path, uninterrupted):
    code = "print('ready', flush=True); sys.stdin.read(1); run(); assert check() == N"
    processes = [child(code, tmp_path, stdin=subprocess.PIPE) for _ in range(2)]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("x")
        process.stdin.flush()
    for process in processes:
        finish(process)
    assert blocks(tmp_path) == uninterrupted
    assert not temporaries(tmp_path)


RACE = """
base = directory
def enter(gate, key):
    os.close(gate[1])
    os.read(gate[0], 1)  # until the parent closes it
    try:
        SketchCache(directory, key)
    except ValueError as error:
        assert "is stale: seed is" in str(error), error
        return 3
for i in range(15):
    for seeds in ([0, 0, 0, 0], [0, 1, 2, 3]):
        directory = base / f"{i}-{len(set(seeds))}"
        gate = os.pipe()
        pids = [fork(enter, gate, {"m": 64, "seed": seed}) for seed in seeds]
        os.close(gate[0]), os.close(gate[1])
        codes = [code(pid) for pid in pids]
        if len(set(seeds)) == 1:
            assert codes == [0] * 4, codes
        else:
            assert sorted(codes) == [0, 3, 3, 3], codes
            SketchCache(directory, {"m": 64, "seed": seeds[codes.index(0)]})
        assert os.listdir(directory) == ["manifest.json"]
"""


@POSIX
@pytest.mark.slow
def test_processes_can_create_a_cache_at_the_same_time(tmp_path):
    finish(child(RACE, tmp_path))


LIMIT = """
import resource
run(N - 1)
before = {path.name: path.read_bytes() for path in directory.iterdir()}
cache = SketchCache(directory, KEY)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    cache.put(0, digest(0), truth(0))
except OSError as error:
    assert error.errno == errno.EFBIG, error
    assert f"cache_dir={str(directory)!r}" in str(error), error
else:
    raise AssertionError("written")
assert {path.name: path.read_bytes() for path in directory.iterdir()} == before
assert check() == 1
"""


@POSIX
def test_file_size_limit_reached_in_the_middle_of_a_block(tmp_path):
    finish(child(LIMIT, tmp_path))
