"""Random embeddings Γ of gradients into m dimensions. Pure NumPy and SciPy."""

from typing import Any

import numpy as np
from scipy import sparse

# Rows of Γ that are drawn together. Each block has its own counter-based stream, so Γ does not
# depend on the order in which blocks are asked for, nor on how the samples are batched.
BLOCK_ROWS = 4096
# Blocks are kept for the next batch while Γ takes no more than this.
CACHE_BYTES = 256 * 2**20


class GaussianProjection:
    r"""Γ of shape (r, m) with independent entries N(0, 1/m), drawn in blocks when needed.

        The Johnson–Lindenstrauss embedding of the paper's theorem: squared norms and inner products
        are preserved in expectation, with relative spread :math:`\sqrt{2/m}` on squared norms.

    Parameters
    ----------
        r : int
            Number of gradient entries.
        m : int
            Sketch dimension.
        seed : int
            The same seed, r and m give the same Γ.

    Examples
    --------
        >>> from typing import Any

    import numpy as np
        >>> projection = GaussianProjection(3, 2, seed=0)
        >>> G = np.eye(3)
        >>> bool(np.all(projection.apply(G) == projection.to_array()))
        True
    """

    def __init__(self, r: int, m: int, seed: int):
        self.r, self.m, self.seed = r, m, seed
        self._cache: dict[tuple[int, str], np.ndarray] = {}

    def __getstate__(self):
        """Leave the cached blocks out: they are drawn again when needed."""
        return {**self.__dict__, "_cache": {}}

    def block(self, k: int, dtype) -> np.ndarray:
        """Return rows ``k * BLOCK_ROWS`` onwards of Γ, at most BLOCK_ROWS of them."""
        key = (k, np.dtype(dtype).str)
        if key not in self._cache:
            rows = min(BLOCK_ROWS, self.r - k * BLOCK_ROWS)
            stream = np.random.Generator(np.random.Philox(key=[self.seed, k]))
            # Drawn in double precision whatever the dtype, so that every dtype sees one Γ.
            values = stream.standard_normal((rows, self.m)) / np.sqrt(self.m)
            values = values.astype(dtype, copy=False)
            if self.r * self.m * values.itemsize > CACHE_BYTES:
                return values
            self._cache[key] = values
        return self._cache[key]

    def to_array(self, dtype=np.float64) -> np.ndarray:
        """Return the whole Γ; for small r."""
        return np.concatenate([self.block(k, dtype) for k in range(-(-self.r // BLOCK_ROWS))])

    def apply(self, G: Any) -> np.ndarray:
        """Return GΓ of shape (N, m) for dense or sparse G of shape (N, r), in G's dtype."""
        if sparse.issparse(G):
            G = G.tocsc()  # columns are sliced
        out = np.zeros((G.shape[0], self.m), dtype=G.dtype)
        for k, start in enumerate(range(0, self.r, BLOCK_ROWS)):
            out += G[:, start : start + BLOCK_ROWS] @ self.block(k, G.dtype)
        return out
