"""A water tank: measured curves from PTW files, and the same tank under apertures."""

from __future__ import annotations

import numpy as np

from radplan.beams.control_points import ControlPoint, TreatmentField
from radplan.engines.aperture.model import ApertureOptions, aperture_model
from radplan.geometry.grid import Grid
from radplan.patient import CT, Patient, Structure, Structures

VOXEL = 20.0
AS_SHIPPED = ApertureOptions()


def scans(path):
    """The scans of a PTW .mcc file: (curve type, depth [mm] or None, positions [mm], values), by position."""
    for block in path.read_text().split("BEGIN_SCAN ")[1:]:
        if "BEGIN_DATA" not in block:
            continue
        head, data = block.split("BEGIN_DATA")[:2]
        entries = dict(line.strip().split("=", 1) for line in head.splitlines() if "=" in line)
        assert (entries["SSD"], entries["FIELD_INPLANE"], entries["FIELD_CROSSPLANE"]) == ("900.00", "100.00", "100.00")
        table = np.asarray(data.split("END_DATA")[0].split(), dtype=float).reshape(-1, 2)
        table = table[np.argsort(table[:, 0])]
        depth = float(entries["SCAN_DEPTH"]) if "SCAN_DEPTH" in entries else None
        yield entries["SCAN_CURVETYPE"], depth, table[:, 0], table[:, 1]


def edges(position, curve):
    """Positions of 80, 50 and 20 % of the axis value on the positive side."""
    outer = position > 20
    return tuple(np.interp(-level, -curve[outer], position[outer]) for level in (0.8, 0.5, 0.2))


def water_tank():
    """Water 60 x 60 x 40 cm whose surface is the plane y = 0, below the gantry at 0 degrees."""
    grid = Grid((30, 22, 30), (VOXEL,) * 3, (-14.5 * VOXEL, -1.5 * VOXEL, -14.5 * VOXEL))
    water = np.broadcast_to((grid.axes[1] > 0.0)[None, :, None], grid.shape)
    body = Structure.from_mask("BODY", grid, water, role="external")
    return Patient("tank", CT(grid, np.where(water, 0.0, -1000.0).astype(np.float32)), Structures([body]))


def dose_of_field(tank, machine, width, length, ssd, grid, options=AS_SHIPPED, voxels=None):
    """Dose per MU (n,) [Gy/MU] of jaws width (x) by length (y) [mm] at the isocentre, 100 cm from the source."""
    jaws = (-width / 2, width / 2), (-length / 2, length / 2)
    points = tuple(ControlPoint(mu, 0.0, 0.0, 0.0, (0.0, machine.sad - ssd, 0.0), *jaws) for mu in (0.0, 1.0))
    field = TreatmentField("open", 1, points, machine.sad)
    rows = np.arange(grid.size) if voxels is None else voxels
    model = aperture_model(tank, [field], machine, grid=grid, options=options, dtype="float64", voxels=rows)
    return model.forward(np.asarray(model.variables.start))["physical_dose"][0]
