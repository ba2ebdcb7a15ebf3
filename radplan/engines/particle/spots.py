"""Spots of a beam by ray: what each adds to depth and width, and which column it belongs to."""

from __future__ import annotations

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
    shifts, variances, shares : arrays of shape (s,)
        Added to radiological depth [mm], variance in front of the patient [mm^2], share of the column's particles.
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
    variances: Floats
    shares: Floats
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
            directions(places, machine.sad),
            np.concatenate([[0], np.cumsum(np.bincount(ray, minlength=places.shape[0]))]).astype(np.int64),
            order.astype(np.int32),
            energy.astype(np.int32),
            shifts,
            _variances(beam, machine, layers, energy, ssd),
            np.ones(order.size),
            layers,
            np.zeros((places.shape[0], 3)),
        )

    def largest(self, values: Floats) -> Floats:
        """Return the largest of values ``(s,)`` among the spots of each energy, shape (e,)."""
        found = np.full(self.layers.size, -np.inf)
        np.maximum.at(found, self.energies, values)
        return found

    def caps(self, reach: Floats) -> Floats:
        """Return, per ray, a value ``(e,)`` of its highest energy, shape (r,)."""
        highest = np.maximum.reduceat(self.energies, self.first[:-1])
        return np.asarray(reach[highest])


def directions(places: Floats, sad: float) -> Floats:
    """Return unit vectors ``(r, 3)`` from the source to places in the isocentre plane ``(r, 2)`` [mm]."""
    towards = np.column_stack([places, np.full(places.shape[0], sad)])
    return np.asarray(towards / np.linalg.norm(towards, axis=1, keepdims=True))


def _variances(beam: Beam, machine: ParticleMachine, layers: Ints, energy: Ints, ssd: Floats) -> Floats:
    """Return the variance of each spot at the surface [mm^2], range shifter included."""
    variances = np.zeros(energy.size)
    for e, index in enumerate(layers):
        layer, spots = machine.entry(int(index)), energy == e
        focus = machine.focus_index(beam.bixel_width, int(index))
        variances[spots] = layer.focus.sigma_at(ssd[spots], focus) ** 2
        if beam.range_shifter is not None:
            if machine.radiation not in IONS:
                raise InputError(f"a range shifter is not known for {machine.radiation}")
            gap = ssd[spots] - (machine.sad - beam.range_shifter.isocenter_distance)
            variances[spots] += beam.range_shifter.variance(gap, layer.range80, *IONS[machine.radiation])
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
