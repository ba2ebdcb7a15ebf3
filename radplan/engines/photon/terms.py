"""What every photon engine is made of: blurred bixels as tables, and where a beam's rays meet the voxels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from radplan.arrays import Array
from radplan.beams.beam import Beam
from radplan.beams.errors import NOMINAL, SetupRangeError
from radplan.engines.scope import Scope
from radplan.errors import CalculationError, InputError
from radplan.geometry.frames import isocentre_plane, world_to_beam
from radplan.geometry.grid import Grid
from radplan.geometry.rays import density_before, radiological_depth, surface_distance
from radplan.machines.base import KernelBasis
from radplan.machines.low_rank import LowRankKernel
from radplan.machines.photon import PhotonMachine
from radplan.patient.names import names_lung
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_SOURCE_REACH = 5.0
"""Standard deviations of the source blur beyond a bixel's edge that a table includes."""


def bixel_table(
    basis: KernelBasis, sigma: float, bixel_width: float, pitch: float, half_width: float, shift: tuple[float, float]
) -> Floats:
    r"""Return the radial functions of a kernel blurred by a square bixel and a Gaussian source, on square pixels.

    The blurred bixel is a product of one function of x and one of y,
    :math:`\frac12 [\mathrm{erf}\frac{x + b/2}{\sqrt2\sigma} - \mathrm{erf}\frac{x - b/2}{\sqrt2\sigma}]`, so the
    convolution is one small matrix from each side.

    Parameters
    ----------
    basis : KernelBasis
        Radial functions, integrated over pixels.
    sigma : float
        Standard deviation of the source in the isocentre plane [mm]; 0 is a sharp edge.
    bixel_width : float
        Side of the bixel [mm].
    pitch : float
        Side of the pixels [mm].
    half_width : float
        Outermost pixel centre needed [mm].
    shift : (float, float)
        Where the bixel's centre really lies, x and y [mm].

    Returns
    -------
    array of shape (K, 2 m + 1, 2 m + 1), m = ceil(half_width / pitch)
        Against (x, y) from the bixel's nominal centre.
    """
    m = math.ceil(half_width / pitch - 1e-9)
    reach = math.ceil((bixel_width / 2 + _SOURCE_REACH * sigma + max(map(abs, shift))) / pitch) + 1
    raster = np.asarray(basis.raster(pitch, (m + reach) * pitch), dtype=np.float64)
    # Why: row i, column j of a convolution matrix depends on i - j only, so few values are calculated and many placed.
    place = np.arange(2 * m + 1)[:, None] - np.arange(2 * (m + reach) + 1) + 2 * (m + reach)
    offsets = np.arange(-2.0 * m - reach, 2 * m + reach + 1) * pitch
    along_x, along_y = (_blurred_edge(offsets - s, sigma, bixel_width)[place] for s in shift)
    return np.asarray(along_x @ raster @ along_y.T)


def _blurred_edge(x: Floats, sigma: float, width: float) -> Floats:
    """Return the fluence across a bixel at distances x [mm] from its centre; half on a sharp edge."""
    if sigma == 0.0:
        # Why: sums in floating point miss an edge by a rounding error, which would shift it by half a pixel.
        inside = width / 2 - np.abs(x)
        return np.where(np.abs(inside) < 1e-9, 0.5, (inside > 0).astype(np.float64))
    scale = 1.0 / (math.sqrt(2.0) * sigma)
    return np.asarray(0.5 * (erf((x + width / 2) * scale) - erf((x - width / 2) * scale)))


PRIMARY_LENGTH, SCATTER_LENGTH = 6.0, 60.0
"""How far back along its ray a voxel looks for the density that widens its primary and its scatter [mm]."""


def scales_with_density(patient: Patient, machine: PhotonMachine, asked: bool | None = None) -> bool:
    """Say whether the kernel is wider where density is low: as asked, else in patients with a lung contoured.

    Of itself only for machines whose kernel tells scatter from primary: radplan's own, not matRad's. Everything that
    calculates photons asks here, so that all that a plan goes through has one dose.

    >>> from radplan.machines import library_machine
    >>> from radplan.patient.phantoms import phantom
    >>> linac = library_machine("generic_photon_6mv")
    >>> scales_with_density(phantom("box"), linac), scales_with_density(phantom("box"), linac, asked=True)
    (False, True)
    """
    if asked is not None:
        return asked
    kernel = machine.kernel
    parted = isinstance(kernel, LowRankKernel) and kernel.scattered is not None
    return parted and any(names_lung(name) for name in patient.structures)


@dataclass(frozen=True, eq=False)
class PhotonScene:
    """What all beams of a calculation share.

    Parameters
    ----------
    density : array of shape (nz, ny, nx)
        Relative electron density; zero elsewhere.
    ct_grid : Grid
        Its grid.
    points : array of shape (n, 3)
        World positions of the dose voxels [mm].
    machine : PhotonMachine
        The linac.
    density_scaling : bool
        Whether low density before a voxel widens the kernel there, see `widened_weights`.
    error : SetupRangeError
        Range error of the case.
    counted : (array, Grid), optional
        Density of what dose counts in, body and bolus, and its grid, where couch or supports lie outside of it.
    """

    density: Array
    ct_grid: Grid
    points: Floats
    machine: PhotonMachine
    density_scaling: bool = False
    error: SetupRangeError = NOMINAL
    counted: tuple[Array, Grid] | None = None

    @classmethod
    def of(
        cls, patient: Patient, machine: PhotonMachine, scope: Scope, density_scaling: bool | None = None
    ) -> PhotonScene:
        """Return the scene of the voxels where dose is wanted; scaling as `scales_with_density` resolves it."""
        whole, counted = patient.density(), None
        density, ct_grid = _cropped(whole, patient.ct.grid)
        scaled = scales_with_density(patient, machine, density_scaling)
        if scaled and patient.overrides:  # without them nothing outside the external contour has a density
            outside = np.logical_not(patient.dosed_mask())
            if np.any(whole[outside]):
                counted = _cropped(np.where(outside, np.zeros_like(whole), whole), patient.ct.grid)
        return cls(density, ct_grid, scope.grid.points(scope.voxels), machine, scaled, scope.error, counted)

    @cached_property
    def thinned(self) -> tuple[Array, Grid]:
        """The density that widens kernels, that above water's as if it were water's, and its grid.

        It begins where the patient does: a couch of little density before it takes no scatter away.
        """
        density, grid = (self.density, self.ct_grid) if self.counted is None else self.counted
        return np.minimum(density, density.dtype.type(1.0)), grid

    def densities_before(self, source: Floats, points: Floats) -> Floats:
        """Return the mean densities ``(2, n)`` that widen primary and scatter at points (n, 3), see `density_before`.

        None is above 1: bone narrows no kernel.
        """
        return density_before(*self.thinned, source, points, (PRIMARY_LENGTH, SCATTER_LENGTH))

    def depths(self, source: Floats, points: Floats) -> Floats:
        """Return the radiological depth ``(n,)`` [mm] of points (n, 3), with the range error of the case."""
        return np.asarray(self.error.depths(radiological_depth(self.density, self.ct_grid, source, points)))


@dataclass(frozen=True, eq=False)
class BeamRays:
    """Where a beam's rays meet the voxels, and what its bixels give there apart from their lateral shape.

    Parameters
    ----------
    x, y : array of shape (n,)
        Where the ray of every voxel crosses the isocentre plane [mm].
    rows : array of shape (m,)
        Voxels that lie near enough to the bixels and get dose, ascending.
    weights : array of shape (K, m)
        Their depth weights times the inverse square of the distance from the source.
    basis : KernelBasis
        The machine's radial functions for this beam.
    profile : array of shape (bixels,)
        In-air fluence of each bixel relative to the axis.
    """

    x: Floats
    y: Floats
    rows: Ints
    weights: Floats
    basis: KernelBasis
    profile: Floats

    @classmethod
    def of(cls, beam: Beam, scene: PhotonScene, radius: float) -> BeamRays:
        """Return a beam's rays to the voxels within a radius of the rectangle around its bixels [mm]."""
        machine = scene.machine
        local = world_to_beam(scene.points, beam.isocenter, beam.rotation)
        x, y, axial = isocentre_plane(local, machine.sad)
        rows = _reached(x, y, axial, beam.bixels, radius)
        depth = scene.depths(beam.source, scene.points[rows])
        distance = axial[rows] if machine.distance == "axis" else _ray_length(local[rows], machine.sad)
        basis = machine.kernel.basis(central_ssd(beam, scene.density, scene.ct_grid))
        stretch = distance / machine.sad
        if scene.density_scaling:
            weights = widened_weights(basis, scene, beam, rows, depth, stretch)
        else:
            weights = basis.weights(depth, stretch)
        weights = weights * (machine.sad / distance) ** 2
        dosed = np.any(weights != 0.0, axis=0)
        profile = machine.fluence_profile(np.hypot(beam.bixels[:, 0], beam.bixels[:, 1]))
        return cls(x, y, rows[dosed], weights[:, dosed], basis, profile)


def widened_weights(
    basis: KernelBasis, scene: PhotonScene, beam: Beam, rows: Ints, depth: Floats, stretch: Floats
) -> Floats:
    r"""Return depth weights of a kernel that is wider where density is low, in its primary and its scatter.

    Lengths in a medium of relative density :math:`\rho` are those in water over :math:`\rho`, so that its kernel in
    the isocentre plane is that of water at stretch :math:`\rho L / SAD`. For :math:`\rho` stand means along the ray
    back from the voxel, with weights that fall to 1/e in 6 mm for the primary and 60 mm for scatter. Density above
    water's counts as water's: behind bone, kernels narrowed by it are farther from Monte Carlo than unchanged ones.

    Parameters
    ----------
    basis : KernelBasis
        The kernel.
    scene : PhotonScene
        Density, voxels and machine.
    beam : Beam
        Gives the source.
    rows : array of shape (n,)
        Voxels.
    depth, stretch : arrays of shape (n,)
        Their radiological depth [mm] and distance from the source over SAD [1].

    Returns
    -------
    array of shape (K, n)

    Raises
    ------
    InputError
        When the machine's kernel does not tell scatter from primary.

    Notes
    -----
    Source: O'Connor, Phys. Med. Biol. 1 (1957) 352 for the scaling of lengths with density. The two lengths were chosen
    beside a Monte Carlo simulation of slabs, see ``docs/heterogeneity.md``.
    """
    if not isinstance(basis, LowRankKernel) or basis.scattered is None:
        raise InputError(
            f"density_scaling needs a machine whose kernel tells scatter from primary, and {scene.machine.name!r} does "
            "not: take one of radplan's own, or leave density_scaling off"
        )
    near, far = scene.densities_before(beam.source, scene.points[rows])
    return np.asarray(basis.parted_weights(depth, near * stretch, far * stretch))


def _cropped(density: Array, grid: Grid) -> tuple[Array, Grid]:
    """Return the box of a volume that holds all density, so that rays need not look for it beam after beam."""
    held = [np.flatnonzero(np.any(density, axis=(0, 1, 2)[:axis] + (0, 1, 2)[axis + 1 :])) for axis in range(3)]
    if not held[0].size:
        raise CalculationError("the patient has no density inside the external contour: is the CT all air?")
    z, y, x = (int(places[0]) for places in held)
    inner = density[z : held[0][-1] + 1, y : held[1][-1] + 1, x : held[2][-1] + 1]
    (x0, y0, z0), (dx, dy, dz) = grid.origin, grid.spacing
    return np.ascontiguousarray(inner), Grid(inner.shape, grid.spacing, (x0 + x * dx, y0 + y * dy, z0 + z * dz))


def _reached(x: Floats, y: Floats, axial: Floats, bixels: Floats, radius: float) -> Ints:
    """Return the voxels in front of the source that lie near enough to the rectangle around all bixels."""
    (x0, y0), (x1, y1) = bixels.min(axis=0) - radius, bixels.max(axis=0) + radius
    return np.flatnonzero((axial > 0.0) & (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))


def _ray_length(local: Floats, sad: float) -> Floats:
    """Return the straight distance from the source of points in the beam's frame [mm]."""
    return np.asarray(np.sqrt(local[:, 0] ** 2 + local[:, 1] ** 2 + (sad - local[:, 2]) ** 2))


def central_ssd(beam: Beam, density: Array, grid: Grid) -> float:
    """Return the surface distance of the bixel nearest to the axis, of those whose ray meets the patient [mm]."""
    order = np.argsort(np.sum(beam.bixels**2, axis=1), kind="stable")
    nearest = surface_distance(density, grid, beam.source, beam.targets[order[:1]])[0]
    if not np.isfinite(nearest):
        distances = surface_distance(density, grid, beam.source, beam.targets[order])
        met = np.isfinite(distances)
        if not met.any():
            raise InputError(
                f"no bixel of the beam at gantry {beam.gantry:g}, couch {beam.couch:g} meets the patient: "
                f"is the isocentre {beam.isocenter.tolist()} mm in the patient?"
            )
        nearest = distances[met][0]
    return float(nearest)
