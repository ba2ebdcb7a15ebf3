"""Particle dose without a matrix: every entry is calculated again in every product, all images in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array, Device
from radplan.engines.particle.field import BeamField, blocks
from radplan.engines.particle.tiles import BeamTiles
from radplan.errors import CalculationError
from radplan.kernels import spot_products
from radplan.operators import OperatorFamily

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class SpotDose(OperatorFamily):
    """The images of all spots of all beams, on the fly; the entries are those that a stored matrix would hold.

    It holds the voxels and rays of each beam and the depth tables: memory does not grow with the number of spots a
    voxel sees. On the host entries are float64 and products exact to rounding; other devices calculate in `dtype`.
    Where spots are finely sampled, `squared_column_norms` leaves out what sub-beamlets have in common.

    Parameters
    ----------
    fields : tuple of BeamField
        The beams, columns in this order.
    rows : int
        Number of voxels of the model.
    device : Device
        Where products run.
    dtype : str
        ``"float32"`` or ``"float64"``.
    """

    fields: tuple[BeamField, ...]
    rows: int
    device: Device
    dtype: str

    def __post_init__(self) -> None:
        if not any(beam.rows.size for beam in self.fields):
            raise CalculationError(
                "no spot gives dose to any voxel: does the dose grid cover the beams in the patient?"
            )

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.rows, sum(beam.count for beam in self.fields)

    @cached_property
    def tiles(self) -> tuple[BeamTiles, ...]:
        """The beams as other libraries than NumPy calculate them."""
        return tuple(BeamTiles.of(beam, self.rows, self.device, self.dtype) for beam in self.fields)

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays it holds on the host."""
        held = (value for beam in self.fields for value in (beam.rows, *beam.field) if isinstance(value, np.ndarray))
        return sum(array.nbytes for array in held)

    def apply_members(self, members: Sequence[int], x: Array) -> list[Array]:
        if self.device.backend != "numpy":
            parts = [t.forward(members, x[s]) for t, s in zip(self.tiles, self._slices(), strict=True)]
            return [sum(part[k] for part in parts[1:]) + parts[0][k] for k in range(len(members))]
        images, weights = np.asarray(members, dtype=np.int64), np.asarray(x, dtype=np.float64)
        total = np.zeros((images.size, self.rows))
        for beam, part in zip(self.fields, self._slices(), strict=True):
            out = np.empty((images.size, beam.rows.size))
            spot_products.forward(beam.field, weights[part].copy(), images, out)
            total[:, beam.rows] += out
        return list(total.astype(self.dtype, copy=False))

    def adjoint_members(self, members: Sequence[int], ys: Sequence[Array]) -> Array:
        return self._sums(members, ys, False)

    def squared_column_norms(self, member: int, row_weights: Array) -> Array:
        return self._sums([member], [row_weights], True)

    def restrict(self, rows: Ints) -> SpotDose:
        number = np.full(self.rows, -1, dtype=np.int32)
        number[rows] = np.arange(rows.size, dtype=np.int32)
        return replace(self, fields=tuple(_chosen(beam, number) for beam in self.fields), rows=int(rows.size))

    def _slices(self) -> list[slice]:
        ends = np.cumsum([beam.count for beam in self.fields])
        return [slice(int(end) - beam.count, int(end)) for beam, end in zip(self.fields, ends, strict=True)]

    def _sums(self, members: Sequence[int], ys: Sequence[Array], squares: bool) -> Array:
        if self.device.backend != "numpy":
            return self.device.xp.concat([tiles.adjoint(members, ys, squares) for tiles in self.tiles])
        images, sent = np.asarray(members, dtype=np.int64), np.stack([np.asarray(y, dtype=np.float64) for y in ys])
        parts = []
        for beam in self.fields:
            sums = np.zeros((spot_products.GROUPS, beam.count))
            spot_products.adjoint(beam.field, np.ascontiguousarray(sent[:, beam.rows]), images, squares, sums)
            parts.append(sums.sum(axis=0))
        return np.concatenate(parts).astype(self.dtype, copy=False)


def _chosen(beam: BeamField, number: npt.NDArray[np.int32]) -> BeamField:
    """Return a beam with those voxels only whose new row number is not negative."""
    now = number[beam.rows]
    kept = np.flatnonzero(now >= 0)
    field = beam.field._replace(
        points=np.ascontiguousarray(beam.field.points[kept]),
        depths=beam.field.depths[kept],
        tissues=beam.field.tissues[kept],
        edges=blocks(kept.size),
    )
    return BeamField(field, now[kept], beam.count)
