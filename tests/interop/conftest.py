"""What the tests of several libraries share."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests._classification import classification_data


@pytest.fixture
def data():
    return classification_data()


@pytest.fixture
def run_python():
    return run


def run(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
