"""What surrounds the openings of a field: jaws, and where pairs stand that stay closed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.delivery.sequencing.quantise import FluenceMap
from radplan.errors import InputError
from radplan.machines.limits import MachineLimits
from radplan.machines.mlc import MLC

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_JAW_MARGIN = 5.0
"""How far X jaws stay back from the outermost openings [mm]."""

_BEHIND = 5.0
"""How far behind an X jaw closed pairs stand [mm]."""


SPARE = _JAW_MARGIN + _BEHIND
"""What closed pairs behind a jaw take of the span of a bank [mm]."""


@dataclass(frozen=True, eq=False)
class Frame:
    """Jaws around all openings of a field, and places for closed pairs.

    Parameters
    ----------
    jaws_x, jaws_y : array of shape (2,), optional
        Positions of the jaws [mm]; None: the linac has none there.
    park : (float, float)
        Where closed pairs stand, behind the first and behind the second X jaw [mm].
    outside : array of shape (pairs,)
        Pairs that Y jaws cover.
    middle : float
        Where these stand, closed [mm].
    """

    jaws_x: Floats | None
    jaws_y: Floats | None
    park: tuple[float, float]
    outside: Bools
    middle: float

    @classmethod
    def around(cls, fluence: FluenceMap, mlc: MLC, limits: MachineLimits) -> Frame:
        """Return the frame of a map that has some fluence.

        Raises
        ------
        InputError
            When leaves or jaws do not reach that far, or the leaves of a bank would be farther apart than they can.

        >>> from radplan.machines import library_limits
        >>> values = np.zeros((60, 4))
        >>> values[29:31, 1:3] = 1.0
        >>> limits = library_limits("TrueBeam")
        >>> frame = Frame.around(FluenceMap(values, np.arange(-10.0, 11.0, 5.0)), limits.collimator(), limits)
        >>> frame.jaws_x.tolist(), frame.jaws_y.tolist(), frame.park
        ([-10.0, 10.0], [-5.0, 5.0], (-15.0, 15.0))
        """
        columns = np.flatnonzero(fluence.values.any(axis=0))
        rows = fluence.rows
        low, high = float(fluence.edges[columns[0]]), float(fluence.edges[columns[-1] + 1])
        across = np.asarray([mlc.boundaries[rows.start], mlc.boundaries[rows.stop]])
        along = _within("X", np.asarray([low - _JAW_MARGIN, high + _JAW_MARGIN]), limits, 0)
        outside = np.ones(mlc.pairs, dtype=bool)
        outside[rows] = False
        frame = cls(
            jaws_x=None if limits.jaw_bounds(0) is None else along,
            jaws_y=None if limits.jaw_bounds(1) is None else _within("Y", across, limits, 1),
            park=(float(along[0]) - _BEHIND, float(along[1]) + _BEHIND),
            outside=outside,
            middle=0.5 * (low + high),
        )
        _check_reach(low, high, frame.park, limits)
        return frame

    def parked(self, opened: Floats, closed: Bools, gap: float, span: float) -> Floats:
        """Return leaf ends (pairs, 2) [mm] with the closed pairs in their places.

        A closed pair within the Y jaws stands behind the X jaw that is nearer to the nearest open pair; where a bank
        does not reach from jaw to jaw, all stand behind the one that is nearer to the opening.
        """
        leaves = opened.copy()
        side = np.asarray([-0.5, 0.5]) * gap
        open_pairs = np.flatnonzero(~closed)
        # Why: with pairs behind both jaws a bank would reach from one to the other.
        both = self.park[1] - self.park[0] + gap <= span
        nearer = self._nearer_park(float(opened[open_pairs].mean()))
        for pair in np.flatnonzero(closed):
            if self.outside[pair]:
                leaves[pair] = self.middle + side
                continue
            near = opened[open_pairs[np.argmin(np.abs(open_pairs - pair))]].mean()
            leaves[pair] = (self._nearer_park(near) if both else nearer) + side
        return leaves

    def _nearer_park(self, position: float) -> float:
        return min(self.park, key=lambda place: abs(place - position))


def _within(name: str, opening: Floats, limits: MachineLimits, axis: int) -> Floats:
    """Return jaws that let an opening through and stand where they can."""
    bounds = limits.jaw_bounds(axis)
    if bounds is None:
        return opening
    (low, past), (other_past, high) = bounds
    if opening[0] < low or opening[1] > high:
        raise InputError(
            f"the field reaches from {opening[0]:.0f} to {opening[1]:.0f} mm, but the {name} jaws of {limits.name!r} "
            f"open from {low:g} to {high:g} mm: move the isocentre or turn the collimator"
        )
    return np.asarray([min(opening[0], past), max(opening[1], other_past)])


def _check_reach(low: float, high: float, park: tuple[float, float], limits: MachineLimits) -> None:
    bounds = limits.leaf_bounds
    first, last = min(low, park[0]), max(high, park[1])
    if first < bounds[1][0] or last > bounds[0][1] or first < bounds[0][0] or last > bounds[1][1]:
        raise InputError(
            f"the field needs leaves from {first:.0f} to {last:.0f} mm, but those of {limits.name!r} reach from "
            f"{bounds[1][0]:g} to {bounds[0][1]:g} mm: move the isocentre or turn the collimator"
        )
    wide = high - low + SPARE
    if wide > limits.bank_span:
        raise InputError(
            f"the field is {high - low:.0f} mm wide along its leaves, but leaves of one bank of {limits.name!r} can be "
            f"{limits.bank_span:g} mm apart, {SPARE:g} mm of which closed pairs need to stand behind "
            "a jaw: turn the collimator"
        )
