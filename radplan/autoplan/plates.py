"""What beams do to anatomy before any plan: angle plates, beam plates and the dose of open fields.

An *angle plate* marks the lines from the isocentre towards each source on the slices about it; a *beam plate* sums,
over beams, the shadow of the target from each source with its divergence, ``(SAD / L)^2``; the *conformal dose* is the
engine's dose of every bixel that sees the target. Source of the plates: Gao et al., CVPR (2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from radplan.beams import Beams, place_beams
from radplan.beams.beam import Beam
from radplan.engines import PhotonPencilBeam, dose_influence
from radplan.geometry.frames import isocentre_plane, world_to_beam
from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.machines import PhotonMachine
from radplan.patient import Patient

Floats = npt.NDArray[np.float64]

_SLICES, _HALF_WIDTH, _LENGTH = 5, 2.0, 50.0
"""Slices to either side of the isocentre, half width and length of a line [voxel]."""


def angle_plate(grid: Grid, isocenter: npt.ArrayLike, gantry: Sequence[float]) -> Floats:
    """Return where the beams come from: 1 near the lines from the isocentre towards each source, 0 elsewhere.

    Parameters
    ----------
    grid : Grid
        Where.
    isocenter : array of shape (3,)
        World position (x, y, z) [mm].
    gantry : sequence of float
        IEC gantry angles [degree], couch 0; 0 enters a supine patient from anterior, 90 from the patient's left.
    """
    centre = np.asarray(isocenter, dtype=np.float64)
    pitch = float(max(grid.spacing[:2]))
    x, y = grid.axes[0] - centre[0], grid.axes[1] - centre[1]
    near = np.abs(grid.axes[2] - centre[2]) <= (_SLICES + 0.5) * grid.spacing[2]
    plane = np.zeros((y.size, x.size))
    for angle in np.deg2rad(np.asarray(gantry, dtype=np.float64)):
        along = x[None, :] * np.sin(angle) - y[:, None] * np.cos(angle)
        across = np.abs(x[None, :] * np.cos(angle) + y[:, None] * np.sin(angle))
        plane[(along >= 0.0) & (along <= _LENGTH * pitch) & (across <= _HALF_WIDTH * pitch)] = 1.0
    return np.where(near[:, None, None], plane[None, :, :], 0.0)


def beam_plate(patient: Patient, beams: Beams, grid: Grid) -> Floats:
    """Return the sum over beams of the target's shadow, 1 inside it, times (SAD / L)^2.

    Parameters
    ----------
    patient : Patient
        Whose targets throw shadows.
    beams : Beams
        Where from; their bixels are not looked at.
    grid : Grid
        Where the plate is wanted.
    """
    points = grid.points(np.arange(grid.size))
    target = np.concatenate([patient.structures[name].grid.points(patient.structures[name].voxels)
                             for name in patient.target_names])  # fmt: skip
    total = np.zeros(grid.size)
    pitch = 0.5 * float(min(grid.spacing))
    for beam in beams:
        seen = _projected(target, beam)[0]
        low = seen.min(axis=0) - 2.0 * max(grid.spacing)
        shape = np.ceil((seen.max(axis=0) + 2.0 * max(grid.spacing) - low) / pitch).astype(int) + 1
        shadow = _filled(np.round((seen - low) / pitch).astype(int), shape, max(grid.spacing) / pitch)
        place, depth = _projected(points, beam)
        index = np.round((place - low) / pitch).astype(int)
        held = np.all((index >= 0) & (index < shape), axis=1)
        inside = np.zeros(grid.size, dtype=bool)
        inside[held] = shadow[index[held, 0], index[held, 1]]
        total += np.where(inside, (beam.sad / depth) ** 2, 0.0)
    return total.reshape(grid.shape)


def conformal_dose(
    patient: Patient, machine: PhotonMachine, gantry: Sequence[float], grid: Grid, coarse: float = 8.0
) -> Floats:
    """Return the dose of open fields that conform to the targets, its mean in the targets 1.

    Parameters
    ----------
    patient : Patient
        With targets.
    machine : PhotonMachine
        Whose dose.
    gantry : sequence of float
        Gantry angles [degree].
    grid : Grid
        Where it is wanted.
    coarse : float
        Spacing of the grid it is calculated on, and width of its bixels [mm].
    """
    beams = place_beams(patient, machine, gantry=gantry, bixel_width=coarse, margin=0.0)
    dij = dose_influence(patient, beams, machine, grid=coarse, engine=PhotonPencilBeam(lateral_cutoff=50.0))
    dose = np.asarray(dij.forward(np.ones(dij.variables.count), ["physical_dose"])["physical_dose"])[0]
    cube = np.zeros(dij.grid.size)
    cube[np.asarray(dij.voxels)] = dose
    fine = np.asarray(resample_linear(cube.reshape(dij.grid.shape), dij.grid, grid))
    where = np.unique(np.concatenate([patient.structure_weights(name, grid)[0] for name in patient.target_names]))
    return np.asarray(fine / fine.reshape(-1)[where].mean())


def _projected(points: Floats, beam: Beam) -> tuple[Floats, Floats]:
    """Return where points (n, 3) are seen on the isocentre plane (n, 2) [mm], and their depths from the source [mm]."""
    local = world_to_beam(points, beam.isocenter, beam.rotation)
    x, y, depth = isocentre_plane(local, beam.sad)
    return np.stack([x, y], axis=-1), depth


def _filled(index: npt.NDArray[np.int64], shape: npt.NDArray[np.int64], reach: float) -> npt.NDArray[np.bool_]:
    """Return the pixels near projected points, without holes: closed by half a voxel's shadow."""
    from scipy.ndimage import distance_transform_edt

    hit = np.zeros(tuple(shape), dtype=bool)
    hit[index[:, 0], index[:, 1]] = True
    return np.asarray(distance_transform_edt(~hit) <= 0.75 * reach)
