"""Placement of bixels and spots: every beam gets those that see the targets, as matRad places them.

Targets, grown by a margin inside the patient, are projected from the source onto the isocentre plane; each projected
voxel centre opens the bixel it falls into. The bixel grid is fixed to the isocentre (one bixel is centred on the axis)
and turns with the collimator.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beam, Beams, beam_angles, isocentres
from radplan.beams.range_shifter import RangeShifter
from radplan.beams.spots import place_spots
from radplan.errors import InputError
from radplan.geometry.frames import beam_rotation, isocentre_plane, world_to_beam
from radplan.geometry.grid import Grid
from radplan.machines.mlc import MLC, library_mlc
from radplan.machines.particle import ParticleMachine

if TYPE_CHECKING:
    from radplan.machines.photon import PhotonMachine
    from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

# Why: rotations leave errors of 1e-13 mm, which must not decide about voxels on the edge between two bixels.
_EDGE = 1e-9

_FAR = 100.0
"""How far outside the images an isocentre may lie [mm]: air beside the patient need not have been scanned."""


def place_beams(
    patient: Patient,
    machine: PhotonMachine | ParticleMachine,
    gantry: float | Iterable[float],
    couch: float | Iterable[float] = 0.0,
    collimator: float | Iterable[float] = 0.0,
    bixel_width: float = 5.0,
    isocenter: npt.ArrayLike | None = None,
    margin: float | None = None,
    targets: str | Sequence[str] | None = None,
    layer_spacing: float | None = None,
    range_shifter: RangeShifter | None = None,
    setup_margin: float = 0.0,
    range_margin: tuple[float, float] = (0.0, 0.0),
    mlc: MLC | str | None = None,
) -> Beams:
    """Return beams whose bixels or spots cover the targets, seen from every direction.

    Bixels of a beam are ordered by x, then y, both ascending: the order of matRad's rays. Spots are ordered by their
    rays in this order, then by ascending energy; `radplan.beams.spots` says how energies are chosen.

    Parameters
    ----------
    patient : Patient
        CT, structures and, where it has them, goals.
    machine : PhotonMachine or ParticleMachine
        Gives the source-axis distance, the name and the energies of spots.
    gantry, couch, collimator : float or iterable of float
        IEC 61217 angles [degree], one per beam or one for all: of the room, in which the patient lies as
        `patient.patient_position` says.
    bixel_width : float
        Side of the square bixels, or distance between spots, in the isocentre plane [mm]. When it is smaller than the
        CT's largest voxel side, one more ring of bixels closes the gaps between projected voxels.
    isocenter : array of shape (3,) or (beams, 3), optional
        World position [mm]; by default the mean of the targets' voxel centres (see `target_center`).
    margin : float, optional
        Growth of the targets before they are projected [mm]; by default one bixel, of particles one voxel. At least one
        voxel, unless it is 0.
    targets : str or sequence of str, optional
        Names of the structures to cover; by default the patient's `target_names`: those that carry goals, or all
        when none does.
    layer_spacing : float, optional
        Of particles: distance in water between the peaks of neighbouring layers [mm]; by default `bixel_width`.
    range_shifter : RangeShifter, optional
        Of particles: a slab in front of the patient in all beams.
    setup_margin : float
        How far the patient may stand off [mm]: targets grow by the margin or by this, whichever is more, as in matRad.
    range_margin : (float, float)
        Of particles: by how much ranges may be wrong, as a share of the depth and in mm; (0.035, 1.0) is usual. Layers
        then cover the targets in front and behind wherever they may come to lie.
    mlc : MLC or str, optional
        Of photons: the collimator, or its name, on whose leaf pairs rows of bixels lie, so that fluence can be
        sequenced; a wide pair gets all of its rows. Left out, a bixel is centred on the axis.

    Raises
    ------
    UnknownNameError
        When the patient has no structure of a name in `targets`.
    InputError
        When there is nothing to cover, a target has no voxels or lies out of range, the isocentre lies more than 100 mm
        outside the images, an angle or a length is wrong, layers or a range shifter are asked of photons, rows would
        straddle leaves, or a target reaches beyond the collimator.

    Notes
    -----
    Source: matRad 3.2.2, ``steering/matRad_StfGeneratorPhotonIMRT.m`` (rays, margin, isocentre).

    >>> round_half_away(np.asarray([-2.5, -0.4, 0.5])).tolist()
    [-3.0, -0.0, 1.0]
    """
    photons = machine.radiation == "photons"
    if photons and (layer_spacing is not None or range_shifter is not None or range_margin != (0.0, 0.0)):
        raise InputError(
            f"layer_spacing, range_shifter and range_margin are for particles, but {machine.name!r} delivers photons"
        )
    if not photons and mlc is not None:
        raise InputError(f"mlc aligns bixels of photons with leaves, but {machine.name!r} delivers {machine.radiation}")
    if not (setup_margin >= 0.0 and math.isfinite(setup_margin)):
        raise InputError(f"setup_margin must be >= 0 mm, got {setup_margin}")
    if not photons and not isinstance(machine, ParticleMachine):
        raise InputError(f"spots of {machine.radiation} need a ParticleMachine, got {machine.name!r}")
    if not (bixel_width > 0.0 and math.isfinite(bixel_width)):
        raise InputError(f"bixel_width must be > 0 mm, got {bixel_width}")
    leaves = None if mlc is None else _fitting(mlc, bixel_width)
    names = _target_names(patient, targets)
    grid = patient.ct.grid
    membership = _membership(patient, names)
    centre = _center(grid, membership) if isocenter is None else isocenter
    angles = beam_angles(gantry, couch, collimator)
    usual = bixel_width if photons else min(grid.spacing)
    growth = float(usual if margin is None else margin)
    grown = _grown(patient, membership > 0, setup_margin if 0.0 <= growth < setup_margin else growth)
    points = grid.points(np.flatnonzero(grown))
    ring = bixel_width < max(grid.spacing)
    beams = []
    for three, position in zip(angles, isocentres(centre, len(angles)), strict=True):
        _check_isocentre(position, grid)
        lies = patient.patient_position
        rotation = beam_rotation(*three, lies)
        bixels = _bixels(points, position, rotation, machine.sad, float(bixel_width), ring, leaves)
        beam = Beam(
            *three,
            isocenter=position,
            sad=machine.sad,
            bixel_width=bixel_width,
            bixels=bixels,
            patient_position=lies,
        )
        if isinstance(machine, ParticleMachine):
            spacing = float(bixel_width if layer_spacing is None else layer_spacing)
            beam = _with_spots(beam, patient, grown, machine, spacing, range_shifter, range_margin)
        beams.append(beam)
    return Beams(tuple(beams), machine.radiation, machine.name)


def _fitting(mlc: MLC | str, bixel_width: float) -> MLC:
    """Return the collimator, after a check that rows of bixels lie on its leaf pairs."""
    leaves = library_mlc(mlc) if isinstance(mlc, str) else mlc
    leaves.row_edges(bixel_width)
    return leaves


def _check_isocentre(position: Floats, grid: Grid) -> None:
    low, high = grid.bounds
    if np.any(position < low - _FAR) or np.any(position > high + _FAR):
        raise InputError(
            f"the isocentre {position.tolist()} mm lies far outside the images, which reach from "
            f"{low.round(1).tolist()} to {high.round(1).tolist()} mm (x, y, z of the patient): is it in mm, and "
            "in the coordinates of these images?"
        )


def _with_spots(
    beam: Beam,
    patient: Patient,
    target: Bools,
    machine: ParticleMachine,
    spacing: float,
    shifter: RangeShifter | None,
    range_margin: tuple[float, float],
) -> Beam:
    """Return a beam with the spots on its bixels' rays in place of the bixels."""
    if shifter is not None and machine.radiation == "VHEE":
        raise InputError(
            f"a range shifter would only scatter the electrons of machine {machine.name!r}: leave it out, and "
            "choose a machine of lower energies for shallow targets"
        )
    shift = 0.0 if shifter is None else shifter.thickness
    rays, energies = place_spots(
        patient.density(), target, patient.ct.grid, beam.source, beam.targets, machine, spacing, shift, range_margin
    )
    return replace(beam, bixels=beam.bixels[rays], energies=machine.energies[energies], range_shifter=shifter)


def target_center(patient: Patient, targets: str | Sequence[str] | None = None) -> Floats:
    """Return the mean voxel centre of the union of the targets, shape (3,) [mm]: the default isocentre.

    A voxel that is a target in part counts with its fraction.

    Parameters
    ----------
    patient : Patient
        CT, structures and, where it has them, goals.
    targets : str or sequence of str, optional
        Names of structures; by default as in `place_beams`.

    Raises
    ------
    UnknownNameError
        When the patient has no structure of a name in `targets`.
    InputError
        When there is no target or one has no voxels.

    Notes
    -----
    Source: matRad 3.2.2, ``geometry/matRad_getIsoCenter.m``.
    """
    return _center(patient.ct.grid, _membership(patient, _target_names(patient, targets)))


def round_half_away(x: Floats) -> Floats:
    """Return the nearest whole numbers, halves away from zero (MATLAB's rounding), ``(n,)`` to ``(n,)``.

    >>> round_half_away(np.asarray([0.5, 1.5, -0.5])).tolist()
    [1.0, 2.0, -1.0]
    """
    rounded: Floats = np.copysign(np.floor(np.abs(x) + (0.5 + _EDGE)), x)
    return rounded


def dilate(mask: Bools, steps: tuple[int, int, int], inside: Bools) -> Bools:
    """Return a mask grown voxel by voxel to its 26 neighbours, never leaving `inside`.

    Each of the steps grows along the axes that still have steps left; because the growth is cut after every step it
    flows around gaps instead of jumping them.

    Parameters
    ----------
    mask, inside : boolean arrays of shape (nz, ny, nx)
        What grows, and where it may.
    steps : (int, int, int)
        Numbers of voxels along x, y and z.

    Notes
    -----
    Source: matRad 3.2.2, ``geometry/matRad_addMargin.m`` with diagonal elements.

    >>> line = np.asarray([[[False, True, False, False]]])
    >>> dilate(line, (2, 0, 0), np.asarray([[[True, True, True, False]]])).tolist()
    [[[True, True, True, False]]]
    """
    grown = mask.copy()
    for step in range(max(steps)):
        for axis, count in enumerate(steps[::-1]):
            if step < count:
                first = grown.copy()
                ahead, behind = np.moveaxis(grown, axis, 0), np.moveaxis(first, axis, 0)
                ahead[1:] |= behind[:-1]
                ahead[:-1] |= behind[1:]
        grown = (grown & inside) | mask
    return grown


def _target_names(patient: Patient, targets: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the structures to cover; see `place_beams`."""
    if targets is not None:
        names = (targets,) if isinstance(targets, str) else tuple(targets)
        if not names:
            raise InputError("targets names no structure: give at least one, or leave it out")
        return names
    if not patient.target_names:
        raise InputError(
            f"patient {patient.name!r} has no structure of role 'target': name the ones to cover with targets= "
            f"(structures: {', '.join(patient.structures)})"
        )
    return patient.target_names


def _membership(patient: Patient, names: tuple[str, ...]) -> Floats:
    """Return how much of every CT voxel belongs to any of the structures, (voxels,), the largest fraction."""
    membership = np.zeros(patient.ct.grid.size)
    for name in names:
        structure = patient.structures[name]
        if structure.voxels.size == 0:
            raise InputError(f"structure {name!r} has no voxels, so no beam can be placed on it")
        fraction = 1.0 if structure.fraction is None else structure.fraction
        membership[structure.voxels] = np.maximum(membership[structure.voxels], fraction)
    return membership


def _center(grid: Grid, membership: Floats) -> Floats:
    voxels = np.flatnonzero(membership)
    center: Floats = np.average(grid.points(voxels), axis=0, weights=membership[voxels])
    return center


def _grown(patient: Patient, mask: Bools, margin: float) -> Bools:
    """Return the targets grown by the margin inside the patient, (nz, ny, nx)."""
    if not (margin >= 0.0 and math.isfinite(margin)):
        raise InputError(f"margin must be >= 0 mm, got {margin}")
    grid = patient.ct.grid
    volume = mask.reshape(grid.shape)
    if margin == 0.0:
        return volume
    x, y, z = (int(round_half_away(np.asarray([max(margin, size) / size]))[0]) for size in grid.spacing)
    return dilate(volume, (x, y, z), patient.external.mask() | volume)


def _bixels(
    points: Floats, isocenter: Floats, rotation: Floats, sad: float, width: float, ring: bool, mlc: MLC | None
) -> Floats:
    """Return the bixels (n, 2) that the points project into, ordered by x, then y."""
    local = world_to_beam(points, isocenter, rotation)
    nearest = float(local[:, 2].max())
    if nearest >= sad:
        raise InputError(
            f"the targets reach {nearest:.0f} mm from the isocentre {isocenter.tolist()} toward the source, "
            f"which is {sad:.0f} mm away: check the isocenter"
        )
    x, y, _ = isocentre_plane(local, sad)
    shift = 0.0 if mlc is None else _row_shift(mlc, width)
    cells = np.unique(np.stack([round_half_away(x / width), round_half_away((y - shift) / width)], axis=1), axis=0)
    if ring:
        around = np.asarray([(i, j) for i in (-1.0, 0.0, 1.0) for j in (-1.0, 0.0, 1.0)])
        cells = np.unique((cells[:, None, :] + around).reshape(-1, 2), axis=0)
    bixels: Floats = width * cells + np.asarray([0.0, shift])
    return bixels + 0.0 if mlc is None else _whole_pairs(bixels, width, mlc)


def _row_shift(mlc: MLC, width: float) -> float:
    """Return how far rows on leaf pairs are shifted from rows about the axis, within half a row [mm]."""
    return math.remainder(float(mlc.boundaries[0]) + 0.5 * width, width)


def _whole_pairs(bixels: Floats, width: float, mlc: MLC) -> Floats:
    """Return bixels (n, 2) with all rows of every leaf pair that has any, ordered by x, then y."""
    low, high = bixels[:, 1].min() - 0.5 * width, bixels[:, 1].max() + 0.5 * width
    if low < mlc.boundaries[0] - _EDGE or high > mlc.boundaries[-1] + _EDGE:
        raise InputError(
            f"the targets reach from {low:.0f} to {high:.0f} mm across the leaves, but MLC {mlc.name!r} from "
            f"{mlc.boundaries[0]:g} to {mlc.boundaries[-1]:g} mm: turn the collimator or move the isocentre"
        )
    rows = np.unique(bixels[:, 1])
    edges = mlc.row_edges(width)
    centres = 0.5 * (edges[:-1] + edges[1:])
    pair_of = np.searchsorted(mlc.boundaries, centres, side="right")
    added = [bixels]
    for row in rows:
        here = pair_of == np.searchsorted(mlc.boundaries, row, side="right")
        x = bixels[bixels[:, 1] == row, 0]
        added += [np.column_stack([x, np.full(x.size, centre)]) for centre in centres[here]]
    whole: Floats = np.unique(np.round(np.concatenate(added), 9), axis=0)
    return whole
