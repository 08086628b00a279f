"""Parameter descriptions that docstrings share."""

import pytest

from sklearn_skmm.utils._docstrings import SHARED, with_shared
from tests._selectors import selector_classes


def test_placeholder_alone_on_its_line_is_replaced():
    doc = "Summary with {stratify} in it.\n\n    {stratify}\n    alpha : float\n"
    lines = with_shared(doc).splitlines()
    assert lines[0] == "Summary with {stratify} in it."
    assert lines[2].startswith("    stratify : bool")
    assert lines[3].startswith("        Whether")
    assert lines[-1] == "    alpha : float"
    assert with_shared(None) is None


def test_unknown_placeholder_raises():
    with pytest.raises(KeyError, match="unknown"):
        with_shared("    {unknown}")


def test_every_description_is_used_and_no_placeholder_remains():
    docs = "\n".join(cls.__doc__ for cls in selector_classes())
    assert "{" + "fitted}" not in docs
    for text in SHARED.values():
        assert text.strip().splitlines()[0] in docs
