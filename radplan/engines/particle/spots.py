"""Spots of a beam by ray: what each adds to depth and width, and which column it belongs to."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array
from radplan.beams.beam import Beam
from radplan.beams.errors import NOMINAL, SetupRangeError
from radplan.beams.spots import air_gap
from radplan.engines.particle.cutoff import Cutoff
from radplan.engines.particle.tables import Images
from radplan.engines.particle.tissues import Tissues
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.geometry.rays import surface_distance
from radplan.machines.particle import ParticleMachine

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

IONS = {"protons": (1, 1), "helium": (2, 4), "carbon": (6, 12)}
"""Charge and mass number."""


@dataclass(frozen=True, eq=False)
class Scene:
    """What all beams of a calculation share.

    Parameters
    ----------
    density : array of shape (nz, ny, nx)
        Relative electron density on `ct_grid`.
    points : array of shape (n, 3)
        Voxels of the model [mm].
    machine, images, tissues, cutoff : ParticleMachine, Images, Tissues, Cutoff
        What delivers, what is calculated, what it meets, and where it ends.
    air_correction : bool
        Whether the air between nozzle and patient counts.
    fine_sampling : float, optional
        Width of the sub-beamlets that spots are split into, see `radplan.engines.particle.fine_sampling` [mm].
    error : SetupRangeError
        Range error of the case.
    """

    density: Array
    ct_grid: Grid
    points: Floats
    machine: ParticleMachine
    images: Images
    tissues: Tissues
    cutoff: Cutoff
    air_correction: bool = True
    fine_sampling: float | None = None
    error: SetupRangeError = NOMINAL


@dataclass(frozen=True, eq=False)
class Spots:
    """Spots of a beam by ray, and what each adds to depth and width; see `radplan.kernels.spots.SpotField`.

    Parameters
    ----------
    x, y, directions : arrays of shape (r,), (r,), (r, 3)
        Rays in the isocentre plane, sorted by x [mm], and where they point.
    first : array of shape (r + 1,)
        Where the spots of each ray begin.
    columns, energies : arrays of shape (s,)
        Column of each spot, and its place among `layers`.
    shifts, shares : arrays of shape (s,)
        Added to radiological depth [mm], share of the column's particles.
    variances : array of shape (s, 6)
        Of the beam along x and y, scattering in the patient apart, as polynomials of the distance behind the isocentre.
    surfaces : array of shape (s,)
        Where the patient's surface lies, behind the isocentre or < 0 in front [mm].
    layers : array of shape (e,)
        Energy indices of the machine that the beam uses.
    origins : array of shape (r, 3)
        Where each ray begins, seen from the source [mm].
    """

    x: Floats
    y: Floats
    directions: Floats
    first: Ints
    columns: npt.NDArray[np.int32]
    energies: npt.NDArray[np.int32]
    shifts: Floats
    shares: Floats
    variances: Floats
    surfaces: Floats
    layers: Ints
    origins: Floats

    @classmethod
    def of(cls, beam: Beam, scene: Scene) -> Spots:
        """Return the spots of a beam, with the air gap and width at the surface that each ray meets."""
        assert beam.energies is not None
        machine = scene.machine
        places, ray = np.unique(beam.bixels, axis=0, return_inverse=True)
        ray = ray.reshape(-1)
        order = np.argsort(ray, kind="stable")
        energies, inverse = np.unique(beam.energies, return_inverse=True)
        layers = np.asarray([machine.energy_index(float(energy)) for energy in energies], dtype=np.int64)
        energy = inverse.reshape(-1)[order]
        ssd = _surface_distances(beam, places, scene)[ray[order]]
        offsets = np.asarray([machine.entry(int(layer)).offset for layer in layers])
        shifts = (air_gap(machine, ssd) if scene.air_correction else np.zeros_like(ssd)) - offsets[energy]
        if beam.range_shifter is not None:
            shifts = shifts + beam.range_shifter.thickness
        return cls(
            np.ascontiguousarray(places[:, 0]),
            np.ascontiguousarray(places[:, 1]),
            directions(places, machine.scan_distances),
            np.concatenate([[0], np.cumsum(np.bincount(ray, minlength=places.shape[0]))]).astype(np.int64),
            order.astype(np.int32),
            energy.astype(np.int32),
            shifts,
            np.ones(order.size),
            _variances(beam, scene, layers, energy, ssd),
            ssd - machine.sad,
            layers,
            origins(places, machine),
        )

    def variance(self, behind: Floats) -> Floats:
        """Return the variances of the beam along x and y at distances behind the isocentre ``(s,)`` [mm^2], (s, 2)."""
        powers = np.stack([np.ones_like(behind), behind, behind**2], axis=1)
        return np.asarray(np.sum(self.variances.reshape(-1, 2, 3) * powers[:, None, :], axis=2))

    def widest(self, farthest: float) -> Floats:
        """Return the largest variance of each energy between the surface and a place behind the isocentre, (e,) [mm^2].

        Parameters
        ----------
        farthest : float
            [mm]
        """
        ends = self.surfaces, np.maximum(self.surfaces, farthest)
        return self.largest(np.max(np.stack([self.variance(place).max(axis=1) for place in ends]), axis=0))

    def largest(self, values: Floats) -> Floats:
        """Return the largest of values ``(s,)`` among the spots of each energy, shape (e,)."""
        found = np.full(self.layers.size, -np.inf)
        np.maximum.at(found, self.energies, values)
        return found

    def caps(self, reach: Floats) -> Floats:
        """Return, per ray, a value ``(e,)`` of its highest energy, shape (r,)."""
        highest = np.maximum.reduceat(self.energies, self.first[:-1])
        return np.asarray(reach[highest])


def directions(places: Floats, distances: tuple[float, float]) -> Floats:
    """Return unit vectors ``(r, 3)`` along the rays through places in the isocentre plane ``(r, 2)`` [mm].

    Parameters
    ----------
    distances : (float, float)
        Of the points from which spots are scanned along x and along y, from the isocentre [mm].
    """
    towards = np.column_stack([places / np.asarray(distances), np.ones(places.shape[0])])
    return np.asarray(towards / np.linalg.norm(towards, axis=1, keepdims=True))


def origins(places: Floats, machine: ParticleMachine) -> Floats:
    """Return where the rays through places ``(r, 2)`` begin beside the source, seen from it, (r, 3) [mm]."""
    beside = places * (1.0 - machine.sad / np.asarray(machine.scan_distances))
    return np.column_stack([beside, np.zeros(places.shape[0])])


def _variances(beam: Beam, scene: Scene, layers: Ints, energy: Ints, ssd: Floats) -> Floats:
    """Return the variance of each spot, (s, 6), range shifter included; without a phase space that at the surface."""
    machine = scene.machine
    variances, least = np.zeros((energy.size, 6)), np.inf
    for e, index in enumerate(layers):
        layer, spots = machine.entry(int(index)), energy == e
        if layer.emittance is not None:
            variances[spots] = layer.emittance.moments.reshape(-1)
        else:
            focus = machine.focus_index(beam.bixel_width, int(index))
            variances[spots, 0] = variances[spots, 3] = layer.focus.sigma_at(ssd[spots], focus) ** 2
        if beam.range_shifter is not None:
            if machine.radiation not in IONS:
                raise InputError(f"a range shifter is not known for {machine.radiation}")
            gap = ssd[spots] - (machine.sad - beam.range_shifter.isocenter_distance)
            least = min(least, float(gap.min(initial=np.inf)))
            added = beam.range_shifter.variance(gap, layer.range80, *IONS[machine.radiation])
            variances[spots, 0] += added
            variances[spots, 3] += added
    if beam.range_shifter is not None and least < 0.0 and scene.error.nominal:  # told once, not in every case
        logger.warning(
            "the range shifter of the beam at gantry %g stands up to %.0f mm inside the patient: its "
            "isocenter_distance must be %.0f mm or more; spots there are as broad as behind a slab on the skin",
            beam.gantry, -least, beam.range_shifter.isocenter_distance - least,
        )  # fmt: skip
    return variances


def _surface_distances(beam: Beam, places: Floats, scene: Scene) -> Floats:
    """Return the distance from the source to the surface on each ray; that of the nearest ray where it misses [mm]."""
    targets = beam.isocenter + places @ beam.rotation[:, :2].T
    found = np.asarray(surface_distance(scene.density, scene.ct_grid, beam.source, targets))
    met = np.flatnonzero(np.isfinite(found))
    if not met.size:
        raise InputError(
            f"no spot of the beam at gantry {beam.gantry:g}, couch {beam.couch:g} meets the patient: "
            f"is the isocentre {beam.isocenter.tolist()} mm in the patient?"
        )
    for miss in np.flatnonzero(~np.isfinite(found)):
        found[miss] = found[met[np.argmin(np.sum((places[met] - places[miss]) ** 2, axis=1))]]
    return found
