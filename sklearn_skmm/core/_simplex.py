r"""Projection onto the capped simplex."""

import numpy as np

from sklearn_skmm.core._blocks import total

# The number of entries clipped together; they stay in the processor's cache.
BLOCK = 2**16
# Maximum number of Newton steps before the breakpoints are searched. Usually a few are enough.
NEWTON_STEPS = 12


def project_capped_simplex(v: np.ndarray, cap: float) -> np.ndarray:
    r"""Project onto :math:`\{0 \le s_i \le cap, \sum_i s_i = 1\}`, exactly.

    The projection is :math:`s_i = clip(v_i - \tau, 0, cap)`, where :math:`\tau` is the root of a
    piecewise linear function with breakpoints v and v − cap. Newton's method finds the root once it
    reaches the piece that contains it. Otherwise, a search splits the interval at the median of the
    remaining breakpoints, which halves their number each time. So the cost is O(N) and the root is
    exact.

    Parameters
    ----------
    v : ndarray of shape (N,)
        The point to project.
    cap : float
        Upper bound of each entry, at least 1 / N.

    Returns
    -------
    s : ndarray of shape (N,)
        The nearest feasible point, in the dtype of v.

    Examples
    --------
    >>> import numpy as np
    >>> project_capped_simplex(np.array([3.0, 0.0, 0.0]), cap=0.5)
    array([0.5 , 0.25, 0.25])
    """
    low, high = float(v.min()) - cap, float(v.max())
    # The root if no bound is active, which is the case far from the vertices.
    tau = (total(v) - 1.0) / len(v)
    for _ in range(NEWTON_STEPS):
        if not low < tau < high:
            break
        mass, n_free = _mass(v, tau, cap)
        excess = mass - 1.0
        if excess >= 0.0:
            low = tau
        if excess <= 0.0:
            high = tau
        if not n_free or low == high:
            break
        # If no breakpoint lies between, the step stays on the piece and ends at the root.
        step = excess / n_free
        if abs(step) <= 4.0 * np.finfo(v.dtype).eps * max(abs(tau), cap):
            return _clip_to_sum(v, tau + step, cap)
        tau += step
    return _clip_to_sum(v, _search(v, cap, low, high), cap)


def _mass(v, tau, cap) -> tuple[float, int]:
    """Return the sum of clip(v − τ, 0, cap), and how many of its entries are between the bounds."""
    mass, n_free = 0.0, 0
    for start in range(0, len(v), BLOCK):
        part = v[start : start + BLOCK] - v.dtype.type(tau)
        n_free += int(np.count_nonzero(part > 0.0)) - int(np.count_nonzero(part >= cap))
        mass += total(np.clip(part, 0.0, cap, out=part))
    return mass, n_free


def _search(v, cap, low, high) -> float:
    """Return the exact root between low and high."""
    top = v - cap >= high
    free = (v >= high) & (v - cap <= low) & ~top
    undecided = v[~(top | free | (v <= low))].astype(np.float64)
    n_top, n_free = int(np.count_nonzero(top)), int(np.count_nonzero(free))
    sum_free = float(v[free].sum(dtype=np.float64))
    newton = True
    while undecided.size and low < high:
        tau = None
        if newton:
            # A step along the current linear piece: exact once that piece contains the root.
            tau = _piece_root(undecided, 0.5 * (low + high), cap, n_top, n_free, sum_free)
        if tau is None or not low < tau < high:
            inner = np.concatenate([undecided, undecided - cap])
            inner = inner[(inner > low) & (inner < high)]
            if not inner.size:
                break
            tau = float(np.partition(inner, inner.size // 2)[inner.size // 2])
        newton = not newton
        mass = n_top * cap + sum_free - n_free * tau
        mass += np.clip(undecided - tau, 0.0, cap).sum()
        if mass >= 1.0:
            low = tau
        if mass <= 1.0:
            high = tau
        top = undecided - cap >= high
        free = (undecided >= high) & (undecided - cap <= low) & ~top
        n_top += int(np.count_nonzero(top))
        n_free += int(np.count_nonzero(free))
        sum_free += float(undecided[free].sum())
        undecided = undecided[~(top | free | (undecided <= low))]
    return (sum_free + n_top * cap - 1.0) / n_free if n_free and low < high else low


def _piece_root(v, tau, cap, n_top, n_free, sum_free):
    """Return the root of the linear piece that is active at tau, or None if it is flat."""
    shifted = v - tau
    top = shifted >= cap
    free = (shifted > 0.0) & ~top
    count = n_free + np.count_nonzero(free)
    if not count:
        return None
    total = sum_free + float(v[free].sum()) + (n_top + np.count_nonzero(top)) * cap
    return (total - 1.0) / count


def _clip_to_sum(v, tau, cap):
    """Clip v − tau, then spread the rounding error of the sum over the free entries."""
    s = v - v.dtype.type(tau)
    np.clip(s, 0.0, cap, out=s)
    for _ in range(3):
        residual = 1.0 - total(s)
        if abs(residual) <= np.finfo(s.dtype).eps:
            break
        free = (s > 0.0) & (s < cap)
        count = np.count_nonzero(free)
        if not count:
            break
        np.add(s, s.dtype.type(residual / count), out=s, where=free)
        np.clip(s, 0.0, cap, out=s)
    return s
