"""Dose of what a linac delivers from one pose: positions to fluence, fluence to maps, maps to voxels, and back."""

from __future__ import annotations

from dataclasses import dataclass, replace

from radplan.arrays import Array, namespace
from radplan.engines.aperture.fluence import ApertureFluence, Motion
from radplan.engines.aperture.head import HeadScatter
from radplan.engines.aperture.maps import MapPair
from radplan.engines.aperture.reader import PoseReader, Voxels
from radplan.engines.aperture.variables import FieldLayout
from radplan.engines.photon.terms import Ints

_BATCH = 16
"""Segments whose openings are held at once."""


@dataclass(frozen=True, eq=False)
class PosePart:
    """What is delivered from one position of gantry, couch, collimator and isocentre.

    Parameters
    ----------
    layout : FieldLayout
        The field's variables.
    fluence : ApertureFluence
        From positions to fluence.
    begin, end : array of shape (s, o)
        Shares of the field's openings in the positions at the begin and the end of every piece.
    portions : array of shape (s, m)
        Shares of the field's monitor units in every piece.
    profile : array of shape (nx, ny)
        In-air fluence off axis.
    maps : MapPair
        From fluence to maps.
    read : PoseReader
        From maps to voxels.
    scatter : HeadScatter, optional
        Adds head scatter to the fluence; there is none when left out.
    """

    layout: FieldLayout
    fluence: ApertureFluence
    begin: Array
    end: Array
    portions: Array
    profile: Array
    maps: MapPair
    read: PoseReader
    scatter: HeadScatter | None = None

    def add_dose(self, x: Array, total: Array) -> Array:
        """Return `total` ``(n,)``, which is used up, with the dose of every voxel at all variables added."""
        return self._turned_reader(x).gather(*self.maps.maps(self.seen_fluence(x)), total)

    def seen_fluence(self, x: Array) -> Array:
        """Return the fluence ``(nx, ny)`` [MU] that blurs into dose."""
        fluence = self.total_fluence(x)
        return (fluence if self.scatter is None else self.scatter.apply(fluence)) * self.profile

    def _turned_reader(self, x: Array) -> PoseReader:
        """Return the reader with the collimator as the variables have it."""
        return self.read.turned(float(x[self.layout.turn_slice.start])) if self.layout.turns else self.read

    def total_fluence(self, x: Array) -> Array:
        """Return the fluence ``(nx, ny)`` [MU], before head scatter and off-axis profile."""
        parts = [self._turned(self.fluence.fluence(self._motion(x, batch))) for batch in self._batches()]
        return sum(parts[1:], parts[0])

    def add_pullback(self, x: Array, cotangent: Array, total: Array) -> Array:
        """Return `total`, of the field's variables, with the gradient for cotangents ``(n,)`` on the dose added."""
        xp, read = namespace(total), self._turned_reader(x)
        image = self.maps.fluence(*read.scatter(cotangent))
        seen = xp.astype(image, total.dtype) * self.profile
        back = self._turned(seen if self.scatter is None else self.scatter.adjoint(seen))
        for batch in self._batches():
            total = total + self._to_variables(self.fluence.pullback(self._motion(x, batch), back), batch)
        if not self.layout.turns:
            return total
        turn = read.turn_slope(*self.maps.maps(self.seen_fluence(x)), cotangent)
        return xp.concat([total[:-1], total[-1:] + xp.astype(turn, total.dtype)])

    def restrict(self, rows: Ints, voxels: Voxels) -> PosePart:
        """Return the part for some voxels: their numbers, and the voxels themselves."""
        return replace(self, read=self.read.restrict(rows, voxels))

    def _batches(self) -> list[slice]:
        count = self.begin.shape[0]
        return [slice(i, min(i + _BATCH, count)) for i in range(0, count, _BATCH)]

    def _turned(self, image: Array) -> Array:
        """Return an image with its axes exchanged where leaves move along y."""
        return namespace(image).permute_dims(image, (1, 0)) if self.layout.field.leaf_axis == "y" else image

    def _motion(self, x: Array, batch: slice) -> Motion:
        """Return the positions of some pieces at all variables."""
        xp, layout = namespace(x), self.layout
        leaves = xp.reshape(x[layout.leaf_slice], (layout.leaves.shape[0], -1))
        jaws = xp.reshape(x[layout.jaw_slice], (-1, 4))
        ends, blocks = [], []
        for shares in (self.begin[batch, :], self.end[batch, :]):
            ends.append(xp.reshape(xp.matmul(shares, leaves), (shares.shape[0], -1, 2)))
            blocks.append(xp.matmul(shares, jaws))
        along, across = ((0, 2), (2, 4)) if layout.field.leaf_axis == "x" else ((2, 4), (0, 2))
        return Motion(
            leaves=(ends[0], ends[1]),
            along=(blocks[0][:, along[0] : along[1]], blocks[1][:, along[0] : along[1]]),
            across=(blocks[0][:, across[0] : across[1]], blocks[1][:, across[0] : across[1]]),
            mu=xp.matmul(self.portions[batch, :], x[layout.mu_slice]),
        )

    def _to_variables(self, motion: Motion, batch: slice) -> Array:
        """Return the gradient by the field's variables of cotangents on the positions of some pieces."""
        xp = namespace(motion.mu)
        order = (motion.along, motion.across) if self.layout.field.leaf_axis == "x" else (motion.across, motion.along)
        leaves: Array = 0.0
        jaws: Array = 0.0
        for t, shares in enumerate((self.begin[batch, :], self.end[batch, :])):
            turned = xp.permute_dims(shares, (1, 0))
            leaves = leaves + xp.matmul(turned, xp.reshape(motion.leaves[t], (shares.shape[0], -1)))
            jaws = jaws + xp.matmul(turned, xp.concat([order[0][t], order[1][t]], axis=1))
        mu = xp.matmul(xp.permute_dims(self.portions[batch, :], (1, 0)), motion.mu)
        parts = [xp.reshape(leaves, (-1,)), xp.reshape(jaws, (-1,)), mu]
        return xp.concat(parts + [xp.zeros_like(mu[:1])] * self.layout.turns)
