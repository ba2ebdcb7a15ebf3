r"""Maps of a field in two scales: a sharp core on fine pixels around the openings, everything else on coarse ones.

Each radial function is cut in two by a smooth window, :math:`g = g \chi + g (1 - \chi)`. The core :math:`g \chi` ends
at `CORE` and blurs the fluence on fine pixels. The tail is smooth, so that pixels `RATIO` times wider hold it to 0.05 %
of the dose; it goes out to the kernel's end, and with it the fluence far from the openings: what leaks through leaves
and jaws over the whole field of the linac. Coarse pixels lie on fine ones and splines of one are splines of the other,
so that the fine map holds both parts, and a voxel is read from one map only, with no step between the two.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.fft

from radplan import arrays
from radplan.arrays import Array, Device, fast_length, namespace
from radplan.engines.photon.map_gather import MARGIN, SPLINES, spline_response
from radplan.engines.photon.terms import Floats
from radplan.machines.base import KernelBasis

RATIO = 5
"""Width of coarse pixels in fine ones."""

CORE = 22.0
"""Radius at which the core of a kernel ends [mm]."""

WIDEST = 200.0
"""How far the linac's largest field goes from the axis [mm]."""

_TABLE_PITCH = 0.5
"""Largest pixel on which kernels are integrated before they are transformed [mm]."""

_ODD = 11
"""Parts of a coarse pixel's side on which cores are taken from whole kernels."""

_LEAK_BLUR = 1.5
"""Standard deviation of what blurs leakage far from the openings [mm]: edges on coarse pixels would ring."""


def window(radius: Floats) -> Floats:
    """Return the share of a kernel that belongs to its core: 1 on the axis, 0 from `CORE` on, with three slopes.

    >>> window(np.asarray([0.0, 11.0, 22.0])).tolist()
    [1.0, 0.5, 0.0]
    """
    t = np.clip(radius / CORE, 0.0, 1.0)
    return np.asarray(1.0 - t**4 * (35.0 - 84.0 * t + 70.0 * t**2 - 20.0 * t**3))


@dataclass(frozen=True)
class Axis:
    """Pixels along one axis of the isocentre plane.

    Parameters
    ----------
    edges : array of shape (p + 1,)
        Edges of all pixels of the fluence: coarse, fine, coarse [mm].
    fine : (int, int)
        First of the fine pixels, and their number.
    taper : array of shape (p,)
        Share of each pixel that is counted as lying on the fine map.
    node : float
        Place of the fine map's first pixel [mm].
    count : int
        Pixels of the fine map.
    far_node : float
        Place of the coarse map's first pixel [mm].
    far_count : int
        Pixels of the coarse map.
    far_last : float
        Place of the last pixel of the coarse map that is right [mm].
    """

    edges: Floats
    fine: tuple[int, int]
    taper: Floats
    node: float
    count: int
    far_node: float
    far_count: int
    far_last: float

    @classmethod
    def of(cls, opening: tuple[float, float], pitch: float, seen: tuple[float, float], reach: float) -> Axis:
        """Return the pixels for fluence fine in one interval, voxels seen in another and a kernel's end [mm]."""
        far = RATIO * pitch
        taper = 2.0 * far
        number = math.ceil((opening[1] - opening[0] + 2.0 * taper) / pitch - 1e-9)
        low = 0.5 * (opening[0] + opening[1]) - 0.5 * number * pitch
        inner = low + pitch * np.arange(number + 1)
        before = -_outwards(-inner[0], far)[::-1]
        edges = np.concatenate([before, inner, _outwards(inner[-1], far)])
        border = math.ceil(CORE / pitch) + MARGIN + 2
        node = low + 0.5 * pitch - border * pitch
        count = fast_length(number + 2 * border)
        low_end, high_end = min(edges[0], seen[0], node), max(edges[-1], seen[1], node + count * pitch)
        far_node = node - far * math.ceil((node - low_end) / far + MARGIN + 1)
        needed = math.ceil((high_end - far_node) / far + MARGIN + 1) + 1
        far_count = fast_length(needed + math.ceil(reach / far))
        centres = 0.5 * (edges[1:] + edges[:-1])
        t = np.clip(np.minimum(centres - inner[0], inner[-1] - centres) / taper, 0.0, 1.0)
        last = far_node + (needed - 1) * far
        return cls(edges, (before.size, number), t * t * (3.0 - 2.0 * t), node, count, far_node, far_count, last)

    def spreading(self, pitch: float, fine: bool) -> Floats:
        """Return the shares ``(far_count, p)`` of coarse pixels in the fine or the coarse part of the fluence."""
        far = RATIO * pitch
        part = self.taper if fine else 1.0 - self.taper
        centres, widths = 0.5 * (self.edges[1:] + self.edges[:-1]), np.diff(self.edges)
        place = (centres - self.far_node) / far
        first = np.floor(place).astype(np.int64)
        shares = SPLINES["cubic"] @ (place - first) ** np.arange(4)[:, None]
        out = np.zeros((self.far_count, centres.size))
        for tap in range(4):
            out[first - 1 + tap, np.arange(centres.size)] = shares[tap] * widths / far * (part if fine else 1.0)
        return out

    def refining(self, pitch: float) -> Floats:
        """Return the matrix ``(count, far_count)`` from splines on coarse pixels to the same splines on fine ones."""
        box = np.ones(RATIO)
        mask = np.convolve(np.convolve(box, box), np.convolve(box, box)) / RATIO**3
        reach, start = mask.size // 2, round((self.node - self.far_node) / pitch)
        offset = start + np.arange(self.count)[:, None] - RATIO * np.arange(self.far_count) + reach
        return np.where((offset >= 0) & (offset < mask.size), mask[np.clip(offset, 0, mask.size - 1)], 0.0)


def _outwards(start: float, step: float) -> Floats:
    """Return edges beyond `start` up to the largest field."""
    count = max(math.ceil((WIDEST - start) / step - 1e-9), 0)
    return np.asarray(np.minimum(start + step * np.arange(1, count + 1), max(WIDEST, start)))


@dataclass(frozen=True, eq=False)
class MapPair:
    """The map from a field's fluence to its two maps, and its transpose. Make it with `map_pair`.

    Parameters
    ----------
    axes : (Axis, Axis)
        Along x and y.
    pitch : float
        Side of the fine pixels [mm].
    taper : array of shape (nx, ny)
        Share of the fluence's pixels that is counted on the fine map.
    spreading : ((array, array), (array, array))
        Along x and y, for the fine and for the coarse part of the fluence.
    refining : (array, array)
        From coarse to fine pixels along x and y.
    core, tail, full : array of shape (K, ., .)
        Spectra of the cores on fine pixels, of the tails and of the kernels on coarse ones.
    dtype : str
        Of the maps.
    """

    axes: tuple[Axis, Axis]
    pitch: float
    taper: Array
    spreading: tuple[tuple[Array, Array], tuple[Array, Array]]
    refining: tuple[Array, Array]
    core: Array
    tail: Array
    full: Array
    dtype: str

    @property
    def shapes(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Pixels of the fine and of the coarse map."""
        x, y = self.axes
        return (x.count, y.count), (x.far_count, y.far_count)

    @property
    def blocks(self) -> Floats:
        """What `radplan.kernels.pose_dose.read_pose` must know of the maps, x being the fast axis ``(2, 7)``."""
        x, y = self.axes
        far, rows = RATIO * self.pitch, []
        for pitch, nodes, last, counts, first in (
            (self.pitch, (x.node, y.node), (x.count - 2.0, y.count - 2.0), (x.count, y.count), 0),
            (far, (x.far_node, y.far_node), ((x.far_last - x.far_node) / far - 1.0,
             (y.far_last - y.far_node) / far - 1.0), (x.far_count, y.far_count), x.count * y.count),
        ):  # fmt: skip
            rows.append([1.0 / pitch, nodes[0] / pitch, nodes[1] / pitch, *last, counts[0], first])
        return np.asarray(rows)

    def maps(self, fluence: Array) -> tuple[Array, Array]:
        """Return the fine ``(K, mx, my)`` and the coarse map ``(K, lx, ly)`` of a fluence ``(nx, ny)``."""
        xp, (small, large) = namespace(fluence), self.shapes
        fine = xp.astype(fluence * self.taper, self.core.dtype)
        rest = xp.astype(fluence * (1.0 - self.taper), self.core.dtype)
        parts = []
        for image, (sx, sy) in zip((fine, rest), self.spreading, strict=True):
            parts.append(xp.matmul(xp.matmul(sx, image), xp.matrix_transpose(sy)))
        fft = fourier(fine)
        spectra = fft.rfftn(xp.stack(parts), axes=(-2, -1))
        coarse = fft.irfftn(self.tail * spectra[0, ...] + self.full * spectra[1, ...], s=large, axes=(-2, -1))
        spectrum = fft.rfftn(self._padded(fine), axes=(-2, -1))
        sharp = fft.irfftn(self.core * spectrum, s=small, axes=(-2, -1))
        rx, ry = self.refining
        return sharp + xp.matmul(xp.matmul(rx, coarse), xp.matrix_transpose(ry)), coarse

    def fluence(self, fine: Array, coarse: Array) -> Array:
        """Return what the transpose of `maps` makes of cotangents of both maps, ``(nx, ny)`` in the maps' dtype."""
        xp, (small, large), fft = namespace(fine), self.shapes, fourier(fine)
        rx, ry = self.refining
        coarse = coarse + xp.matmul(xp.matmul(xp.matrix_transpose(rx), fine), ry)
        spectra = fft.rfftn(coarse, axes=(-2, -1))
        parts = []
        for transfer, (sx, sy) in zip((self.tail, self.full), self.spreading, strict=True):
            image = fft.irfftn(xp.sum(transfer * spectra, axis=0), s=large, axes=(-2, -1))
            parts.append(xp.matmul(xp.matmul(xp.matrix_transpose(sx), image), sy))
        spectrum = xp.sum(self.core * fft.rfftn(fine, axes=(-2, -1)), axis=0)
        sharp = fft.irfftn(spectrum, s=small, axes=(-2, -1))
        inner = parts[0] + self._unpadded(sharp)
        taper = xp.astype(self.taper, inner.dtype)
        return inner * taper + parts[1] * (1.0 - taper)

    def _starts(self) -> list[tuple[int, int, int]]:
        """Return per axis the first fine pixel of the fluence, their number, and where it lies on the fine map."""
        return [
            (a.fine[0], a.fine[1], round((a.edges[a.fine[0]] + 0.5 * self.pitch - a.node) / self.pitch))
            for a in self.axes
        ]

    def _padded(self, fluence: Array) -> Array:
        """Return the fine part of a fluence on a map of its own."""
        (fx, nx, bx), (fy, ny, by) = self._starts()
        image = fluence[fx : fx + nx, fy : fy + ny]
        return blank_around(blank_around(image, bx, self.shapes[0][0], 0), by, self.shapes[0][1], 1)

    def _unpadded(self, image: Array) -> Array:
        """Return the transpose of `_padded`."""
        (fx, nx, bx), (fy, ny, by) = self._starts()
        inner = image[bx : bx + nx, by : by + ny]
        return blank_around(blank_around(inner, fx, self.taper.shape[0], 0), fy, self.taper.shape[1], 1)


def blank_around(image: Array, before: int, size: int, axis: int) -> Array:
    """Return an image with zeros before and after it along an axis, `size` pixels in all."""
    xp, parts = namespace(image), []
    for count in (before, size - before - image.shape[axis]):
        shape = tuple(count if a == axis else image.shape[a] for a in (0, 1))
        parts.append(xp.zeros(shape, dtype=image.dtype, device=arrays.native_device(image)))
    return xp.concat([parts[0], image, parts[1]], axis=axis)


def fourier(x: Array) -> Any:
    """Return the Fourier transforms for an array: SciPy's are faster than NumPy's own."""
    return scipy.fft if isinstance(x, np.ndarray) else namespace(x).fft


@dataclass(frozen=True, eq=False)
class Spectra:
    """Spectra of a machine's radial functions, made once for each size of map.

    Parameters
    ----------
    pitch : float
        Side of the fine pixels [mm].
    reach : float
        Where kernels end [mm].
    place : Device
        Where spectra are put.
    dtype : str
        Their dtype.
    """

    pitch: float
    reach: float
    place: Device
    dtype: str
    _made: dict[tuple[str, int, tuple[int, int]], tuple[KernelBasis, Array]] = field(default_factory=dict, repr=False)

    def pair(self, basis: KernelBasis, axes: tuple[Axis, Axis]) -> MapPair:
        """Return the maps of a field."""
        small, large = tuple(a.count for a in axes), tuple(a.far_count for a in axes)
        fine = [a.spreading(self.pitch, fine=True) for a in axes]
        rest = [a.spreading(self.pitch, fine=False) for a in axes]
        return MapPair(
            axes=axes,
            pitch=self.pitch,
            taper=self.place.asarray(axes[0].taper[:, None] * axes[1].taper, "float64"),
            spreading=(self._put(fine), self._put(rest)),
            refining=self._put([a.refining(self.pitch) for a in axes]),
            core=self._kept("core", basis, small),
            tail=self._kept("tail", basis, large),
            full=self._kept("full", basis, large),
            dtype=self.dtype,
        )

    def _put(self, pair: list[Floats]) -> tuple[Array, Array]:
        return self.place.asarray(pair[0], self.dtype), self.place.asarray(pair[1], self.dtype)

    def _kept(self, part: str, basis: KernelBasis, shape: tuple[int, ...]) -> Array:
        key = (part, id(basis), (shape[0], shape[1]))
        if key not in self._made:
            made = {"core": self._core, "tail": self._tail, "full": self._full}[part](basis, key[2])
            self._made[key] = (basis, self.place.asarray(made, self.dtype))
        return self._made[key][1]

    def _core(self, basis: KernelBasis, shape: tuple[int, int]) -> Floats:
        """Return the spectra of the cores, from pixel averages to what a cubic spline reads."""
        raster, step = self._cores(basis, math.ceil(self.pitch / _TABLE_PITCH - 1e-9))
        averages = [np.sinc(f) * spline_response(f, "cubic") for f in _frequencies(shape)]
        return np.asarray(_spectra(raster, step / self.pitch, shape) / (averages[0][:, None] * averages[1]))

    def _tail(self, basis: KernelBasis, shape: tuple[int, int]) -> Floats:
        """Return the spectra of the tails on coarse pixels, for fluence on fine ones."""
        averages = [np.sinc(f / RATIO) * spline_response(f, "cubic") ** 2 for f in _frequencies(shape)]
        return np.asarray(self._tails(basis, shape) / (averages[0][:, None] * averages[1]))

    def _full(self, basis: KernelBasis, shape: tuple[int, int]) -> Floats:
        """Return the spectra of whole kernels on coarse pixels, blurred a little: what leaks has edges at jaws."""
        raster, step = self._cores(basis, _ODD)
        whole = self._tails(basis, shape) + _spectra(raster, step / (RATIO * self.pitch), shape)
        width = _LEAK_BLUR / (RATIO * self.pitch)
        averages = [
            spline_response(f, "cubic") ** 2 * np.exp(2.0 * (np.pi * width * f) ** 2) for f in _frequencies(shape)
        ]
        return np.asarray(whole / (averages[0][:, None] * averages[1]))

    def _cores(self, basis: KernelBasis, parts: int) -> tuple[Floats, float]:
        """Return the cores on fine parts of a fine pixel, or of a coarse one for `_ODD` parts, and the parts' side."""
        step = (RATIO if parts == _ODD else 1) * self.pitch / parts
        reach = (math.ceil(CORE / (RATIO * self.pitch)) + 1.5) * RATIO * self.pitch - 0.5 * step
        raster = _ended(np.asarray(basis.raster(step, reach), dtype=np.float64), step, self.reach)
        return np.asarray(raster * window(_radii(raster, step)), dtype=np.float64), float(step)

    def _tails(self, basis: KernelBasis, shape: tuple[int, int]) -> Floats:
        """Return the spectra of the tails as they are, on coarse pixels."""
        pitch = RATIO * self.pitch
        raster = np.array(basis.raster(pitch, max(self.reach, CORE) + 2.0 * pitch), dtype=np.float64)
        raster = _ended(raster, pitch, self.reach)
        sharp, _ = self._cores(basis, _ODD)
        size = sharp.shape[1] // _ODD
        sums = sharp.reshape(sharp.shape[0], size, _ODD, size, _ODD).sum(axis=(2, 4))
        middle = slice(raster.shape[1] // 2 - size // 2, raster.shape[1] // 2 + size // 2 + 1)
        raster[:, middle, middle] -= sums
        return _spectra(raster, 1.0, shape)


def _radii(raster: Floats, step: float) -> Floats:
    axis = np.arange(-(raster.shape[1] // 2), raster.shape[1] // 2 + 1) * step
    return np.hypot(axis[:, None], axis)


def _ended(raster: Floats, step: float, reach: float) -> Floats:
    """Return a raster that ends at a radius; a pixel on the rim counts by its share inside."""
    return np.asarray(raster * np.clip((reach - _radii(raster, step)) / step + 0.5, 0.0, 1.0))


def _frequencies(shape: tuple[int, int]) -> tuple[Floats, Floats]:
    """Return the frequencies of the real spectra of maps [cycles per pixel]."""
    first, second = np.fft.fftfreq(shape[0]), np.fft.rfftfreq(shape[1])
    return np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)


def _spectra(raster: Floats, step: float, shape: tuple[int, int]) -> Floats:
    """Return the spectra on maps of a shape of functions whose averages over pixels of a side are given [map pixels].

    The functions are the same in all quadrants, so that their spectra are sums of cosines.
    """
    axis = np.arange(-(raster.shape[1] // 2), raster.shape[1] // 2 + 1) * step
    first, second = (np.cos(2.0 * np.pi * f[:, None] * axis) / np.sinc(f * step)[:, None] for f in _frequencies(shape))
    return np.asarray(first @ raster @ second.T)
