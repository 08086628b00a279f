"""The sketch does not depend on the size of the batches, or the model is refused."""

import pytest

from tests import random_models
from tests.sketch._torch._random_models import KINDS, MAY_MIX, MIXING, check_problem, draw_problem


@pytest.mark.parametrize("turn", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_belong_to_their_samples(kind, turn):
    problem = draw_problem(1, list(KINDS).index(kind) + turn * len(KINDS))
    outcome = check_problem(problem, sizes=(2, 1000))
    assert outcome.wrong == 0, problem.description
    if kind in MIXING or kind not in MAY_MIX:
        assert outcome.refused == (kind in MIXING), problem.description


@pytest.mark.slow
def test_values_read_in_python_never_give_wrong_rows():
    place = list(KINDS).index("values read")
    outcomes = [check_problem(draw_problem(3, turn * len(KINDS) + place)) for turn in range(20)]
    assert sum(outcome.wrong for outcome in outcomes) == 0
    assert 2 < sum(outcome.refused for outcome in outcomes) < 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["experts", "sorting", "unpadding", "constants read"])
def test_rows_that_move_are_matched_with_their_samples(kind):
    fast = [
        check_problem(draw_problem(2, list(KINDS).index(kind) + turn * len(KINDS)), (1000,)).fast
        for turn in range(3)
    ]
    assert sum(fast) >= 2  # other blocks of a model may need the exact way


def test_command_reruns_a_model(capsys):
    assert random_models.main(["--only", "3"]) == 0
    assert "attention" in capsys.readouterr().out
    assert random_models.main(["--models", "1"]) == 0
    assert "100 %" in capsys.readouterr().out
