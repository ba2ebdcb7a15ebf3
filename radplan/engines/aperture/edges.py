r"""Edges of leaves and jaws seen through a Gaussian source: exact averages over pixels and over their way.

An edge at a is :math:`\Phi((x - a)/\sigma)`. Its average over a pixel and over the way of the edge from :math:`a_0` to
:math:`a_1` is closed, with :math:`F = \int \Phi` and :math:`G = \int F`:
:math:`\overline F(e) = [G(e - a_0) - G(e - a_1)] / (a_1 - a_0)` at a pixel's edge e. Nothing is sampled, so that no
leaf moves without a change of the fluence. Compiled on NumPy, in the array API elsewhere.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from radplan.arrays import Array, erf, namespace

_SHORT = 0.05
"""Way of an edge, in standard deviations of the source, below which its average is taken by quadrature."""

_NODES, _SHARES = ((np.polynomial.legendre.leggauss(2)[0] + 1) / 2, np.polynomial.legendre.leggauss(2)[1] / 2)


def edge_average(edges: Array, start: Array, end: Array, sigma: float) -> Array:
    r"""Return :math:`\overline F`, the integral of a blurred edge from minus infinity, averaged over its way.

    Parameters
    ----------
    edges : array of shape (p,)
        Where to evaluate [mm].
    start, end : array of shape (...)
        The edge at the begin and the end of its way [mm].
    sigma : float
        Standard deviation of the source in the isocentre plane, > 0 [mm].

    Returns
    -------
    array of shape (..., p) [mm]

    >>> far = edge_average(np.asarray([100.0]), np.asarray([0.0]), np.asarray([20.0]), 1.0)
    >>> round(float(far[0, 0]), 9)
    90.0
    """
    xp = namespace(edges, start)
    first, last, way, short, divisor = _ways(edges, start, end, sigma)
    swept = (
        _second_integral(first, *_blurred(first, sigma), sigma) - _second_integral(last, *_blurred(last, sigma), sigma)
    ) / divisor
    near = xp.zeros_like(first)
    for node, share in zip(_NODES.tolist(), _SHARES.tolist(), strict=True):
        place = first - node * way
        near = near + share * _integral(place, *_blurred(place, sigma))
    return xp.where(short, near, swept)


def edge_average_pullback(
    cotangent: Array, edges: Array, start: Array, end: Array, sigma: float
) -> tuple[Array, Array]:
    """Return the cotangents ``(...)`` of begin and end of the way, for one ``(..., p)`` of `edge_average`."""
    xp = namespace(edges, start)
    first, last, way, short, divisor = _ways(edges, start, end, sigma)
    at_first, at_last = _blurred(first, sigma), _blurred(last, sigma)
    mean = (_second_integral(first, *at_first, sigma) - _second_integral(last, *at_last, sigma)) / divisor
    begin, finish = (mean - _integral(first, *at_first)) / divisor, (_integral(last, *at_last) - mean) / divisor
    near_begin, near_finish = xp.zeros_like(first), xp.zeros_like(first)
    for node, share in zip(_NODES.tolist(), _SHARES.tolist(), strict=True):
        slope = share * _normal(first - node * way, sigma)
        near_begin, near_finish = near_begin - (1.0 - node) * slope, near_finish - node * slope
    begin, finish = xp.where(short, near_begin, begin), xp.where(short, near_finish, finish)
    return xp.sum(cotangent * begin, axis=-1), xp.sum(cotangent * finish, axis=-1)


def _ways(edges: Array, start: Array, end: Array, sigma: float) -> tuple[Array, Array, Array, Array, Array]:
    """Return distances from begin and end, the way, whether it is short, and what to divide by."""
    xp = namespace(edges, start)
    way = (end - start)[..., None]
    short = xp.abs(way) < _SHORT * sigma
    return edges - start[..., None], edges - end[..., None], way, short, xp.where(short, xp.ones_like(way), way)


def _blurred(u: Array, sigma: float) -> tuple[Array, Array]:
    """Return the blurred edge at a distance [mm], and its slope times the variance [mm]."""
    xp = namespace(u)
    return _normal(u, sigma), xp.exp(u * u * (-0.5 / sigma**2)) * (sigma / math.sqrt(2.0 * math.pi))


def _normal(u: Array, sigma: float) -> Array:
    return 0.5 * (1.0 + erf(u * (1.0 / (math.sqrt(2.0) * sigma))))


def _integral(u: Array, edge: Array, slope: Array) -> Array:
    return u * edge + slope


def _second_integral(u: Array, edge: Array, slope: Array, sigma: float) -> Array:
    return 0.5 * ((u * u + sigma**2) * edge + u * slope)


def openings(edges: Array, begin: Array, end: Array, sigma: float) -> Array:
    """Return the share of every pixel that intervals with moving ends leave open.

    Parameters
    ----------
    edges : array of shape (p + 1,)
        Edges of the pixels [mm].
    begin, end : array of shape (..., 2)
        Both ends of every interval where it starts and stops [mm].
    sigma : float
        Standard deviation of the source in the isocentre plane, > 0 [mm].

    Returns
    -------
    array of shape (..., p) [1]

    >>> share = openings(np.asarray([-10.0, 0.0, 10.0]), np.asarray([[0.0, 20.0]]), np.asarray([[5.0, 20.0]]), 0.1)
    >>> share.round(3).tolist()  # an end that goes from 0 to 5 mm
    [[0.0, 0.75]]
    """
    if isinstance(edges, np.ndarray):
        from radplan.kernels import aperture

        ends = [np.ascontiguousarray(a, dtype=np.float64).reshape(-1, 2) for a in (begin, end)]
        out = np.empty((ends[0].shape[0], edges.size - 1))
        aperture.openings(edges, *ends, sigma, _SHORT * sigma, float(_NODES[0]), out)
        return out.reshape(*begin.shape[:-1], -1)
    passed = edge_average(edges, begin, end, sigma)
    return _differences(passed[..., 0, :] - passed[..., 1, :], edges)


def openings_pullback(cotangent: Array, edges: Array, begin: Array, end: Array, sigma: float) -> tuple[Array, Array]:
    """Return the cotangents ``(..., 2)`` of begin and end for one ``(..., p)`` of `openings`."""
    if isinstance(edges, np.ndarray):
        from radplan.kernels import aperture

        ends = [np.ascontiguousarray(a, dtype=np.float64).reshape(-1, 2) for a in (begin, end)]
        flat = np.ascontiguousarray(cotangent).reshape(-1, edges.size - 1)
        out = np.empty((2, *ends[0].shape))
        aperture.openings_pullback(flat, edges, *ends, sigma, _SHORT * sigma, float(_NODES[0]), out)
        return out[0].reshape(begin.shape), out[1].reshape(begin.shape)
    at_edges = _difference_transposed(cotangent / (edges[1:] - edges[:-1]))
    return edge_average_pullback(namespace(edges).stack([at_edges, -at_edges], axis=-2), edges, begin, end, sigma)


def rows(edges: Array, begin: Array, end: Array, sigma: float) -> Array:
    """Return the share of every pixel ``(s, m, q)`` in a row between moving boundaries ``(s, m + 1)``."""
    if isinstance(edges, np.ndarray):
        return openings(edges, _neighbours(begin), _neighbours(end), sigma)
    passed = edge_average(edges, begin, end, sigma)
    return _differences(passed[:, :-1, :] - passed[:, 1:, :], edges)


def rows_pullback(cotangent: Array, edges: Array, begin: Array, end: Array, sigma: float) -> tuple[Array, Array]:
    """Return the cotangents ``(s, m + 1)`` of the boundaries for one ``(s, m, q)`` of `rows`."""
    xp = namespace(cotangent)
    if isinstance(edges, np.ndarray):
        found = openings_pullback(cotangent, edges, _neighbours(begin), _neighbours(end), sigma)
        first, last = (np.pad(part[..., 0], ((0, 0), (0, 1))) for part in found)
        return first + np.pad(found[0][..., 1], ((0, 0), (1, 0))), last + np.pad(found[1][..., 1], ((0, 0), (1, 0)))
    at_edges = _difference_transposed(cotangent / (edges[1:] - edges[:-1]))
    none = xp.zeros_like(at_edges[:, :1, :])
    spread = xp.concat([at_edges, none], axis=1) - xp.concat([none, at_edges], axis=1)
    return edge_average_pullback(spread, edges, begin, end, sigma)


def row_spans(edges: Array, begin: Array, end: Array, sigma: float) -> Any:
    """Return what pixels ``(s, m, 2)`` may be lit in rows between moving boundaries; None where it is not used."""
    if not isinstance(edges, np.ndarray):
        return None
    from radplan.kernels.aperture import REACH

    low = np.minimum(begin, end)[:, :-1] - REACH * sigma
    high = np.maximum(begin, end)[:, 1:] + REACH * sigma
    first, last = np.searchsorted(edges, low, side="right") - 1, np.searchsorted(edges, high)
    count = edges.size - 1
    return np.stack([np.clip(first, 0, count), np.clip(last, 0, count)], axis=-1)


def whole_spans(edges: Array, count: int) -> Any:
    """Return all pixels ``(count, 2)``, for rows that are lit everywhere; None where `row_spans` is not used."""
    return np.tile([0, edges.size - 1], (count, 1)) if isinstance(edges, np.ndarray) else None


def summed_products(lines: Array, across: Array, spans: Any) -> Array:
    """Return the sum ``(p, q)`` of products of lines ``(..., p)`` with rows ``(..., q)``; see `row_spans`."""
    xp = namespace(lines)
    first, second = (xp.reshape(a, (-1, a.shape[-1])) for a in (lines, across))
    if spans is None:
        return xp.matmul(xp.permute_dims(first, (1, 0)), second)
    from radplan.kernels import aperture

    out = np.zeros((first.shape[1], second.shape[1]))
    aperture.summed_products(first, second, spans.reshape(-1, 2), out)
    return out


def lines_pullback(cotangent: Array, across: Array, spans: Any) -> Array:
    """Return the cotangent ``(..., p)`` of the lines of `summed_products` for one ``(p, q)`` of their sum."""
    xp = namespace(cotangent)
    if spans is None:
        return xp.matmul(across, xp.permute_dims(cotangent, (1, 0)))
    from radplan.kernels import aperture

    out = np.empty((*across.shape[:-1], cotangent.shape[0]))
    flat = across.reshape(-1, across.shape[-1])
    aperture.lines_pullback(cotangent.T.copy(), flat, spans.reshape(-1, 2), out.reshape(-1, out.shape[-1]))
    return out


def across_pullback(cotangent: Array, lines: Array, spans: Any) -> Array:
    """Return the cotangent ``(..., q)`` of the rows of `summed_products` for one ``(p, q)`` of their sum."""
    if spans is None:
        return namespace(cotangent).matmul(lines, cotangent)
    from radplan.kernels import aperture

    out = np.zeros((*lines.shape[:-1], cotangent.shape[1]))
    flat = lines.reshape(-1, lines.shape[-1])
    aperture.across_pullback(cotangent, flat, spans.reshape(-1, 2), out.reshape(-1, out.shape[-1]))
    return out


def _neighbours(bounds: Array) -> Array:
    """Return both boundaries (s, m, 2) of every row."""
    return np.stack(np.broadcast_arrays(bounds[:, :-1], bounds[:, 1:]), axis=-1)


def _differences(between: Array, edges: Array) -> Array:
    return (between[..., 1:] - between[..., :-1]) / (edges[1:] - edges[:-1])


def _difference_transposed(cotangent: Array) -> Array:
    """Return the transpose (..., p + 1) of taking differences of neighbours, (..., p)."""
    xp = namespace(cotangent)
    none = xp.zeros_like(cotangent[..., :1])
    return xp.concat([none, cotangent], axis=-1) - xp.concat([cotangent, none], axis=-1)
