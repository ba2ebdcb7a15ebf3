"""Compiled openings of leaves and jaws: edges blurred by a Gaussian source, averaged over pixels and over their way.

The same as the functions of these names in `radplan.engines.aperture.edges`. An edge is blurred only near itself:
farther than `REACH` standard deviations the pixel is dark or open, and nothing is calculated. One thread does it all:
a pose has so little to do here that waking others takes ten times as long.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

Array = Any

REACH = 7.0
"""Standard deviations of the source beyond which an edge is sharp: it is so within 2e-12."""

_PER_ROOT_TWO = 1.0 / math.sqrt(2.0)
_PER_ROOT_TWO_PI = 1.0 / math.sqrt(2.0 * math.pi)


@njit(cache=True, inline="always")
def _first(u: float, sigma: float) -> tuple[float, float]:
    """Return the blurred edge at a distance [mm] and its integral [mm]."""
    edge = 0.5 * (1.0 + math.erf(u * (_PER_ROOT_TWO / sigma)))
    slope = math.exp(-0.5 * (u / sigma) ** 2) * (sigma * _PER_ROOT_TWO_PI)
    return edge, u * edge + slope


@njit(cache=True)
def _passed(edge: float, begin: float, end: float, sigma: float, short: float, node: float) -> float:
    """Return the integral of an edge that goes from begin to end, averaged over its way [mm]."""
    far = REACH * sigma
    if edge <= min(begin, end) - far:
        return 0.0
    if edge >= max(begin, end) + far:
        return edge - 0.5 * (begin + end)
    way = end - begin
    if way == 0.0:
        return _first(edge - begin, sigma)[1]
    if abs(way) < short:
        near = _first(edge - begin - node * way, sigma)[1]
        return 0.5 * (near + _first(edge - begin - (1.0 - node) * way, sigma)[1])
    first, last = edge - begin, edge - end
    a, at_first = _first(first, sigma)
    b, at_last = _first(last, sigma)
    # the second integral is (u F + sigma^2 edge) / 2 with F the first
    return 0.5 * (first * at_first + sigma**2 * a - last * at_last - sigma**2 * b) / way


@njit(cache=True)
def _slopes(edge: float, begin: float, end: float, sigma: float, short: float, node: float) -> tuple[float, float]:
    """Return the derivatives of `_passed` with respect to begin and end."""
    far = REACH * sigma
    if edge <= min(begin, end) - far:
        return 0.0, 0.0
    if edge >= max(begin, end) + far:
        return -0.5, -0.5
    way = end - begin
    if way == 0.0:
        half = -0.5 * _first(edge - begin, sigma)[0]
        return half, half
    if abs(way) < short:
        one = 0.5 * _first(edge - begin - node * way, sigma)[0]
        two = 0.5 * _first(edge - begin - (1.0 - node) * way, sigma)[0]
        return -(1.0 - node) * one - node * two, -node * one - (1.0 - node) * two
    first, last = edge - begin, edge - end
    a, at_first = _first(first, sigma)
    b, at_last = _first(last, sigma)
    mean = 0.5 * (first * at_first + sigma**2 * a - last * at_last - sigma**2 * b) / way
    return (mean - at_first) / way, (at_last - mean) / way


@njit(cache=True)
def openings(edges: Array, begin: Array, end: Array, sigma: float, short: float, node: float, out: Array) -> None:
    """Write the share of every pixel that intervals with moving ends leave open.

    Parameters
    ----------
    edges : float64 array of shape (p + 1,)
        Increasing edges of the pixels [mm].
    begin, end : float64 array of shape (n, 2)
        Lower and upper end of every interval where it starts and stops [mm].
    sigma : float
        Standard deviation of the source [mm].
    short, node : float
        Way below which two points stand for it [mm], and the first of them in shares of the way.
    out : float64 array of shape (n, p)
        Written.
    """
    for i in range(begin.shape[0]):
        last = 0.0
        for j in range(edges.size):
            lower = _passed(edges[j], begin[i, 0], end[i, 0], sigma, short, node)
            here = lower - _passed(edges[j], begin[i, 1], end[i, 1], sigma, short, node)
            if j > 0:
                out[i, j - 1] = (here - last) / (edges[j] - edges[j - 1])
            last = here


@njit(cache=True)
def openings_pullback(
    cotangent: Array, edges: Array, begin: Array, end: Array, sigma: float, short: float, node: float, out: Array
) -> None:
    """Write the cotangents of begin and end, (2, n, 2), for one (n, p) of `openings`."""
    for i in range(begin.shape[0]):
        totals = np.zeros((2, 2))
        before = 0.0
        for j in range(edges.size):
            after = 0.0
            if j + 1 < edges.size:
                after = cotangent[i, j] / (edges[j + 1] - edges[j])
            share = before - after
            before = after
            for side in range(2):
                by_begin, by_end = _slopes(edges[j], begin[i, side], end[i, side], sigma, short, node)
                totals[0, side] += share * by_begin
                totals[1, side] += share * by_end
        for t in range(2):
            out[t, i, 0] = totals[t, 0]
            out[t, i, 1] = -totals[t, 1]


@njit(cache=True, fastmath=True)
def summed_products(lines: Array, rows: Array, spans: Array, out: Array) -> None:
    """Add the sum of outer products of lines (n, p) and rows (n, q) to `out` (p, q).

    Parameters
    ----------
    spans : int64 array of shape (n, 2)
        First pixel of a row that is not dark, and the first dark one after it.
    """
    for x in range(out.shape[0]):
        for n in range(lines.shape[0]):
            value = lines[n, x]
            if value != 0.0:
                for y in range(spans[n, 0], spans[n, 1]):
                    out[x, y] += value * rows[n, y]


@njit(cache=True, fastmath=True)
def lines_pullback(turned: Array, rows: Array, spans: Array, out: Array) -> None:
    """Write the cotangents (n, p) of lines for one of `summed_products` with its axes exchanged, (q, p)."""
    for n in range(out.shape[0]):
        line = out[n]
        line[:] = 0.0
        for y in range(spans[n, 0], spans[n, 1]):
            value = rows[n, y]
            for x in range(line.size):
                line[x] += turned[y, x] * value


@njit(cache=True, fastmath=True)
def across_pullback(cotangent: Array, lines: Array, spans: Array, out: Array) -> None:
    """Add the cotangents of rows for one (p, q) of `summed_products` to `out` (n, q), within their spans."""
    for n in range(out.shape[0]):
        for x in range(lines.shape[1]):
            value = lines[n, x]
            if value != 0.0:
                for y in range(spans[n, 0], spans[n, 1]):
                    out[n, y] += cotangent[x, y] * value
