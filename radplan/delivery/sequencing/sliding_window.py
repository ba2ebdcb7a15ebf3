"""Sliding windows: leaves that cross the field once under beam, as fast as they and the dose rate allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.delivery.sequencing.quantise import FluenceMap
from radplan.errors import InputError

Floats = npt.NDArray[np.float64]

_ROUNDS = 12
"""Turns of what leaks through leaves and how long they take: each changes the other by a few percent."""


@dataclass(frozen=True)
class SweepOptions:
    """How leaves may move in a sliding window.

    Parameters
    ----------
    speed : float
        Of leaves [mm/s], > 0.
    dose_rate : float
        Constant over the field [MU/s], > 0.
    gap : float
        Smallest opening of a pair for fluence: the gap of its ends and twice the leaf offset [mm].
    transmission : float
        Of closed leaves, in [0, 1).
    park : float, optional
        Where pairs wait until it is their turn: behind the jaw [mm]. None where there is no jaw: they do not wait, but
        go more slowly.
    control_points : int
        At how many points of time leaves are stated, evenly spaced, >= 2.

    Raises
    ------
    InputError
        When a value is out of its range.
    """

    speed: float
    dose_rate: float
    gap: float
    transmission: float
    park: float | None
    control_points: int = 160

    def __post_init__(self) -> None:
        if not (self.speed > 0 and self.dose_rate > 0 and self.gap >= 0 and 0 <= self.transmission < 1):
            raise InputError(f"speed, dose rate, gap or transmission of a sliding window out of range: {self}")
        if self.control_points < 2:
            raise InputError(f"a sliding window needs two or more control points, got {self.control_points}")


@dataclass(frozen=True, eq=False)
class Sweep:
    """Openings of leaf pairs over time.

    Parameters
    ----------
    seconds : float
        How long it takes [s].
    mu : float
        Monitor units [MU].
    trailing, leading : array of shape (control points, pairs)
        Where the opening of every pair begins and ends, the leaf offset included [mm].
    swept : array of shape (pairs,)
        Whether a pair opens at all.
    """

    seconds: float
    mu: float
    trailing: Floats
    leading: Floats
    swept: npt.NDArray[np.bool_]


def sliding_window(fluence: FluenceMap, options: SweepOptions) -> Sweep:
    r"""Return the fastest unidirectional sweep that gives a fluence map, transmission included.

    Where fluence rises the leading leaf goes at full speed and the trailing one waits, where it falls the trailing one
    goes and the leading one waits: a row needs :math:`(x_b - x_a)/v + \sum \max(0, \Delta F)/\dot D`, the field as long
    as its slowest row. All other rows wait behind the jaw, closed, until they can just be in time; without jaws their
    leaves go more slowly, since a pair that waits would leak there. What leaks through leaves, :math:`T` times all
    monitor units, is taken off the map first. Fluence below what the smallest gap gives is raised to that.

    Parameters
    ----------
    fluence : FluenceMap
        What every leaf pair should give [MU].
    options : SweepOptions
        Speeds and so on.

    Raises
    ------
    InputError
        When there is no fluence, or no more than what leaks through the leaves.

    Notes
    -----
    Source: Spirou, Chui, Med. Phys. 21 (1994) 1031; Svensson, Källman, Brahme, Phys. Med. Biol. 39 (1994) 37.
    """
    if not fluence.values.any():
        raise InputError("the fluence map is zero everywhere: there is nothing to sequence")
    seconds = 0.0
    opened = fluence.values
    speeds = np.full(len(opened), options.speed)
    for _ in range(_ROUNDS):
        leak = options.transmission * seconds * options.dose_rate
        opened = np.maximum(fluence.values - leak, 0.0) / (1.0 - options.transmission)
        if not opened.any():
            raise InputError(
                f"leaves that let {100 * options.transmission:g} % through would give all of the fluence of this map "
                "while closed: smooth it or give it more fluence"
            )
        opened = _passable(opened, options, speeds)
        seconds = float(np.max(row_seconds(opened, fluence.edges, options)))
        if options.park is None:
            speeds = _slowed(opened, fluence.edges, seconds, options)
    return _sweep(opened, fluence.edges, seconds, options, speeds)


def row_seconds(opened: Floats, edges: Floats, options: SweepOptions) -> Floats:
    """Return how long the sweep of every row takes at least (rows,) [s]; 0 for rows without fluence."""
    ways, waits = _ways_and_waits(opened, edges, options)
    return np.asarray(ways / options.speed + waits)


def _ways_and_waits(opened: Floats, edges: Floats, options: SweepOptions) -> tuple[Floats, Floats]:
    """Return how far the leaves of every row go (rows,) [mm], and how long each of them waits (rows,) [s]."""
    rises = np.maximum(np.diff(opened, axis=1, prepend=0.0), 0.0).sum(axis=1)
    some = opened > 0
    first = edges[some.argmax(axis=1)]
    last = edges[opened.shape[1] - some[:, ::-1].argmax(axis=1)]
    return np.where(some.any(axis=1), last - first, 0.0), rises / options.dose_rate


def _slowed(opened: Floats, edges: Floats, seconds: float, options: SweepOptions) -> Floats:
    """Return at what speed leaves of every row take all the time there is (rows,) [mm/s]."""
    ways, waits = _ways_and_waits(opened, edges, options)
    slow = np.divide(ways, seconds - waits, out=np.full(ways.size, options.speed), where=ways > 0)
    return np.asarray(np.minimum(slow, options.speed))


def swept_fluence(sweep: Sweep, edges: Floats, transmission: float, samples: int = 20) -> Floats:
    """Return the fluence that a sweep gives in every column (pairs, columns) [MU], leaves moving evenly in between.

    A point is open from when the leading end has passed it until the trailing one has.

    Parameters
    ----------
    sweep : Sweep
        Of all pairs.
    edges : array of shape (columns + 1,)
        Columns [mm].
    transmission : float
        Of closed leaves.
    samples : int
        Points per column that are averaged.
    """
    inside = (np.arange(samples) + 0.5) / samples
    x = (edges[:-1, None] + np.diff(edges)[:, None] * inside).ravel()
    units = np.linspace(0.0, sweep.mu, len(sweep.leading))
    given = np.zeros((sweep.leading.shape[1], edges.size - 1))
    for pair in np.flatnonzero(sweep.swept):
        leading, trailing = sweep.leading[:, pair], sweep.trailing[:, pair]
        opens = np.interp(x, leading, units, left=0.0, right=sweep.mu)
        closes = np.interp(x, trailing, units, left=0.0, right=sweep.mu)
        given[pair] = np.maximum(closes - opens, 0.0).reshape(-1, samples).mean(axis=1)
    result: Floats = transmission * sweep.mu + (1.0 - transmission) * given
    return result


def _passable(opened: Floats, options: SweepOptions, speeds: Floats) -> Floats:
    """Return fluence that is, from its first to its last column in a row, at least what the smallest gap gives."""
    least = (options.gap * options.dose_rate / speeds)[:, None]
    some = opened > 0
    within = np.maximum.accumulate(some, axis=1) & np.maximum.accumulate(some[:, ::-1], axis=1)[:, ::-1]
    raised: Floats = np.where(within, np.maximum(opened, least), 0.0)
    return raised


def _sweep(opened: Floats, edges: Floats, seconds: float, options: SweepOptions, speeds: Floats) -> Sweep:
    times = np.linspace(0.0, seconds, options.control_points)
    park = float(edges[0]) if options.park is None else options.park
    trailing = np.full((times.size, opened.shape[0]), park)
    leading = np.full((times.size, opened.shape[0]), park + options.gap)
    swept = np.asarray(opened.any(axis=1))
    for row in np.flatnonzero(swept):
        trailing[:, row], leading[:, row] = _row(opened[row], edges, times, options, float(speeds[row]))
    return Sweep(seconds, seconds * options.dose_rate, trailing, leading, swept)


def _row(opened: Floats, edges: Floats, times: Floats, options: SweepOptions, speed: float) -> tuple[Floats, Floats]:
    """Return where the opening of one row begins and ends (times,) [mm]."""
    some = np.flatnonzero(opened)
    columns = opened[some[0] : some[-1] + 1]
    x = edges[some[0] : some[-1] + 2]
    steps = np.diff(columns, prepend=0.0, append=0.0) / options.dose_rate
    travel = (x - x[0]) / speed
    needed = float(travel[-1] + np.maximum(steps, 0.0).sum())
    spare = max(float(times[-1]) - needed, 0.0)
    park = x[0] if options.park is None else min(options.park, x[0])
    start = max(park, x[0] - spare * options.speed)
    begin = float(times[-1]) - needed - (x[0] - start) / options.speed
    paths = []
    for waits in (np.maximum(steps, 0.0), np.maximum(-steps, 0.0)):
        arrival = spare + travel + np.cumsum(waits) - waits
        moments = np.stack([arrival, arrival + waits], axis=1).ravel()
        places = np.repeat(x, 2)
        paths.append(np.interp(times, np.concatenate([[begin], moments]), np.concatenate([[start], places])))
    trailing, leading = paths
    # Why: a pair begins and ends as wide as it may be closed, not shut.
    leading = np.maximum(leading, np.minimum(trailing + options.gap, x[-1]))
    trailing = np.minimum(trailing, leading - options.gap)
    return trailing, leading
