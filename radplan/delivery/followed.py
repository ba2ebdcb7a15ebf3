"""An aperture model searched through its trajectories: whatever a solver tries, a linac can follow.

Every opposed pair is described by its centre and half-width, so that its gap is a bound and closed pairs keep a slope;
the positions pass the projection of `LeafTrajectories` before dose is calculated, and gradients come back through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from radplan import arrays
from radplan.arrays import Array, namespace
from radplan.delivery.bixel_apertures import BixelApertures
from radplan.delivery.trajectories import LeafTrajectories
from radplan.engines import ApertureModel
from radplan.engines.aperture.variables import FieldLayout
from radplan.influence import Variables
from radplan.influence.over import ModelOver


@dataclass(frozen=True, eq=False)
class FollowedApertures(ModelOver):
    """A forward model whose variables are centres and half-widths of leaf pairs, and everything else as it was.

    Parameters
    ----------
    model : BixelApertures or ApertureModel
        An aperture model: of bixels or exact.
    trajectories : LeafTrajectories
        Its variables with the limits of a machine.
    """

    model: BixelApertures | ApertureModel
    trajectories: LeafTrajectories

    @property
    def layouts(self) -> tuple[FieldLayout, ...]:
        """Where the variables of every field lie."""
        return self.model.layouts

    @property
    def linear(self) -> bool:
        """Always false."""
        return False

    @cached_property
    def variables(self) -> Variables:
        """Centres and half-widths [mm] in place of leaf ends, within plain bounds; the rest as in the model."""
        limits, count = self.trajectories, self.trajectories.count
        low, high, start = (
            np.array(np.broadcast_to(arrays.to_numpy(given), (count,)), dtype=np.float64)
            for given in (limits.lower, limits.upper, limits.start)
        )
        first = self._firsts
        begin = self.centred(limits.project(start))
        fixed = (high == low)[first] & (high == low)[first + 1]
        outermost = np.minimum(low[first], low[first + 1]), np.maximum(high[first], high[first + 1])
        half = np.concatenate([np.full(t.points * t.pairs, 0.5 * t.gap) for t in limits.tracks])
        for value, ends in ((0, (outermost[0], half)), (1, (outermost[1], 0.5 * (outermost[1] - outermost[0])))):
            bound = low if value == 0 else high
            for position, kept in zip((first, first + 1), ends, strict=True):
                bound[position] = np.where(fixed, begin[position], kept)
        return Variables(
            count=count,
            lower=np.minimum(low, begin),
            upper=np.maximum(high, begin),
            start=begin,
            scale=limits.scale,
            labels=("leaf pair [mm]", *limits.labels[1:]),
        )

    @cached_property
    def _firsts(self) -> Any:
        """Positions of the first leaf end of every pair, on the host."""
        return np.concatenate([np.arange(track.first, track.stop, 2) for track in self.trajectories.tracks])

    def _pairs(self, beside: Array) -> Array:
        """Return `_firsts` where an array lives."""
        return arrays.device_of(beside).asarray(self._firsts, "int64")

    def centred(self, x: Array) -> Array:
        """Return variables of the aperture model in centres and half-widths, ``(count,)`` both."""
        pairs, xp = self._pairs(x), namespace(x)
        first, second = xp.take(x, pairs), xp.take(x, pairs + 1)
        return self._replaced(x, 0.5 * (first + second) - first, 0.5 * (second - first) - second)

    def followed(self, z: Array) -> Array:
        """Return the variables ``(count,)`` of the aperture model at centres and half-widths: a linac follows them."""
        return self.trajectories.project(self._ends(z))

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for at centres and half-widths ``x (count,)``."""
        return self.model.forward(self.followed(x), images)

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images."""
        xp, ends = namespace(x), self._ends(x)
        by_ends = self.trajectories.pullback(ends, self.model.pullback(self.trajectories.project(ends), cotangents))
        pairs = self._pairs(x)
        first, second = xp.take(by_ends, pairs), xp.take(by_ends, pairs + 1)
        return self._replaced(by_ends, second, -first)

    def _ends(self, z: Array) -> Array:
        xp, pairs = namespace(z), self._pairs(z)
        centre, half = xp.take(z, pairs), xp.take(z, pairs + 1)
        return self._replaced(z, -half, centre)

    def _replaced(self, x: Array, first: Array, second: Array) -> Array:
        """Return x with something added at the first and second position of every pair."""
        xp, pairs = namespace(x), self._pairs(x)
        return x + arrays.scatter(x.shape[0], xp.concat([pairs, pairs + 1]), xp.concat([first, second]))
