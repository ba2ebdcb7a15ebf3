"""The measured curves and output factors as the aperture engine gives them for a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.commissioning.tank import Floats, OutputFactor, TankData, TankScan
from radplan.engines import ApertureOptions, aperture_model
from radplan.geometry.grid import Grid
from radplan.machines import MLC, PhotonMachine
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

Setup = tuple[tuple[float, float], float]

_VOXEL = 20.0
_STEP = 1.0
"""Distance of calculated points along a curve [mm]."""

_DEPTH_STEP = 0.5
"""Profiles are calculated at multiples of this depth [mm]."""

_LEAVES = np.arange(-200.0, 201.0, 10.0)
"""Boundaries of leaves whose width plays no part: jaws bound the fields across their motion [mm]."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """What a machine gives where a tank was measured.

    Parameters
    ----------
    curves : tuple of array of shape (n,)
        Dose per monitor unit at the positions of every scan [Gy/MU].
    factors : array of shape (m,)
        Output factors [1].
    """

    curves: tuple[Floats, ...]
    factors: Floats


def predicted(machine: PhotonMachine, data: TankData, opening: float = 0.0) -> Predicted:
    """Return the curves and output factors of a machine, by one calculation for each field and surface distance.

    Parameters
    ----------
    machine : PhotonMachine
        A linac with monitor units.
    data : TankData
        What was measured.
    opening : float
        How far each jaw stands farther out than it says [mm].
    """
    setups: dict[Setup, list[TankScan]] = {}
    for scan in data.scans:
        setups.setdefault((scan.field, scan.ssd), []).append(scan)
    points: dict[Setup, list[float]] = {}
    for factor in data.output_factors:
        for side in (factor.field, (100.0, 100.0)):
            points.setdefault((side, factor.ssd), []).append(factor.depth)
            setups.setdefault((side, factor.ssd), [])
    doses: dict[int, Floats] = {}
    on_axis: dict[tuple[Setup, float], float] = {}
    for setup, scans in setups.items():
        depths = points.get(setup, [])
        curves, axis = _calculated(machine, setup, scans, depths, data.leaf_axis, opening)
        doses |= {id(scan): dose for scan, dose in zip(scans, curves, strict=True)}
        on_axis |= {(setup, depth): dose for depth, dose in zip(depths, axis, strict=True)}
    return Predicted(
        tuple(doses[id(scan)] for scan in data.scans),
        np.asarray([_factor(factor, on_axis) for factor in data.output_factors]),
    )


def _factor(factor: OutputFactor, on_axis: dict[tuple[Setup, float], float]) -> float:
    mine, ten = ((side, factor.ssd) for side in (factor.field, (100.0, 100.0)))
    return on_axis[mine, factor.depth] / on_axis[ten, factor.depth]


def _calculated(
    machine: PhotonMachine, setup: Setup, scans: Sequence[TankScan], depths: Sequence[float],
    leaf_axis: Literal["x", "y"] | None, opening: float,
) -> tuple[list[Floats], list[float]]:  # fmt: skip
    """Return the dose of one field at the points of its scans, and at depths on its axis."""
    profiles = [scan for scan in scans if scan.curve != "depth dose"]
    far = max([float(np.abs(scan.position).max()) for scan in profiles], default=0.0)
    deepest = max(
        [float(scan.position[-1]) for scan in scans if scan.curve == "depth dose"] + list(depths), default=0.0
    )
    deepest = max([deepest, *(scan.depth or 0.0 for scan in profiles)])
    across, down = int(np.ceil(far / _STEP)) + 2, int(np.ceil(deepest / _DEPTH_STEP)) + 2
    grid = Grid((across, down, across), (_STEP, _DEPTH_STEP, _STEP), (0.0, 0.0, 0.0))
    lines = {"depth dose": _axis_voxels(grid)}
    for scan in profiles:
        lines[scan.label] = _line_voxels(grid, scan)
    if not depths and not any(scan.curve == "depth dose" for scan in scans):
        del lines["depth dose"]
    rows = np.unique(np.concatenate(list(lines.values())))
    field = _field(machine, setup, leaf_axis, opening)
    mlc = None if leaf_axis is None else machine.collimation.of(_leaves())
    model = aperture_model(
        water_phantom(), [field], machine, mlc, grid, ApertureOptions(free=()), dtype="float64", voxels=rows
    )
    dose = np.asarray(model.forward(np.asarray(model.variables.start))["physical_dose"])[0]
    values = {name: dose[np.searchsorted(rows, line)] for name, line in lines.items()}
    curves = []
    for scan in scans:
        name = "depth dose" if scan.curve == "depth dose" else scan.label
        along = grid.axes[1] if scan.curve == "depth dose" else grid.axes[0]
        curves.append(np.interp(np.abs(scan.position), along, values[name]))
    return curves, [float(np.interp(depth, grid.axes[1], values["depth dose"])) for depth in depths]


def _axis_voxels(grid: Grid) -> np.ndarray:
    return np.arange(grid.shape[1]) * grid.shape[2]


def _line_voxels(grid: Grid, scan: TankScan) -> np.ndarray:
    """Return the voxels of one half of a profile: the field and the machine are the same on both sides."""
    planes, depths, columns = grid.shape
    row = round((scan.depth or 0.0) / _DEPTH_STEP)
    if scan.curve == "crossplane":
        return row * columns + np.arange(columns)
    return np.arange(planes) * depths * columns + row * columns


def _field(machine: PhotonMachine, setup: Setup, leaf_axis: Literal["x", "y"] | None, opening: float) -> TreatmentField:
    """Return the field of one monitor unit, between jaws or between leaves and jaws."""
    (width, length), ssd = setup
    sides = {"x": np.asarray([-0.5, 0.5]) * width, "y": np.asarray([-0.5, 0.5]) * length}
    moved = np.asarray([-opening, opening])
    jaws = {axis: None if axis == leaf_axis else sides[axis] + moved for axis in ("x", "y")}
    leaves = None
    if leaf_axis is not None:
        low, high = sides["y" if leaf_axis == "x" else "x"] + moved
        seen = (_LEAVES[:-1] < high) & (_LEAVES[1:] > low)
        leaves = np.where(seen[:, None], sides[leaf_axis], 0.0)
    points = tuple(
        ControlPoint(mu, 0.0, 0.0, 0.0, np.asarray([0.0, machine.sad - ssd, 0.0]), jaws["x"], jaws["y"], leaves)
        for mu in (0.0, 1.0)
    )
    boundaries = None if leaf_axis is None else _LEAVES
    return TreatmentField("open", 1, points, machine.sad, boundaries, leaf_axis or "x")


def _leaves() -> MLC:
    return MLC("leaves of the tank's linac", _LEAVES, 0.012, 0.3)


@cache
def water_phantom() -> Patient:
    """Return water of 60 x 60 x 46 cm whose surface is the plane y = 0."""
    grid = Grid((30, 25, 30), (_VOXEL,) * 3, (-14.5 * _VOXEL, -1.5 * _VOXEL, -14.5 * _VOXEL))
    water = np.broadcast_to((grid.axes[1] > 0.0)[None, :, None], grid.shape)
    body = Structure.from_mask("BODY", grid, water, role="external")
    return Patient("tank", CT(grid, np.where(water, 0.0, -1000.0).astype(np.float32)), Structures([body]))
