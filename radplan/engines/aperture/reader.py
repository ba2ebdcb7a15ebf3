r"""Reading a field's maps at the voxels of a patient from one pose, and the exact transpose.

Of a pose nothing is kept for a voxel but its depth in 16 bits, or not even that. Where a voxel lies on the maps and
its weights are calculated on the way: compiled on NumPy, in the array API elsewhere, some voxels at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.arrays import Array, Device, namespace
from radplan.engines.aperture.depths import DENSITY_UNIT, DepthReader, WeightTable, beam_frame
from radplan.engines.aperture.maps import MapPair
from radplan.engines.photon.terms import Floats, Ints
from radplan.errors import InputError

CHUNK = 1 << 18
"""Voxels that the array-API form holds at once."""

_OFFSET = 32768
"""Codes less this are held on devices, which have no unsigned integers."""


@dataclass(frozen=True, eq=False)
class Voxels:
    """The voxels of a dose grid, and what a machine makes of their depths; the same for all poses.

    Make it with `Voxels.of`.

    Parameters
    ----------
    points : array of shape (3, n)
        World positions [mm].
    table : WeightTable
        Weights by depth and stretch, on the host.
    values : tuple of arrays of shape (d, s, K)
        The same on the device; compiled code takes whole vectors.
    sad : float
        Source-axis distance [mm].
    bend : float
        1 / SAD^2 where distances from the source are straight, 0 where they are axial [1/mm^2].
    device : Device
        Where it lives.
    """

    points: Array
    table: WeightTable
    values: tuple[Array, ...]
    sad: float
    bend: float
    device: Device

    @classmethod
    def of(cls, points: Floats, table: WeightTable, sad: float, straight: bool, place: Device, dtype: str) -> Voxels:
        """Return the voxels at world positions ``(n, 3)`` [mm]."""
        values = table.values
        if place.backend == "numpy":
            from radplan.kernels.lanes import LANES

            blank = np.zeros((*values[0].shape[:2], max(LANES - values[0].shape[2], 0)))
            values = tuple(np.concatenate([one, blank], axis=2) for one in values)
        held = tuple(place.asarray(one, dtype) for one in values)
        return cls(place.asarray(points.T, dtype), table, held, sad, 1.0 / sad**2 if straight else 0.0, place)

    @property
    def compiled(self) -> bool:
        """Whether compiled code reads them: one vector must hold the weights."""
        from radplan.kernels.lanes import LANES

        return self.device.backend == "numpy" and self.lanes == LANES

    @property
    def lanes(self) -> int:
        """Values of a pixel of flat maps."""
        return int(self.values[0].shape[2])

    @property
    def count(self) -> int:
        """Number of voxels n."""
        return int(self.points.shape[1])

    @property
    def dtype(self) -> Any:
        """Of positions and weights."""
        return self.points.dtype

    @property
    def scales(self) -> Floats:
        """How codes and lengths become places in the table (6,), see `radplan.kernels.pose_dose.read_pose`."""
        first, step, columns = (
            self.table.stretch[0],
            self.table.stretch[1] - self.table.stretch[0],
            self.table.stretch.size,
        )
        # Why: the last row and column are never the first of two neighbours, in float32 neither.
        return np.asarray([(1.0 - 1e-6) / self.table.per_row, first * self.sad, 1.0 / (step * self.sad),
                           columns - 1.0001, columns, DENSITY_UNIT])  # fmt: skip

    def restrict(self, rows: Ints) -> Voxels:
        """Return some of them, in the order given."""
        index = self.device.asarray(rows, "int64")
        return replace(self, points=self.device.xp.take(self.points, index, axis=1))


@dataclass(frozen=True, eq=False)
class PoseReader:
    r"""The map from a field's two maps to the voxels, :math:`d_v = (SAD/L)^2 \sum_k w_k(v) M_k(x_v, y_v)`.

    Parameters
    ----------
    voxels : Voxels
        What is read for.
    maps : MapPair
        Where the maps' pixels lie.
    rotation : array of shape (3, 3)
        Columns: the beam's axes in the world, as `radplan.geometry.frames.beam_rotation` gives them.
    isocenter : array of shape (3,)
        World position [mm].
    depths : DepthReader
        Where depths come from.
    codes : array of shape (n,), optional
        Depths as places in the weight table, int16 on devices; calculated whenever they are needed when left out.
    densities : array of shape (2, n), optional
        Lateral densities of primary and scatter, uint8; calculated like the codes where the table is parted.

    Raises
    ------
    InputError
        When compiled code would number more pixels of float32 maps than float32 holds apart.
    """

    voxels: Voxels
    maps: MapPair
    rotation: Floats
    isocenter: Floats
    depths: DepthReader
    codes: Array | None = None
    densities: Array | None = None

    def __post_init__(self) -> None:
        if not self.voxels.compiled or self.voxels.dtype != np.float32:
            return
        from radplan.kernels.pose_dose import COUNTED

        pixels, pitch = sum(a * b for a, b in self.maps.shapes), self.maps.pitch
        if pixels >= COUNTED:
            raise InputError(
                f"the maps of a field have {pixels} pixels of {pitch:g} mm, more than float32 can number: take a "
                "larger pixel, a smaller lateral_cutoff or float64"
            )

    def cached(self) -> PoseReader:
        """Return the reader with its depths held."""
        codes, densities = self._held()
        return replace(self, codes=codes, densities=densities)

    def restrict(self, rows: Ints, voxels: Voxels) -> PoseReader:
        """Return the reader of some voxels: their numbers, and the voxels themselves."""
        index = self.voxels.device.asarray(rows, "int64")
        xp = self.voxels.device.xp
        codes = None if self.codes is None else xp.take(self.codes, index)
        densities = None if self.densities is None else xp.take(self.densities, index, axis=1)
        return replace(self, voxels=voxels, codes=codes, densities=densities)

    def turned(self, angle: float) -> PoseReader:
        """Return the reader with the collimator turned by an angle [degree]."""
        c, s = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
        return replace(self, rotation=self.rotation @ np.asarray([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]]))

    def gather(self, fine: Array, coarse: Array, total: Array) -> Array:
        """Return `total` ``(n,)`` with the dose of the fine ``(K, mx, my)`` and the coarse map added; it is used up."""
        if self.voxels.compiled:
            from radplan.kernels import pose_dose

            flat = self._flat(fine, coarse)
            read = pose_dose.read_few if self.voxels.count < pose_dose.FEW else pose_dose.read_pose
            for part in self._compiled():
                read(*part, flat, total)
            return total
        return total + self._read(fine, coarse, self._values)[0]

    def slopes(self, fine: Array, coarse: Array) -> tuple[Array, Array]:
        """Return the slopes ``(n,)`` of the dose along the maps' x and y [1/mm]."""
        if self.voxels.compiled:
            from radplan.kernels import pose_dose

            out, flat = np.zeros((2, self.voxels.count), dtype=self.voxels.dtype), self._flat(fine, coarse)
            for part in self._compiled():
                pose_dose.read_slopes(*part, flat, out)
            return (out[1], out[0]) if self._swapped else (out[0], out[1])
        found = self._read(fine, coarse, self._slope_pair)
        return found[0], found[1]

    def turn_slope(self, fine: Array, coarse: Array, cotangent: Array) -> Array:
        """Return the slope ``(1,)`` [1/degree] by the collimator's angle of the sum of doses times a cotangent."""
        xp, frame = namespace(fine), beam_frame(self.rotation, self.isocenter, self.voxels.sad, 0.0).tolist()
        along_x, along_y = self.slopes(fine, coarse)
        points = [self.voxels.points[axis, :] for axis in range(3)]
        x, y, z = (sum(points[a] * frame[i + a] for a in range(3)) - frame[i + 3] for i in (0, 4, 8))
        widened = self.voxels.sad / (self.voxels.sad - z)
        # Why: when the collimator turns by a small angle, a voxel moves from (x, y) to (x + y angle, y - x angle).
        moved = (along_x * y - along_y * x) * widened * (math.pi / 180.0)
        return xp.sum(moved * xp.astype(cotangent, moved.dtype), keepdims=True)

    def scatter(self, values: Array) -> tuple[Array, Array]:
        """Return the fine and the coarse map that the transpose of `gather` makes of voxels ``(n,)``."""
        small, large = self.maps.shapes
        pixels, functions = small[0] * small[1], self.maps.core.shape[0]
        if self.voxels.compiled:
            from radplan.kernels import pose_dose

            size = (pixels + large[0] * large[1]) * self.voxels.lanes
            given = np.ascontiguousarray(values, dtype=self.voxels.dtype)
            write = pose_dose.write_few if self.voxels.count < pose_dose.SHARE else pose_dose.write_pose
            written = [write(*part, given, size) for part in self._compiled()]
            flat = sum(written[1:], written[0]).reshape(-1, self.voxels.lanes)[:, :functions]
        else:
            flat = self._write(values, pixels + large[0] * large[1], functions)
        return self._map(flat[:pixels, :], small), self._map(flat[pixels:, :], large)

    @property
    def _swapped(self) -> bool:
        """Whether y is the fast axis of flat maps: voxels that follow one another should lie along it."""
        return bool(abs(self.rotation[2, 0]) > abs(self.rotation[2, 1]))

    def _flat(self, fine: Array, coarse: Array) -> Array:
        """Return both maps pixel by pixel, values of a pixel side by side, flat."""
        lanes, functions = self.voxels.lanes, fine.shape[0]
        pixels = fine.shape[1] * fine.shape[2]
        flat = np.zeros((pixels + coarse.shape[1] * coarse.shape[2], lanes), dtype=self.voxels.dtype)
        order = (1, 2, 0) if self._swapped else (2, 1, 0)
        for part, values in ((flat[:pixels], fine), (flat[pixels:], coarse)):
            turned = np.transpose(values, order)
            part.reshape(*turned.shape[:2], lanes)[..., :functions] = turned
        return flat.reshape(-1)

    def _map(self, flat: Array, shape: tuple[int, int]) -> Array:
        """Return a map ``(K, mx, my)`` from its pixels ``(mx my, K)``."""
        xp = namespace(flat)
        if self._swapped:
            return xp.permute_dims(xp.reshape(flat, (*shape, flat.shape[1])), (2, 0, 1))
        return xp.permute_dims(xp.reshape(flat, (shape[1], shape[0], flat.shape[1])), (2, 1, 0))

    def _geometry(self) -> tuple[Floats, Floats]:
        """Return the frame (14,) and the blocks (2, 7), the fast axis first."""
        frame = beam_frame(self.rotation, self.isocenter, self.voxels.sad, self.voxels.bend)
        blocks = self.maps.blocks
        if self._swapped:
            frame = frame[[4, 5, 6, 7, 0, 1, 2, 3, *range(8, 14)]]
            rows = np.asarray([shape[1] for shape in self.maps.shapes], dtype=np.float64)
            blocks = np.concatenate([blocks[:, [0, 2, 1, 4, 3]], rows[:, None], blocks[:, 6:]], axis=1)
        return frame, blocks

    def _held(self) -> tuple[Array, Array | None]:
        """Return codes and densities, calculated if they are not held."""
        if self.codes is not None:
            return self.codes, self.densities
        points, place = arrays.to_numpy(self.voxels.points), self.voxels.device
        codes, densities = self.depths.read(self.voxels.table, self.rotation, self.isocenter, points)
        if place.backend == "numpy":
            return codes, densities
        widths = None if densities is None else place.asarray(densities, "uint8")
        return place.asarray((codes.astype(np.int32) - _OFFSET).astype(np.int16), "int16"), widths

    def _compiled(self) -> list[tuple[Array, ...]]:
        """Return what all compiled functions take first, for every part of the weights."""
        voxels, (frame, blocks), (codes, densities) = self.voxels, self._geometry(), self._held()
        real: npt.DTypeLike = voxels.dtype
        parts = []
        for number, values in enumerate(voxels.values):
            widths = np.zeros(0, dtype=np.uint8) if densities is None else densities[number]
            parts.append((voxels.points, frame.astype(real), codes, widths, values, voxels.scales.astype(real),
                          blocks.astype(real)))  # fmt: skip
        return parts

    def _chunks(self) -> Iterator[tuple[slice, _Places]]:
        (codes, densities), (frame, blocks) = self._held(), self._geometry()
        for start in range(0, self.voxels.count, CHUNK):
            part = slice(start, min(start + CHUNK, self.voxels.count))
            widths = None if densities is None else densities[:, part]
            yield part, _places(self.voxels, codes[part], widths, part, frame.tolist(), blocks.tolist())

    def _read(self, fine: Array, coarse: Array, kinds: Any) -> list[Array]:
        """Return sums over taps whose shares `kinds` makes of a chunk, one array ``(n,)`` for each."""
        xp, functions = namespace(fine), fine.shape[0]
        order = (1, 2, 0) if self._swapped else (2, 1, 0)
        flat = xp.concat([xp.reshape(xp.permute_dims(a, order), (-1, functions)) for a in (fine, coarse)])
        found: list[list[Array]] = []
        for _, places in self._chunks():
            taps = kinds(places)
            sums = [xp.zeros_like(places.weights) for _ in taps]
            for across in range(4):
                for along in range(4):
                    pixel = xp.take(flat, places.pixel + places.step * across + along, axis=0)
                    for number, (x, y) in enumerate(taps):
                        sums[number] = sums[number] + (x[along] * y[across])[:, None] * pixel
            found.append([xp.sum(one * places.weights, axis=1) for one in sums])
        return [xp.concat([part[number] for part in found]) for number in range(len(found[0]))]

    def _values(self, places: _Places) -> list[tuple[list[Array], list[Array]]]:
        return [(_shares(places.x), _shares(places.y))]

    def _slope_pair(self, places: _Places) -> list[tuple[list[Array], list[Array]]]:
        fast = ([s * places.scale for s in _slopes(places.x)], _shares(places.y))
        slow = (_shares(places.x), [s * places.scale for s in _slopes(places.y)])
        return [slow, fast] if self._swapped else [fast, slow]

    def _write(self, values: Array, pixels: int, functions: int) -> Array:
        """Return the pixels ``(pixels, K)`` of both maps."""
        xp, place = namespace(values), self.voxels.device
        flat = xp.zeros(pixels * functions, dtype=self.voxels.dtype, device=place.native)
        for part, places in self._chunks():
            parts = xp.astype(values[part], self.voxels.dtype)[:, None] * places.weights
            lanes = xp.arange(functions, dtype=places.pixel.dtype, device=place.native)[None, :]
            x, y = _shares(places.x), _shares(places.y)
            for across in range(4):
                for along in range(4):
                    index = (places.pixel + places.step * across + along)[:, None] * functions + lanes
                    added = (x[along] * y[across])[:, None] * parts
                    flat = flat + arrays.segment_add(
                        pixels * functions, xp.reshape(index, (-1,)), xp.reshape(added, (-1,))
                    )
        return xp.reshape(flat, (pixels, functions))


@dataclass(frozen=True, eq=False)
class _Places:
    """Where some voxels lie: first of 4 x 4 pixels and way to the next row, fractions, pixels per mm, weights."""

    pixel: Array
    step: Array
    x: Array
    y: Array
    scale: Array
    weights: Array


def _places(
    voxels: Voxels, codes: Array, densities: Array | None, part: slice, frame: list[float], blocks: list[list[float]]
) -> _Places:
    """Return where voxels lie on the maps; the same sums as the compiled `radplan.kernels.pose_dose`."""
    xp, real = voxels.device.xp, voxels.dtype
    x, y, z = voxels.points[0, part], voxels.points[1, part], voxels.points[2, part]
    along = [x * frame[i] + y * frame[i + 1] + z * frame[i + 2] - frame[i + 3] for i in (0, 4, 8)]
    axial = voxels.sad - along[2]
    u, v = along[0] * voxels.sad / axial, along[1] * voxels.sad / axial
    length = axial * xp.sqrt(1.0 + (u * u + v * v) * voxels.bend)
    inside, at = [], []
    for scale, first, second, right, top, _, _ in blocks:
        a, b = u * scale - first, v * scale - second
        inside.append((a > 1.0) & (b > 1.0) & (a < right) & (b < top))
        at.append((a, b))
    near, known = inside[0], inside[1] & (axial > 0.0)
    one = xp.ones_like(u)
    a, b = (xp.where(known, xp.where(near, at[0][i], at[1][i]), one) for i in (0, 1))
    i, j = xp.floor(a), xp.floor(b)
    small, large = (int(row[5]) for row in blocks)
    integer = xp.int64
    step = xp.where(near, xp.full_like(xp.astype(i, integer), small), xp.full_like(xp.astype(i, integer), large))
    origin = xp.where(near, xp.zeros_like(step), xp.full_like(step, int(blocks[1][6])))
    pixel = origin + (xp.astype(j, integer) - 1) * step + xp.astype(i, integer) - 1
    factor = xp.where(known, (voxels.sad / length) ** 2, xp.zeros_like(u))
    scale = xp.where(near, one * blocks[0][0], one * blocks[1][0])
    weights = _weights(voxels, xp.astype(codes, real), densities, length) * factor[:, None]
    return _Places(pixel, step, a - i, b - j, scale, weights)


def _weights(voxels: Voxels, codes: Array, densities: Array | None, length: Array) -> Array:
    """Return the weights ``(m, K)`` of codes at distances from the source."""
    xp, total = voxels.device.xp, 0.0
    per_code, first, per_length, last, columns, unit = voxels.scales.tolist()
    offset = 0.0 if voxels.device.backend == "numpy" else float(_OFFSET)
    rows = (codes + offset) * per_code
    row = xp.floor(rows)
    down = (rows - row)[:, None]
    for number, values in enumerate(voxels.values):
        wide = length if densities is None else length * (xp.astype(densities[number, :], length.dtype) * unit)
        places = xp.clip((wide - first) * per_length, 0.0, last)
        column = xp.floor(places)
        right = (places - column)[:, None]
        flat = xp.reshape(values, (-1, values.shape[2]))
        entry = xp.astype(row, xp.int64) * int(columns) + xp.astype(column, xp.int64)
        upper = xp.take(flat, entry, axis=0) * (1.0 - right) + xp.take(flat, entry + 1, axis=0) * right
        entry = entry + int(columns)
        lower = xp.take(flat, entry, axis=0) * (1.0 - right) + xp.take(flat, entry + 1, axis=0) * right
        total = total + upper * (1.0 - down) + lower * down
    return total


def _shares(f: Array) -> list[Array]:
    """Return what four neighbouring pixels contribute to a place a fraction `f` past the second: cubic B-splines."""
    g = 1.0 - f
    return [g * g * g / 6.0, 2.0 / 3.0 - f * f * (1.0 - 0.5 * f), 2.0 / 3.0 - g * g * (1.0 - 0.5 * g), f * f * f / 6.0]


def _slopes(f: Array) -> list[Array]:
    """Return the slopes of `_shares`."""
    g = 1.0 - f
    return [-0.5 * g * g, 1.5 * f * f - 2.0 * f, 2.0 * g - 1.5 * g * g, 0.5 * f * f]
