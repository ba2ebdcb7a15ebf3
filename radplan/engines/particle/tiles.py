"""Particle pencil beams on the fly in the array API: small dense pieces of the matrix, one after another.

The voxels of a beam are sorted into square tiles of the isocentre plane and, in each, by depth; a run of them meets the
spots near its tile that reach its depth. Each such piece is one dense array ``(voxels, spots)``: no piece is kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.arrays import Array, Device
from radplan.engines.particle.field import BeamField
from radplan.kernels.spots import DOSE, ELLIPTIC, REACH, SINGLE, WIDTH, SpotField

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_PAIRS = 2**20
"""Pairs of voxel and spot in a piece, at most."""

_STEPS = 3
"""Rows of a table that a bin may hold beside its first; bins are made that fine."""


@dataclass(frozen=True, eq=False)
class BeamTiles:
    """One beam in pieces.

    Parameters
    ----------
    pieces : tuple of (int, int, array)
        First voxel, one past the last, and the spots that they meet, on the device.
    voxels, spots, tables : dict of arrays
        Properties of voxels ``(m,)`` in the order of the pieces, of spots ``(s,)``, and flat tables, on the device.
    order : array of shape (n,)
        For each row of the model its place in the order of the pieces, or m where the beam does not reach it.
    rows : array of shape (m,)
        The row of each voxel in the order of the pieces.
    count : int
        Number of columns.
    field : SpotField
        Numbers that hold for the whole beam.
    """

    pieces: tuple[tuple[int, int, Array], ...]
    voxels: dict[str, Array]
    spots: dict[str, Array]
    tables: dict[str, Array]
    order: Array
    rows: Array
    count: int
    field: SpotField

    @classmethod
    def of(cls, beam: BeamField, rows: int, place: Device, dtype: str) -> BeamTiles:
        """Return the pieces of a beam for a model of so many rows, on a device."""
        field = beam.field
        order, cuts = _sorted(field)
        spots = _spots(field)
        pieces = tuple(
            (first, last, place.asarray(near, "int64"))
            for first, last in cuts
            for near in [_near(field, spots, order[first:last])]
            if near.size
        )
        where = np.full(rows, order.size, dtype=np.int64)
        where[beam.rows[order]] = np.arange(order.size)
        voxels = dict(zip("xyz", field.points[order].T, strict=True)) | {"depth": field.depths[order]}
        voxels["behind"] = voxels["z"] - field.track_start
        bins, starts, per_mm = _bins(field)
        tables = {"knots": field.knots, "table": field.table.reshape(-1), "tracks": field.tracks.reshape(-1)}
        whole = {"bins": bins, "factors": field.factors.reshape(-1)}
        spots["bin"] = starts[field.energies]
        return cls(
            pieces,
            {name: place.asarray(np.ascontiguousarray(values), dtype) for name, values in voxels.items()}
            | {"tissue": place.asarray(field.tissues[order], "int64")},
            {name: place.asarray(values, "int64" if name in _WHOLE else dtype) for name, values in spots.items()},
            {name: place.asarray(values, dtype) for name, values in tables.items()}
            | {name: place.asarray(values, "int64") for name, values in whole.items()},
            place.asarray(where, "int64"),
            place.asarray(beam.rows[order], "int64"),
            beam.count,
            field._replace(per_mm=per_mm),
        )

    def forward(self, images: Sequence[int], x: Array) -> list[Array]:
        """Return images ``(rows,)`` of weights ``(cols,)``."""
        xp = arrays.namespace(x)
        parts: list[list[Array]] = [[] for _ in images]
        at = 0
        for first, last, near in self.pieces:
            weights = xp.take(x, xp.take(self.spots["column"], near))
            for k, block in enumerate(self._piece(first, last, near, images)):
                parts[k] += [self._nothing(first - at), xp.matmul(block, weights)]
            at = last
        tail = self._nothing(self.rows.shape[0] - at + 1)
        return [xp.take(xp.concat([*part, tail]), self.order) for part in parts]

    def adjoint(self, images: Sequence[int], ys: Sequence[Array], squares: bool) -> Array:
        """Return the columns' sums ``(cols,)`` of values ``(rows,)`` of images, entries squared or not."""
        xp = arrays.namespace(ys[0])
        sent = [xp.take(y, self.rows) for y in ys]
        columns, sums = [], []
        for first, last, near in self.pieces:
            total = None
            for values, block in zip(sent, self._piece(first, last, near, images), strict=True):
                part = xp.matmul(values[first:last], block**2 if squares else block)
                total = part if total is None else total + part
            columns.append(xp.take(self.spots["column"], near))
            sums.append(total)
        if not sums:
            return xp.zeros(self.count, dtype=ys[0].dtype, device=arrays.native_device(ys[0]))
        return arrays.segment_add(self.count, xp.concat(columns), xp.concat(sums))

    def _nothing(self, count: int) -> Array:
        ref = self.voxels["depth"]
        return arrays.namespace(ref).zeros(count, dtype=ref.dtype, device=arrays.native_device(ref))

    def _piece(self, first: int, last: int, near: Array, images: Sequence[int]) -> list[Array]:
        """Return the piece ``(voxels, spots)`` of each image."""
        xp = arrays.namespace(near)
        spot = {name: xp.take(values, near)[None, :] for name, values in self.spots.items()}
        voxel = {name: values[first:last][:, None] for name, values in self.voxels.items()}
        z = voxel["z"] - spot["oz"]
        qx, qy = voxel["x"] - spot["ox"] - z * spot["ux"], voxel["y"] - spot["oy"] - z * spot["uy"]
        back = (qx * spot["ux"] + qy * spot["uy"]) / spot["norm2"]
        r2 = qx**2 + qy**2 - back**2 * spot["norm2"]
        t = self._depth(voxel, spot) + spot["shift"]
        row, part = self._look_up(t, spot)

        def read(column: Any) -> Array:
            low, high = (
                arrays.gather(self.tables["table"], (row + n) * self.field.table.shape[1] + column) for n in (0, 1)
            )
            return low + part * (high - low)

        inside = (r2 <= read(REACH)) & (t <= spot["end"]) & (r2 * (self.field.sad / voxel["z"]) ** 2 <= spot["cap"])
        dx, dy = qx - back * spot["ux"], qy - back * spot["uy"]
        dose = read(DOSE) * spot["share"] * self._profile(read, self._beam(voxel, spot), dx, dy, r2)
        dose = xp.where(inside, dose, xp.zeros_like(dose))
        made = []
        for image in images:
            factor = None
            if image > 0:
                kinds = self.field.factors.shape[1]
                factor = read(arrays.gather(self.tables["factors"], voxel["tissue"] * kinds + (image - 1)))
                if (least := float(self.field.thresholds[image - 1])) > 0.0:
                    factor = xp.astype(factor > least, dose.dtype)
            made.append(dose if factor is None else dose * factor)
        return made

    def _beam(self, voxel: dict[str, Array], spot: dict[str, Array]) -> tuple[Array, Array]:
        """Return the variances of the beam along x and y where voxels lie; one for all where it does not drift."""
        if not self.field.variances[:, [1, 2, 4, 5]].any():
            return spot["x0"], spot["y0"]
        h = voxel["behind"] + (self.field.track_start - self.field.sad)
        along = [spot[axis + "0"] + h * (spot[axis + "1"] + h * spot[axis + "2"]) for axis in "xy"]
        return along[0], along[1]

    def _profile(self, read: Any, beam: tuple[Array, Array], dx: Array, dy: Array, r2: Array) -> Array:
        """Return the lateral profile [1/mm^2]."""
        field, turn = self.field, 0.5 / math.pi
        even = np.array_equal(field.variances[:, :3], field.variances[:, 3:])
        first = read(WIDTH) ** 2
        if field.model == ELLIPTIC:
            return turn * _gaussian(first + beam[0], read(WIDTH + 1) ** 2 + beam[1], dx, dy)

        def spot(square: Array) -> Array:
            return _round(square + beam[0], r2) if even else _gaussian(square + beam[0], square + beam[1], dx, dy)

        if field.model == SINGLE:
            return turn * spot(first)
        share = read(WIDTH + 2)
        return turn * ((1.0 - share) * spot(first) + share * spot(read(WIDTH + 1) ** 2))

    def _depth(self, voxel: dict[str, Array], spot: dict[str, Array]) -> Array:
        """Return the radiological depths of voxels, or those along the spots' rays where they lie."""
        samples = self.field.tracks.shape[1]
        if samples == 0:
            return voxel["depth"]
        xp = arrays.namespace(voxel["x"])
        # Why: distances from a far source need more than single precision; only those behind the start are kept.
        x, y, behind = voxel["x"] - spot["ox"], voxel["y"] - spot["oy"], voxel["behind"] - spot["oz"]
        along = (x * spot["ux"] + y * spot["uy"] + behind) / xp.sqrt(spot["norm2"]) + spot["lag"]
        place = along / self.field.track_step
        step = xp.clip(xp.astype(place, xp.int64), 0, samples - 2)
        part = xp.clip(place - xp.astype(step, place.dtype), 0.0, 1.0)
        low, high = (arrays.gather(self.tables["tracks"], spot["track"] * samples + step + n) for n in (0, 1))
        return low + part * (high - low)

    def _look_up(self, t: Array, spot: dict[str, Array]) -> tuple[Array, Array]:
        """Return the table row at or before depths, and how far behind it they lie, for all pairs."""
        xp, knots = arrays.namespace(t), self.tables["knots"]
        within = xp.minimum(xp.maximum(t, spot["begin"]), spot["end"])
        places = spot["bin"] + xp.astype((within - spot["begin"]) * self.field.per_mm, xp.int64)
        row = arrays.gather(self.tables["bins"], places)
        for _ in range(_STEPS):
            behind = (arrays.gather(knots, row + 1) < within) & (row + 1 < spot["last"])
            row = row + xp.astype(behind, xp.int64)
        low, high = arrays.gather(knots, row), arrays.gather(knots, row + 1)
        part = (within - low) / (high - low)
        return row, xp.maximum(part, xp.zeros_like(part))


_WHOLE = ("column", "ray", "track", "last", "bin")
"""Properties of spots that are whole numbers."""


def _round(variance: Array, r2: Array) -> Array:
    """Return a round Gaussian, times two pi."""
    inverse = 1.0 / variance
    return arrays.namespace(r2).exp(-0.5 * r2 * inverse) * inverse


def _gaussian(along_x: Array, along_y: Array, dx: Array, dy: Array) -> Array:
    """Return a Gaussian of two variances, times two pi."""
    xp, p1, p2 = arrays.namespace(dx), 1.0 / along_x, 1.0 / along_y
    return xp.exp(-0.5 * (dx**2 * p1 + dy**2 * p2)) * xp.sqrt(p1 * p2)


def _spots(field: SpotField) -> dict[str, Any]:
    """Return the properties of spots ``(s,)`` by name."""
    ray = np.repeat(np.arange(field.ray_x.size), np.diff(field.ray_spots))
    ux, uy = (field.rays[:, axis] / field.rays[:, 2] for axis in (0, 1))
    last = field.starts[1:][field.energies] - 1
    return {
        "ray": ray,
        "track": field.track_of[ray],
        **{"o" + axis: field.origins[ray, n] for n, axis in enumerate("xyz")},
        "ux": ux[ray],
        "uy": uy[ray],
        "norm2": (1.0 + ux**2 + uy**2)[ray],
        "lag": (field.track_start * (1.0 / np.sqrt(1.0 + ux**2 + uy**2) - 1.0))[ray],
        # Why: infinity would be multiplied by zero in the gradients of some libraries; no ray reaches a kilometre.
        "cap": np.minimum(field.caps, 1e12)[ray],
        "column": field.columns,
        "shift": field.shifts,
        **{axis + str(n): field.variances[:, 3 * k + n] for k, axis in enumerate("xy") for n in range(3)},
        "share": field.shares,
        "begin": field.knots[field.starts[:-1][field.energies]],
        "end": field.knots[last],
        "last": last,
    }


def _bins(field: SpotField) -> tuple[Ints, Ints, float]:
    """Return bins of all tables that hold few rows each, where each table's begin, and how many there are per mm."""
    spans = [field.knots[a:b] for a, b in zip(field.starts[:-1], field.starts[1:], strict=True)]
    narrow = min(float(np.min(span[_STEPS:] - span[:-_STEPS])) for span in spans if span.size > _STEPS)
    per_mm = max(field.per_mm, 1.0 / narrow)
    made = []
    for span, start in zip(spans, field.starts[:-1], strict=True):
        steps = int((span[-1] - span[0]) * per_mm) + 2
        rows = np.searchsorted(span, span[0] + np.arange(steps) / per_mm, side="right") - 1
        made.append(np.minimum(rows, span.size - 2) + start)
    starts = np.concatenate([[0], np.cumsum([part.size for part in made])])[:-1]
    return np.concatenate(made), starts, per_mm


def _sorted(field: SpotField) -> tuple[Ints, list[tuple[int, int]]]:
    """Return the voxels by tile and depth, and the runs that make pieces of about `_PAIRS` pairs."""
    scale = field.sad / field.points[:, 2]
    reach = float(field.envelope.max()) * float(scale.max(initial=1.0))
    side = max(reach, 1.0)
    tiles = np.floor(field.points[:, :2] * scale[:, None] / side).astype(np.int64)
    order = np.lexsort((field.depths, tiles[:, 1], tiles[:, 0]))
    tiles = tiles[order]
    changes = np.flatnonzero(np.any(np.diff(tiles, axis=0) != 0, axis=1)) + 1
    edges = np.concatenate([[0], changes, [order.size]])
    runs = []
    for first, last in itertools.pairwise(edges):
        centre = (tiles[first] + 0.5) * side if last > first else np.zeros(2)
        near = (np.abs(field.ray_x - centre[0]) < 1.5 * side) & (np.abs(field.ray_y - centre[1]) < 1.5 * side)
        met = int(np.diff(field.ray_spots)[near].sum())
        size = max(64, _PAIRS // max(met, 1))
        runs += [(int(a), int(min(a + size, last))) for a in range(first, last, size)]
    return order, runs


def _near(field: SpotField, spots: dict[str, Any], voxels: Ints) -> Ints:
    """Return the spots that may give dose to any of the voxels."""
    points, depths = field.points[voxels], field.depths[voxels]
    plane = points[:, :2] * (field.sad / points[:, 2])[:, None]
    shallow, deep = float(depths.min()), float(depths.max())
    span = field.envelope[min(int(shallow), field.envelope.size - 1) : int(deep) + 1]
    slope = np.max(np.hypot(points[:, 0], points[:, 1]) / points[:, 2]) + 0.05
    room = float(span.max()) * float(np.max(field.sad / points[:, 2])) * math.sqrt(1.0 + slope**2)
    low, high = plane.min(axis=0) - room, plane.max(axis=0) + room
    ray = spots["ray"]
    meets = (field.ray_x >= low[0]) & (field.ray_x <= high[0]) & (field.ray_y >= low[1]) & (field.ray_y <= high[1])
    kept = meets[ray]
    if field.tracks.shape[1] == 0:
        kept &= spots["end"] >= shallow + spots["shift"]
    return np.flatnonzero(kept)
