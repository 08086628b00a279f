"""One door for data: what a user has is opened here, once, and checked, cast and measured here.

`open_samples` returns `Samples`, which is all that selectors, the sketcher, diagnostics and plots
read. Each kind of container is one file with one `Source`. Imports `core` and `utils`; torch's own
data sets pass through unread to `sketch._torch`, which knows how to make batches of them.
"""

from sklearn_skmm.data._checks import cast_bytes
from sklearn_skmm.data._files import SamplesFile
from sklearn_skmm.data._open import open_samples
from sklearn_skmm.data._samples import FLOATS, Reader, Samples, Strata, take
from sklearn_skmm.data._tensors import check_has_values
from sklearn_skmm.data._unread import length_and_rows

__all__ = [
    "FLOATS",
    "Reader",
    "Samples",
    "SamplesFile",
    "Strata",
    "cast_bytes",
    "check_has_values",
    "length_and_rows",
    "open_samples",
    "take",
]
