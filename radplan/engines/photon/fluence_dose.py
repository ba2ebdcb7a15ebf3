"""Photon dose on the fly: bixel weights to maps of the isocentre plane by FFT, and from there to voxels.

The same sum as the stored matrix holds entry by entry, regrouped: the bixels are summed first, in frequency space,
where a blurred bixel is a factor. What is kept of a beam grows with its voxels and not with their number of bixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.fft

from radplan.arrays import Array, Device, fast_length, namespace
from radplan.beams.beam import Beam, Beams
from radplan.engines.photon.map_gather import MARGIN, Interpolation, MapGather, spline_response
from radplan.engines.photon.terms import BeamRays, Floats, PhotonScene, bixel_table
from radplan.errors import CalculationError
from radplan.machines.base import KernelBasis
from radplan.machines.photon import PhotonMachine
from radplan.operators import LinearOperator, StackedOperator

_SAME_PLACE = 1e-6
"""Distance in pixels below which a bixel counts as lying on a pixel."""


@dataclass(frozen=True)
class MapOptions:
    """How finely dose on the fly is calculated.

    Parameters
    ----------
    pitch : float
        Largest pixel of the maps [mm]; the bixel width is a whole number of pixels.
    table_pitch : float
        Largest pixel that bixels are blurred on [mm]; a pixel of the maps is a whole number of them.
    interpolation : "cubic" or "linear"
        How maps are read between pixels: by interpolating B-splines of order 3 or 1.
    """

    pitch: float
    table_pitch: float
    interpolation: Interpolation


@dataclass(frozen=True, eq=False)
class BixelBlur:
    r"""The map from bixel weights to maps, :math:`M_k = \sum_j w_j \psi_j h_k(x - x_j, y - y_j)`, and its transpose.

    Bixels that all lie on pixels are placed there, and the sum is exact at the pixels. Others are spread over their
    neighbours by the transpose of a cubic interpolation.

    Parameters
    ----------
    tables : array of shape (K, 2 a + 1, 2 a + 1)
        Blurred bixels h_k against pixels from their centre, host float64.
    responses : tuple of "cubic" or "linear"
        Splines that the spectra are divided by: of reading the maps, and of placing bixels.
    place : MapGather
        The transpose of placing the bixels on one map, times their profile psi.
    transfer : array of shape (K, nx, ny // 2 + 1)
        Spectra of the tables divided by those of the splines.
    """

    tables: Floats
    responses: tuple[Interpolation, Interpolation]
    place: MapGather
    transfer: Array

    @property
    def shape(self) -> tuple[int, int]:
        """Pixels of a map along x and y."""
        return self.place.shape

    def maps(self, weights: Array) -> Array:
        """Return the maps ``(K, nx, ny)`` of weights ``(bixels,)``."""
        fft = _fourier(weights)
        spectrum = fft.rfftn(self.place.scatter(weights), axes=(-2, -1))
        return fft.irfftn(self.transfer * spectrum, s=self.shape, axes=(-2, -1))

    def weights(self, maps: Array) -> Array:
        """Return the weights ``(bixels,)`` that the transpose makes of maps ``(K, nx, ny)``."""
        xp, fft = namespace(maps), _fourier(maps)
        spectra = fft.rfftn(maps, axes=(-2, -1))
        # Why: conj(H) M is formed as the conjugate of H conj(M); one map after the other stays in the cache.
        total = self.transfer[0, ...] * xp.conj(spectra[0, ...])
        for k in range(1, maps.shape[0]):
            total = total + self.transfer[k, ...] * xp.conj(spectra[k, ...])
        image = fft.irfftn(xp.conj(total)[None, ...], s=self.shape, axes=(-2, -1))
        return self.place.gather(image)

    def squared(self) -> BixelBlur:
        """Return the blur with the products of two tables and squared profiles, in the order of `MapGather.squared`."""
        first, second = np.triu_indices(self.tables.shape[0])
        products = self.tables[first] * self.tables[second]
        transfer = transfer_functions(products, self.shape, self.responses)
        put = self.place.device.asarray(transfer, _complex_of(self.place.weights.dtype))
        return replace(self, tables=products, transfer=put, place=self.place.squared())


@dataclass(frozen=True, eq=False)
class FluenceDose(LinearOperator):
    """One beam's dose of its bixel weights, calculated on the fly; no matrix is held.

    Its transpose is exact to rounding. `squared_column_norms` is an estimate: squares of blurred bixels are read
    between pixels instead of the bixels themselves, which differs by about the interpolation error.
    At the rim of the cut-off splines swing by about 1e-4 of the dose of a bixel there, so that voxels that hardly get
    dose may come out slightly negative.

    It holds, per voxel near the beam, K weights, two fractions, an index and a row, and K spectra of one map; a product
    takes some copies of the K maps beside its result. Neither grows with the number of bixels.

    Parameters
    ----------
    blur : BixelBlur
        From weights to maps.
    read : MapGather
        From maps to voxels.
    """

    blur: BixelBlur
    read: MapGather

    @cached_property
    def shape(self) -> tuple[int, int]:  # type: ignore[override]
        return self.read.count, self.blur.place.count

    @cached_property
    def dtype(self) -> str:  # type: ignore[override]
        return "float64" if self.read.weights.dtype == self.device.dtype("float64") else "float32"

    @property
    def device(self) -> Device:  # type: ignore[override]
        return self.read.device

    @property
    def nbytes(self) -> int:
        """Bytes that it holds, those shared with other beams included."""
        real = np.dtype(self.dtype).itemsize
        spectra = 2 * real * self.read.functions * self.blur.shape[0] * (self.blur.shape[1] // 2 + 1)
        return self.read.nbytes + self.blur.place.nbytes + self.blur.tables.nbytes + spectra

    def apply(self, x: Array) -> Array:
        vectors = self._as_matrix_dtype(x, self.shape[1], "x")
        if vectors.ndim == 1:
            return self.read.gather(self.blur.maps(vectors))
        return namespace(x).stack([self.apply(vectors[:, j]) for j in range(x.shape[1])], axis=1)

    def adjoint(self, y: Array) -> Array:
        vectors = self._as_matrix_dtype(y, self.shape[0], "y")
        if vectors.ndim == 1:
            return self.blur.weights(self.read.scatter(vectors))
        return namespace(y).stack([self.adjoint(vectors[:, j]) for j in range(y.shape[1])], axis=1)

    def squared_column_norms(self, row_weights: Array) -> Array:
        sums = self.blur.squared().weights(self.read.squared().scatter(row_weights))
        return namespace(sums).clip(sums, min=0.0)

    def restrict(self, rows: Array) -> LinearOperator:
        """Return the operator of the chosen rows: the others are not read."""
        chosen = np.asarray(rows, dtype=np.int64)
        if np.unique(chosen).size != chosen.size:
            return super().restrict(chosen)
        return replace(self, read=self.read.restrict(chosen))


def fluence_dose(
    beams: Beams, scene: PhotonScene, radii: Sequence[float], options: MapOptions, device: Device, dtype: str
) -> StackedOperator:
    """Return the dose of all bixel weights on the fly, one operator for each beam.

    Parameters
    ----------
    beams : Beams
        The beams.
    scene : PhotonScene
        Voxels, density and machine.
    radii : sequence of float
        Per beam, the distance from a bixel's centre in the isocentre plane beyond which it gives no dose [mm].
    options : MapOptions
        Pixels and interpolation.
    device : Device
        Where it runs.
    dtype : str
        ``"float32"`` or ``"float64"``.

    Raises
    ------
    CalculationError
        When no voxel gets dose.
    """
    made = _Transfers(scene.machine, options, device, _complex_of(dtype))
    operators = tuple(
        _beam_operator(beam, scene, radius, made, device, dtype) for beam, radius in zip(beams, radii, strict=True)
    )
    if not any(operator.read.rows.size for operator in operators):
        raise CalculationError("no bixel gives dose to any voxel: does the dose grid cover the beams in the patient?")
    return StackedOperator(operators)


def transfer_functions(tables: Floats, shape: tuple[int, int], responses: tuple[Interpolation, Interpolation]) -> Array:
    """Return spectra ``(K, nx, ny // 2 + 1)`` of tables ``(K, 2 a + 1, 2 a + 1)``, divided by those of two splines."""
    reach = tables.shape[1] // 2
    padded = np.zeros((tables.shape[0], *shape))
    padded[:, : tables.shape[1], : tables.shape[2]] = tables
    spectra = scipy.fft.rfftn(np.roll(padded, (-reach, -reach), axis=(1, 2)), axes=(1, 2))
    for spline in responses:
        across = spline_response(np.fft.fftfreq(shape[0]), spline)
        spectra /= across[:, None] * spline_response(np.fft.rfftfreq(shape[1]), spline)
    return np.asarray(spectra)


class _Transfers:
    """Transfer functions made so far: beams that share kernel, bixel width, cut-off and map size share them."""

    def __init__(self, machine: PhotonMachine, options: MapOptions, place: Device, dtype: str) -> None:
        self.machine = machine
        self.options = options
        self.place = place
        self.dtype = dtype
        self._tables: list[tuple[KernelBasis, tuple[float, float], Floats]] = []
        self._spectra: list[tuple[Floats, tuple[tuple[int, int], Interpolation], Array]] = []

    def pitch(self, bixel_width: float) -> float:
        """Return the pixel of the maps of a bixel width [mm]."""
        return bixel_width / math.ceil(bixel_width / self.options.pitch - 1e-9)

    def table(self, basis: KernelBasis, bixel_width: float, radius: float) -> Floats:
        """Return the blurred bixels on the pixels of the maps, zero beyond a radius [mm] from their centre."""
        for known, key, held in self._tables:
            if known is basis and key == (bixel_width, radius):
                return held
        pitch = self.pitch(bixel_width)
        parts = math.ceil(pitch / self.options.table_pitch - 1e-9)
        half = (math.ceil(radius / pitch - 1e-9) + 1) * pitch
        sigma, shift = self.machine.source_sigma, self.machine.bixel_shift
        blurred = bixel_table(basis, sigma, bixel_width, pitch / parts, half, shift)[:, ::parts, ::parts]
        axis = (np.arange(blurred.shape[1]) - blurred.shape[1] // 2) * pitch
        # Why: a pixel on the rim counts by its share inside, so that maps of any pixel cut off the same area.
        inside = np.clip((radius - np.hypot(axis[:, None], axis)) / pitch + 0.5, 0.0, 1.0)
        table: Floats = blurred * inside
        if not np.all(np.isfinite(table)):
            raise CalculationError(f"the kernel of machine {self.machine.name!r} gives dose that is not finite")
        self._tables.append((basis, (bixel_width, radius), table))
        return table

    def blur(self, table: Floats, bixels: MapGather, spline: Interpolation) -> BixelBlur:
        """Return the blur by a table of bixels that were placed with a spline."""
        key, responses = (bixels.shape, spline), (self.options.interpolation, spline)
        for known, held, made in self._spectra:
            if known is table and held == key:
                return BixelBlur(table, responses, bixels, made)
        spectra = self.place.asarray(transfer_functions(table, bixels.shape, responses), self.dtype)
        self._spectra.append((table, key, spectra))
        return BixelBlur(table, responses, bixels, spectra)


def _beam_operator(
    beam: Beam, scene: PhotonScene, radius: float, made: _Transfers, place: Device, dtype: str
) -> FluenceDose:
    """Return one beam's operator, with dose out to a radius around bixels [mm]."""
    rays = BeamRays.of(beam, scene, radius)
    pitch, table = made.pitch(beam.bixel_width), made.table(rays.basis, beam.bixel_width, radius)
    border = table.shape[1] // 2 + MARGIN
    low, high = beam.bixels.min(axis=0), beam.bixels.max(axis=0)
    pixels = np.ceil((high - low) / pitch - _SAME_PLACE).astype(np.int64) + 2 * border + 1
    shape = (fast_length(int(pixels[0])), fast_length(int(pixels[1])))
    x, y = ((plane[rays.rows] - corner) / pitch + border for plane, corner in zip((rays.x, rays.y), low, strict=True))
    read = MapGather.of(x, y, rays.weights, rays.rows, rays.x.size, shape, made.options.interpolation, place, dtype)
    positions = (beam.bixels - low) / pitch + border
    nearest = np.round(positions)
    aligned = bool(np.all(np.abs(positions - nearest) < _SAME_PLACE))
    spline: Interpolation = "linear" if aligned else "cubic"
    across, along = (nearest if aligned else positions).T
    every = np.arange(beam.count)
    bixels = MapGather.of(across, along, rays.profile[None, :], every, beam.count, shape, spline, place, dtype)
    return FluenceDose(made.blur(table, bixels, spline), read)


def _fourier(x: Array) -> Any:
    """Return the Fourier transforms for an array: SciPy's are faster than NumPy's own."""
    return scipy.fft if isinstance(x, np.ndarray) else namespace(x).fft


def _complex_of(dtype: object) -> str:
    return "complex128" if "float64" in str(dtype) else "complex64"
