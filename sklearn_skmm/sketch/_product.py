"""The product projection Γ, for gradients that are sums of outer products. Pure NumPy."""

import math

import numpy as np

from sklearn_skmm.sketch._projection import BLOCK_ROWS, FACTOR_KEY, Projection


def _sign_rows(stream, m, positions):
    """Return the rows at these positions of a stream's ±1 matrix, int8 with m columns."""
    out = np.empty((positions.size, m), dtype=np.int8)
    blocks = positions // BLOCK_ROWS
    for k in np.unique(blocks).tolist():
        here = np.flatnonzero(blocks == k)
        rows = positions[here] - k * BLOCK_ROWS
        out[here] = _draw_sign_block(stream, k, rows.max() + 1, m)[rows]
    return out


def _draw_sign_block(stream, k, n_rows, m):
    """Return the first rows of block k of a stream's ±1 matrix, drawn with one bit per sign."""
    # SeedSequence splits its input into 32-bit words and pads it with zeros. The length
    # distinguishes (1,) from (1, 0), and two words for each int (2**32, 0) from (0, 1).
    entropy = [len(stream), *(word for x in stream for word in divmod(x, 2**32))]
    bit_generator = np.random.Philox(np.random.SeedSequence(entropy, spawn_key=(FACTOR_KEY, k)))
    words = bit_generator.random_raw(-(-n_rows * m // 64)).astype(
        "<u8"
    )  # the same signs on any machine
    bits = np.unpackbits(words.view(np.uint8), count=n_rows * m, bitorder="little")
    return (2 * bits.view(np.int8) - 1).reshape(n_rows, m)


class ProductProjection(Projection):
    r"""Two-factor Γ of shape (rows · cols, m), for gradients of a (rows × cols) weight matrix.

    With independent signs :math:`Q_l \in \{\pm 1\}^{\mathrm{rows} \times m}` and
    :math:`P_l \in \{\pm 1\}^{\mathrm{cols} \times m}` for each of L terms, and gradients flattened
    row by row,

    .. math:: \Gamma_{(i \cdot \mathrm{cols} + j), k} = \sum_l Q_{l,ik} P_{l,jk} / \sqrt{L m},

    a sum of Khatri–Rao products [1]_. The gradient of a linear layer is
    :math:`A = \sum_t \delta_t \otimes a_t` over positions t (tokens or pixels). Its sketch

    .. math:: g\Gamma = \sum_l \sum_t (Q_l^T \delta_t) \circ (P_l^T a_t) / \sqrt{L m}

    costs O((rows + cols) L m) for each t, and A is never formed. The entries of Γ have mean 0 and
    variance 1/m and are uncorrelated, :math:`E[\Gamma\Gamma^T] = I`, but not independent.

    Parameters
    ----------
    rows, cols, m : int
        Shape of the weight matrix, and sketch dimension.
    row_stream, col_stream : tuple of int
        Random streams of Q and P, which must differ; each int is in [0, 2**64). A factor depends
        only on its stream and on L m. Factors with the same stream are equal, in any projection and
        on either side, and a shorter one consists of the first rows of a longer one.
    terms : int, default=1
        L. More terms bring the spread closer to that of a Gaussian projection.

    Notes
    -----
    Columns of Γ are independent, so :math:`\mathrm{Var}\|g\Gamma\|^2 = (E z^4 - \|A\|_F^4)/m` with
    :math:`z = q^T A p` [2]_. For signs, :math:`E(u^T p)^4 = 3\|u\|^4 - 2\sum_j u_j^4` and
    :math:`E(q^T M q)^2 = (\mathrm{tr} M)^2 + 2\|M\|_F^2 - 2\sum_i M_{ii}^2` for symmetric M. Apply
    the first with :math:`u = A^T q`, the second with :math:`M = AA^T`, and the first again with the
    columns of A as u:

    .. math::
        m \mathrm{Var}\|g\Gamma\|^2 = 2\|A\|_F^4 + 6\|AA^T\|_F^2
        - 6\sum_i \|A_{i\cdot}\|^4 - 6\sum_j \|A_{\cdot j}\|^4 + 4\sum_{ij} A_{ij}^4.

    This is for L = 1. In general, all terms but the first, the excess over a Gaussian projection,
    are divided by L. For :math:`A = \delta a^T` with :math:`\|\delta\| = \|a\| = 1` and L = 1 the
    value is :math:`(3 - 2\sum_i \delta_i^4)(3 - 2\sum_j a_j^4) - 1 \leq 8`, compared with 2 for a
    Gaussian projection. In general it is at most :math:`2 + 6\|AA^T\|_F^2 / L` for
    :math:`\|A\|_F = 1`: the bound falls from :math:`2 + 6 / L` for rank one towards 2 as the energy
    of A spreads over more directions.

    Let a bias, a (rows × 1) matrix b, have the `row_stream` of its weight and another `col_stream`.
    It is then a further column of A: the two sketches add up to the sketch of [A b], to which all
    of this applies.

    References
    ----------
    .. [1] Y. Sun, Y. Guo, J. A. Tropp, M. Udell. "Tensor Random Projection for Low Memory
       Dimension Reduction". NeurIPS Workshop, 2018. :arxiv:`2105.00105`
    .. [2] Z. Bujanović, D. Kressner. "Norm and Trace Estimation with Random Rank-one Vectors".
       SIAM Journal on Matrix Analysis and Applications 42(1), 2021. :arxiv:`2004.06433`

    Examples
    --------
    >>> import numpy as np
    >>> projection = ProductProjection(3, 2, m=4, row_stream=(0, 1), col_stream=(0, 2))
    >>> delta, a = np.array([1.0, 2.0, -1.0]), np.array([3.0, 0.5])
    >>> Q, P = projection.row_factor(np.float64), projection.col_factor(np.float64)
    >>> gradient = np.outer(delta, a).reshape(1, 6)
    >>> bool(np.allclose(projection.apply(gradient), (delta @ Q) * (a @ P) / np.sqrt(4)))
    True
    """

    kind = "product"

    def __init__(self, rows, cols, m, row_stream: tuple, col_stream: tuple, terms: int = 1):
        # Do not cache Γ: a model has many, and signs are drawn faster than they are applied.
        super().__init__(rows * cols, m, n_numbers=math.inf)
        self.rows, self.cols, self.terms = rows, cols, terms
        self.row_stream, self.col_stream = tuple(row_stream), tuple(col_stream)
        if self.row_stream == self.col_stream:  # Q would equal P, and Γ would be biased
            raise ValueError(
                "The 'row_stream' and 'col_stream' parameters of ProductProjection must differ. "
                f"Got {row_stream} for both."
            )

    def row_factor(self, dtype=np.float64) -> np.ndarray:
        """Return the Q_l side by side, of shape (rows, L m); read-only, as it may be cached."""
        return self._factor(self.row_stream, self.rows, dtype)

    def col_factor(self, dtype=np.float64) -> np.ndarray:
        """Return the P_l side by side, of shape (cols, L m); read-only, as it may be cached."""
        return self._factor(self.col_stream, self.cols, dtype)

    def _factor(self, stream, n, dtype):
        width = self.terms * self.m
        return self._cached(
            stream, dtype, n * width, lambda: _sign_rows(stream, width, np.arange(n))
        )

    def _draw(self, k):
        i, j = np.divmod(k * BLOCK_ROWS + np.arange(self._n_rows(k)), self.cols)
        width = self.terms * self.m
        signs = _sign_rows(self.row_stream, width, i) * _sign_rows(self.col_stream, width, j)
        return signs.reshape(len(i), self.terms, self.m).sum(1) / np.sqrt(width)
