"""Spots of particle beams: on every ray those energies whose Bragg peaks lie in the target, thinned to layers."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.geometry.rays import surface_distance

if TYPE_CHECKING:
    from radplan.beams.beam import Beams
    from radplan.machines.particle import ParticleMachine

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

AIR = 0.0011
"""Water-equivalent thickness of 1 mm of air [mm]."""

_PASSAGES = 16
"""Passages of a ray through the targets that are told apart."""

_PEAK_ROOM = 3.0
"""Depth of target in water beyond the last peak that goes without saying [mm]."""

_TOLERANCE = 0.1
"""Share of the layer spacing by which neighbouring peaks may lie closer."""


def place_spots(
    density: npt.NDArray[np.float32],
    target: Bools,
    grid: Grid,
    source: Floats,
    points: Floats,
    machine: ParticleMachine,
    layer_spacing: float,
    shift: float = 0.0,
    range_margin: tuple[float, float] = (0.0, 0.0),
) -> tuple[Ints, Ints]:
    """Return the spots of one beam: a ray and an energy of the machine each, rays in order, energies ascending.

    A ray gets the energies whose peaks, behind the air gap in front of the patient, lie between its radiological depths
    at entry to and exit from the target, in each passage. Of the energies of the whole beam, from the lowest used,
    those are kept whose peak lies at least the layer spacing less 10 % behind that of the one kept before.

    Parameters
    ----------
    density : array of shape (nz, ny, nx)
        Relative electron density.
    target : boolean array of shape (nz, ny, nx)
        Voxels that peaks are placed in.
    grid : Grid
        Their grid.
    source : array of shape (3,)
        World position of the source [mm].
    points : array of shape (r, 3)
        World positions that the rays go through [mm].
    machine : ParticleMachine
        Gives the energies and the depths of their peaks.
    layer_spacing : float
        Distance in water between the peaks of neighbouring layers [mm], > 0.
    shift : float
        Water-equivalent thickness in front of the patient [mm].
    range_margin : (float, float)
        By how much ranges may be wrong: a share of the depth, and [mm]. Peaks are placed from the shallowest to the
        deepest place that entry and exit may then have.

    Returns
    -------
    rays : array of shape (n,)
        Ray of each spot.
    energies : array of shape (n,)
        Energy index of each spot.

    Raises
    ------
    InputError
        When the layer spacing is not > 0, or the target lies out of the machine's range.

    Notes
    -----
    Source: matRad 3.2.2, ``steering/matRad_StfGeneratorParticleIMPT.m``.
    """
    if not (layer_spacing > 0.0 and math.isfinite(layer_spacing)):
        raise InputError(f"layer_spacing must be > 0 mm, got {layer_spacing}")
    share, length = range_margin
    if not (0.0 <= share < 1.0 and 0.0 <= length < math.inf):
        raise InputError(f"range_margin must be a share in [0, 1) and a length >= 0 mm, got {share:g} and {length:g}")
    from radplan.kernels import siddon

    spans, counts = siddon.mask_crossings(
        np.ascontiguousarray(density), np.ascontiguousarray(target), grid.bounds[0], np.asarray(grid.spacing),
        source, points, _PASSAGES,
    )  # fmt: skip
    air = air_gap(machine, np.asarray(surface_distance(density, grid, source, points)))
    peaks = machine.peaks - shift
    wanted = np.zeros((points.shape[0], peaks.size), dtype=bool)
    for passage in range(_PASSAGES):
        entry = spans[:, passage, 0] * (1.0 - share) - length + air
        leave = spans[:, passage, 1] * (1.0 + share) + length + air
        crossed = counts > passage
        wanted |= crossed[:, None] & (peaks >= entry[:, None]) & (peaks <= leave[:, None])
    if not wanted.any():
        raise InputError(_out_of_range(spans, counts, peaks, machine, shift))
    _warn_of_range(spans + air[:, None, None], counts, peaks, machine)
    wanted &= _layers(peaks, np.any(wanted, axis=0), layer_spacing)
    rays, energies = np.nonzero(wanted)
    return rays.astype(np.int64), energies.astype(np.int64)


def air_gap(machine: ParticleMachine, surface: Floats) -> Floats:
    """Return the water-equivalent air between nozzle and surface beyond that in the machine's tables ``(n,)`` [mm].

    Parameters
    ----------
    machine : ParticleMachine
        Says where the nozzle is and how much air its tables include.
    surface : array of shape (n,)
        Distances from the source to the surface [mm].
    """
    return AIR * (surface + machine.nozzle_distance - machine.sad - machine.fit_air_offset)


def spot_limits(beams: Beams, machine: ParticleMachine) -> tuple[Floats, Floats]:
    r"""Return the least and largest weight of every spot that the machine's monitor allows [10^6 particles].

    A spot of M monitor units has :math:`N = M n(E)` particles, with the particles per MU n of its energy layer.

    Parameters
    ----------
    beams : Beams
        Beams of spots, in the order of the weights.
    machine : ParticleMachine
        Gives ``particles_per_mu``, ``min_mu`` and ``max_mu`` of each energy.

    Returns
    -------
    least, largest : arrays of shape (spots,)
        0 and infinity where the machine sets no limit.
    """
    layers = [machine.entry(index) for index in _energy_indices(beams, machine)]
    least = np.asarray([layer.min_mu * layer.particles_per_mu for layer in layers]) / 1e6
    largest = np.asarray([layer.max_mu * layer.particles_per_mu for layer in layers]) / 1e6
    return least, largest


def least_spot_mu(machine: ParticleMachine, energy: float) -> tuple[float, float]:
    """Return the least and largest MU of a spot at an energy [MeV/u], between tables that of the nearest one."""
    layer = machine.entry(int(np.argmin(np.abs(machine.energies - energy))))
    return layer.min_mu, layer.max_mu


def monitor_units(beams: Beams, machine: ParticleMachine, weights: npt.ArrayLike) -> Floats:
    """Return the monitor units of spot weights, both of shape (spots,), per fraction.

    Parameters
    ----------
    beams : Beams
        Beams of spots, in the order of the weights.
    machine : ParticleMachine
        Gives the particles per MU of each energy.
    weights : array of shape (spots,)
        [10^6 particles per fraction]

    Raises
    ------
    InputError
        When there is not one weight for each spot.
    """
    x = np.asarray(weights, dtype=np.float64)
    if x.shape != (beams.count,):
        raise InputError(f"expected one weight for each of {beams.count} spots, got an array of shape {x.shape}")
    per_mu = np.asarray([machine.entry(index).particles_per_mu for index in _energy_indices(beams, machine)])
    return np.asarray(1e6 * x / per_mu)


def _energy_indices(beams: Beams, machine: ParticleMachine) -> list[int]:
    found: list[int] = []
    for beam in beams:
        if beam.energies is None:
            raise InputError(f"the beam at gantry {beam.gantry:g} has no energies, so its spots have no monitor units")
        energies, inverse = np.unique(beam.energies, return_inverse=True)
        index = np.asarray([machine.energy_index(float(energy)) for energy in energies])
        found += index[inverse.reshape(-1)].tolist()
    return found


def _layers(peaks: Floats, used: Bools, spacing: float) -> Bools:
    """Return the energies to keep: from the lowest to the highest one used, not closer than the spacing."""
    first, last = np.flatnonzero(used)[[0, -1]]
    kept, current = np.zeros(peaks.size, dtype=bool), -math.inf
    for index in range(first, last + 1):
        if abs(peaks[index] - current) >= spacing * (1.0 - _TOLERANCE):
            kept[index], current = True, peaks[index]
    return kept


def _warn_of_range(spans: Floats, counts: Ints, peaks: Floats, machine: ParticleMachine) -> None:
    """Say when parts of the targets lie where the machine places no peak, by more than a voxel's worth."""
    met = counts > 0
    first, last = spans[met, 0, 0], np.take_along_axis(spans[met, :, 1], (counts[met] - 1)[:, None], axis=1)[:, 0]
    deep, shallow = last > peaks[-1] + _PEAK_ROOM, first < peaks[0] - _PEAK_ROOM
    reach, begin = f"reach {last.max():.0f} mm deep", f"begin {max(float(first.min()), 0.0):.0f} mm deep"
    for beyond, where, reached, advice in (
        (deep, reach, f"the deepest peak lies at {peaks[-1]:.0f} mm", "choose other angles"),
        (shallow, begin, f"the shallowest peak lies at {peaks[0]:.0f} mm", _nearer(machine)),
    ):
        if beyond.any():
            logger.warning(
                "machine %s: on %d of %d rays the targets %s, but %s: %s",
                machine.name, int(beyond.sum()), int(met.sum()), where, reached, advice,
            )  # fmt: skip


def _nearer(machine: ParticleMachine) -> str:
    """Return what brings peaks nearer to the surface; a slab that ions pass would only scatter electrons."""
    return "choose a machine of lower energies" if machine.radiation == "VHEE" else "use a range shifter"


def _out_of_range(spans: Floats, counts: Ints, peaks: Floats, machine: ParticleMachine, shift: float) -> str:
    if not counts.any():
        return "no ray of the beam meets the targets: check the isocenter"
    met = counts > 0
    nearest = float(spans[met, 0, 0].min())
    farthest = float(max(spans[ray, count - 1, 1] for ray, count in enumerate(counts) if count))
    behind = f" behind {shift:g} mm of range shifter" if shift else ""
    advice = _nearer(machine) if farthest < peaks[0] else "choose other angles or a machine of higher energies"
    return (
        f"machine {machine.name!r} places peaks at {max(float(peaks[0]), 0.0):.0f}..{float(peaks[-1]):.0f} mm of "
        f"water{behind}, but the targets lie at {nearest:.0f}..{farthest:.0f} mm: {advice}"
    )
