"""Fixtures shared by the tests with other libraries."""

import os
import subprocess
import sys
import textwrap

import pytest

from tests._classification import classification_data


@pytest.fixture
def data():
    """200 samples with 12 features and three classes."""
    return classification_data()


@pytest.fixture
def run_python():
    """Run code in a new process, with warnings as errors, and return what it prints."""

    def run(code, *arguments, **environment):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, **environment},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    return run
