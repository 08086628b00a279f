"""Random projections Γ of gradients into m dimensions. Pure NumPy and SciPy.

Every Γ satisfies E[ΓΓᵀ] = I, so sketches keep squared norms and inner products in expectation.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from scipy import sparse

# Rows of Γ in a block. Each block has its own counter-based random stream, so Γ depends neither on
# the order in which blocks are requested nor on how the samples are batched.
BLOCK_ROWS = 4096
# Drawn numbers are kept for the next batch if all of them together take no more than this.
CACHE_BYTES = 256 * 2**20
# Blocks of a sparse Γ that are applied in one product.
APPLIED_BLOCKS = 64
# First words of the spawn keys, so that different uses of one seed are independent.
SPARSE_SIGN_KEY, FACTOR_KEY = 1, 2


def _used_columns(G):
    """Return the positions of the columns of sparse G with stored entries, and them as CSC."""
    if G.nnz < G.shape[1]:
        # CSC has an index pointer entry for every column, which would need more memory than such a
        # G: renumber the columns in use before the conversion.
        G = G.tocsr()
        used, columns = np.unique(G.indices, return_inverse=True)
        return used, sparse.csr_array((G.data, columns, G.indptr), (G.shape[0], used.size)).tocsc()
    G = G.tocsc()
    used = np.flatnonzero(np.diff(G.indptr))
    return used, G if used.size == G.shape[1] else G[:, used]


def _column_blocks(G) -> Iterator[tuple[int, Any, Any]]:
    """Yield k, the columns of G to multiply by block k of Γ, and the block's matching rows.

    For a sparse G, blocks that match only empty columns are left out, as they need not be drawn.
    """
    r = G.shape[1]
    if not sparse.issparse(G):
        for k, start in enumerate(range(0, r, BLOCK_ROWS)):
            yield k, G[:, start : start + BLOCK_ROWS], slice(None)
        return
    used, G = _used_columns(G)
    for k in np.unique(used // BLOCK_ROWS).tolist():
        start, stop = k * BLOCK_ROWS, min((k + 1) * BLOCK_ROWS, r)
        a, b = np.searchsorted(used, [start, stop])
        yield k, G[:, a:b], slice(None) if b - a == stop - start else used[a:b] - start


def _in_groups(items: Iterator, n: int) -> Iterator[list]:
    while group := list(islice(items, n)):
        yield group


def _check_columns(projection, G) -> None:
    if G.shape[1] != projection.r:
        raise ValueError(f"G has {G.shape[1]} columns, but {projection} expects r columns.")


class Projection(ABC):
    """Γ of shape (r, m), generated BLOCK_ROWS rows at a time; it takes n_numbers to store."""

    kind: ClassVar[str]

    def __init__(self, r: int, m: int, n_numbers: float):
        self.r, self.m, self._n_numbers = r, m, n_numbers
        self.per_row = m  # nonzero entries of a row of Γ
        self._cache: dict[tuple[Any, str], Any] = {}

    def __getstate__(self):
        """Leave out the cached blocks, which are drawn again when needed."""
        return {**self.__dict__, "_cache": {}}

    def __repr__(self):
        return f"{type(self).__name__}(kind={self.kind!r}, r={self.r}, m={self.m})"

    def block(self, k: int, dtype) -> Any:
        """Return block k of Γ, up to BLOCK_ROWS rows from row ``k * BLOCK_ROWS`` on.

        The block is an ndarray, or a CSR array if Γ is sparse. It may be cached: do not modify it.
        """
        return self._cached(k, dtype, self._n_numbers, lambda: self._draw(k))

    def _cached(self, what, dtype, n_numbers: float, draw: Callable[[], Any]) -> Any:
        key = (what, np.dtype(dtype).str)
        # Draw in double precision first, so that Γ is the same for every dtype.
        drawn = self._cache[key] if key in self._cache else draw().astype(dtype, copy=False)
        if n_numbers * np.dtype(dtype).itemsize <= CACHE_BYTES:
            self._cache[key] = drawn
        return drawn

    @abstractmethod
    def _draw(self, k: int) -> Any:
        """Draw block k of Γ."""

    def _n_rows(self, k: int) -> int:
        return min(BLOCK_ROWS, self.r - k * BLOCK_ROWS)

    def to_array(self, dtype=np.float64) -> np.ndarray:
        """Return all of Γ as an ndarray of shape (r, m); for small r."""
        blocks = (self.block(k, dtype) for k in range(-(-self.r // BLOCK_ROWS)))
        return np.concatenate([b.toarray() if sparse.issparse(b) else b for b in blocks])

    def apply(self, G: Any) -> np.ndarray:
        """Return GΓ of shape (N, m) for dense or sparse G of shape (N, r), in G's float dtype."""
        _check_columns(self, G)
        out = np.zeros((G.shape[0], self.m), dtype=G.dtype)
        for k, columns, rows in _column_blocks(G):
            out += columns @ self.block(k, G.dtype)[rows]
        return out


class GaussianProjection(Projection):
    r"""Γ of shape (r, m) with independent entries N(0, 1/m), generated in blocks when needed.

    This is the random projection (Johnson–Lindenstrauss transform) of the theorem in [1]_. It keeps
    squared norms and inner products in expectation, with a relative standard deviation of
    :math:`\sqrt{2/m}` for squared norms. Applying Γ takes O(nnz(G) m), and drawing it O(rm).

    Parameters
    ----------
    r, m : int
        Shape of Γ: the number of gradient entries and the sketch dimension.
    seed : int
        Equal seed, r and m give the same Γ.

    References
    ----------
    .. [1] Y. Dong, H. Phan, X. Pan, Q. Lei. "Sketchy Moment Matching: Toward Fast and Provable
       Data Selection for Finetuning". NeurIPS 2024. :arxiv:`2407.06120`

    Examples
    --------
    >>> import numpy as np
    >>> projection = GaussianProjection(3, 2, seed=0)
    >>> bool(np.all(projection.apply(np.eye(3)) == projection.to_array()))
    True
    """

    kind = "gaussian"

    def __init__(self, r: int, m: int, seed: int):
        super().__init__(r, m, n_numbers=r * m)
        self.seed = seed

    def _draw(self, k):
        stream = np.random.Generator(np.random.Philox(key=[self.seed, k]))
        return stream.standard_normal((self._n_rows(k), self.m)) / np.sqrt(self.m)


class SparseSignProjection(Projection):
    r"""Γ of shape (r, m) with s = min(nnz, m) entries :math:`\pm 1/\sqrt{s}` in each row.

    This is the sparse Johnson–Lindenstrauss transform [1]_, or OSNAP [2]_. Rows are independent and
    have norm one. The positions of their entries are uniformly random sets, and the signs are
    independent. So :math:`E[\Gamma\Gamma^T] = I`,
    :math:`E\langle\Gamma_i, \Gamma_j\rangle^2 = 1/m`, and

    .. math:: \mathrm{Var}\|g\Gamma\|^2 = \tfrac{2}{m} \bigl(\|g\|^4 - \textstyle\sum_i g_i^4\bigr)

    for any s, which is at most the variance of a Gaussian projection; s matters for the tails.
    With :math:`m = O(d \log d / \varepsilon^2)` and :math:`s = O(\log d / \varepsilon)`, all norms
    in a subspace of dimension d are kept up to a factor :math:`1 \pm \varepsilon` with high
    probability [3]_. Drawing Γ takes O(rs²) and applying it O(nnz(G) s).

    Parameters
    ----------
    r, m : int
        Shape of Γ: the number of gradient entries and the sketch dimension.
    seed : int
        Equal seed, r, m and nnz give the same Γ.
    nnz : int, default=8
        Number of nonzero entries in a row of Γ, at most m.

    References
    ----------
    .. [1] D. M. Kane, J. Nelson. "Sparser Johnson-Lindenstrauss Transforms". Journal of the ACM
       61(1), 2014. :arxiv:`1012.1577`
    .. [2] J. Nelson, H. L. Nguyên. "OSNAP: Faster Numerical Linear Algebra Algorithms via Sparser
       Subspace Embeddings". FOCS 2013. :arxiv:`1211.1002`
    .. [3] M. B. Cohen. "Nearly Tight Oblivious Subspace Embeddings by Trace Inequalities".
       SODA 2016.

    Examples
    --------
    >>> import numpy as np
    >>> projection = SparseSignProjection(5, 6, seed=0, nnz=4)
    >>> np.sum(np.abs(projection.to_array()) == 0.5, axis=1)
    array([4, 4, 4, 4, 4])
    """

    kind = "sparse_sign"

    def __init__(self, r: int, m: int, seed: int, nnz: int = 8):
        super().__init__(
            r, m, n_numbers=2 * r * min(nnz, m)
        )  # each entry has a value and a position
        self.seed, self.nnz, self.per_row = seed, nnz, min(nnz, m)

    def apply(self, G: Any) -> np.ndarray:
        """Return GΓ of shape (N, m) for dense or sparse G of shape (N, r), in G's float dtype."""
        _check_columns(self, G)
        out = np.zeros((G.shape[0], self.m), dtype=G.dtype)
        # Each product passes over the whole output, so stack several blocks of Γ.
        for group in _in_groups(_column_blocks(G), APPLIED_BLOCKS):
            gamma = sparse.vstack([self.block(k, G.dtype)[rows] for k, _, rows in group], "csr")
            if sparse.issparse(G):
                out += (
                    sparse.hstack([columns for _, columns, _ in group], "csr") @ gamma
                ).toarray()
            else:
                first, last = group[0][0] * BLOCK_ROWS, group[-1][0] * BLOCK_ROWS + BLOCK_ROWS
                out += (gamma.T @ G[:, first:last].T).T
        return out

    def _draw(self, k):
        # Draw uniform sets of positions, rather than one position in each of s ranges of columns:
        # where s does not divide m, ranges differ in width. E[ΓΓᵀ] would still be I, but columns
        # would have unequal weight and E<Γi, Γj>² would exceed 1/m.
        rows, s = self._n_rows(k), self.per_row
        seeds = np.random.SeedSequence(self.seed, spawn_key=(SPARSE_SIGN_KEY, k))
        stream = np.random.Generator(np.random.Philox(seeds))
        tops = np.arange(self.m - s, self.m)
        # The low bit is the sign. The rest is uniform over 0..top, for Floyd's sampling algorithm.
        codes = stream.integers(0, 2 * (tops + 1), size=(rows, s))
        for t, top in enumerate(tops):
            taken = (codes[:, :t] >> 1 == codes[:, t, None] >> 1).any(axis=1)
            codes[taken, t] = 2 * top + (codes[taken, t] & 1)
        codes.sort(axis=1)  # canonical CSR needs sorted positions
        values, positions = (2 * (codes & 1) - 1) / np.sqrt(s), (codes >> 1).astype(np.int32)
        starts = np.arange(0, rows * s + 1, s, dtype=np.int32)
        return sparse.csr_array((values.ravel(), positions.ravel(), starts), (rows, self.m))


class BlockProjection:
    r"""Γ of several parameters: the projections of the parts, stacked vertically.

    Let :math:`g = [g_1, \ldots, g_L]` be the concatenated gradients of the parts. Then
    :math:`g\Gamma = \sum_l g_l \Gamma_l`. :math:`E[\Gamma\Gamma^T] = I` if the parts are
    independent; two `ProductProjection` may share one of their two streams, but not both.

    Parameters
    ----------
    parts : sequence of projections
        Projections of the parts, in order: at least one, all with the same m.

    Examples
    --------
    >>> import numpy as np
    >>> projection = BlockProjection([GaussianProjection(r, m=4, seed=r) for r in (6, 5)])
    >>> projection.apply(np.ones((2, 11))).shape
    (2, 4)
    """

    kind = "block"

    def __init__(self, parts: "Sequence[Projection | BlockProjection]"):
        self.parts: list[Any] = list(parts)
        dimensions = {part.m for part in self.parts}
        if len(dimensions) != 1:
            raise ValueError(
                "The 'parts' parameter of BlockProjection must be projections with the same m. "
                f"Got m in {dimensions} instead."
            )
        self.r, self.m = sum(part.r for part in self.parts), dimensions.pop()

    __repr__ = Projection.__repr__

    def to_array(self, dtype=np.float64) -> np.ndarray:
        """Return all of Γ as an ndarray of shape (r, m); for small r."""
        return np.concatenate([part.to_array(dtype) for part in self.parts])

    def apply(self, G: Any) -> np.ndarray:
        """Return GΓ of shape (N, m) for dense or sparse G of shape (N, r), in G's float dtype."""
        _check_columns(self, G)
        if sparse.issparse(G):
            G = G.tocsr()  # not every sparse format can be sliced
        out, start = np.zeros((G.shape[0], self.m), dtype=G.dtype), 0
        for part in self.parts:
            out += part.apply(G[:, start : start + part.r])
            start += part.r
        return out


def projection_for(kind: str, r: int, m: int, seed: int) -> Projection:
    """Return a projection of the given kind.

    Parameters
    ----------
    kind : {"gaussian", "sparse_sign"}
        Kind of random projection.
    r, m, seed : int
        Number of gradient entries, sketch dimension, and seed.

    Returns
    -------
    projection : GaussianProjection or SparseSignProjection
        Γ of shape (r, m).

    Examples
    --------
    >>> projection_for("sparse_sign", 100, 10, seed=0)
    SparseSignProjection(kind='sparse_sign', r=100, m=10)
    """
    kinds: dict[str, Any] = {p.kind: p for p in (GaussianProjection, SparseSignProjection)}
    if kind in kinds:
        return kinds[kind](r, m, seed)
    raise ValueError(
        "The 'kind' parameter of projection_for must be a str among {'gaussian', 'sparse_sign'}. "
        f"Got {kind!r} instead."
    )
