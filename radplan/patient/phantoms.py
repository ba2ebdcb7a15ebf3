"""Phantoms built in code: what every installation can plan without a file."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from radplan.errors import UnknownNameError
from radplan.geometry.grid import Grid
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure, Structures

_AIR = -1024.0
_WATER = 0.0


def tg119() -> Patient:
    """Return the C-shape of AAPM TG-119 in water: a target wrapped around a core to be spared.

    Core: cylinder of radius 10 mm, 100 mm long, on the axis through the origin. OuterTarget: 15 to 37 mm from the
    axis, 80 mm long, cut off 8 mm posterior of the axis (172 cm3 as drawn, 170 cm3 in voxels). BODY: water, 300 x
    153 mm with corners rounded by 25 mm, 300 mm long, as the outline of matRad's scan of it. Voxels of 3 x 3 x 2.5 mm
    belong by their centres; a voxel edge lies where the target is cut. 50 Gy in 30 fractions. Ring: a helper, 20 mm
    about the target, that keeps dose from piling up outside it.
    Source: Ezzell et al., Med. Phys. 36 (2009) 5359.

    >>> patient = tg119()
    >>> round(patient.structures["OuterTarget"].volume / 1000)
    170
    """
    grid = _centred_grid(counts=(118, 69, 128), spacing=(3.0, 3.0, 2.5), centre=(0.0, 0.5, 0.0))
    x, y, z = _coordinates(grid)
    radius = np.hypot(x, y)
    beyond = np.hypot(np.maximum(np.abs(x) - 125.0, 0.0), np.maximum(np.abs(y) - 51.5, 0.0))
    body = (beyond <= 25.0) & (np.abs(z) <= 150.0)
    core = (radius <= 10.0) & (np.abs(z) <= 50.0)
    target = (radius >= 15.0) & (radius <= 37.0) & (y < 8.0) & (np.abs(z) <= 40.0)
    structures = Structures(
        [
            Structure.from_mask("Core", grid, core, role="oar", priority=2, color=(0.13, 0.55, 0.13)),
            Structure.from_mask("OuterTarget", grid, target, role="target", priority=1, color=(0.84, 0.15, 0.16)),
            Structure.from_mask("BODY", grid, body, role="external", priority=3, color=(0.30, 0.45, 0.69)),
        ]
    )
    ct = CT(grid, np.where(body, _WATER, _AIR))
    patient = Patient("tg119", ct, structures, fractions=30, prescription=50.0)
    return patient.with_structure("Ring", "ring(OuterTarget, 0 mm, 20 mm)", "ignored", 2)


def box() -> Patient:
    """Return a cube of water, 153 mm wide, with a cubic target of 63 mm at its centre.

    A smaller sister of matRad's BOXPHANTOM with its target and 30 fractions; 3 mm voxels, the centre of both cubes in
    the origin.

    >>> box().structures["OuterTarget"].voxels.size
    9261
    """
    grid = _centred_grid(counts=(61, 61, 61), spacing=(3.0, 3.0, 3.0), centre=(0.0, 0.0, 0.0))
    x, y, z = _coordinates(grid)
    farthest = np.maximum(np.maximum(np.abs(x), np.abs(y)), np.abs(z))
    body = farthest <= 76.5
    structures = Structures(
        [
            Structure.from_mask("BODY", grid, body, role="external", priority=2, color=(0.30, 0.45, 0.69)),
            Structure.from_mask(
                "OuterTarget", grid, farthest <= 31.5, role="target", priority=1, color=(0.84, 0.15, 0.16)
            ),
        ]
    )
    ct = CT(grid, np.where(body, _WATER, _AIR))
    return Patient("box", ct, structures, fractions=30, prescription=60.0)


def water_cylinder(radius: float = 150.0, length: float = 300.0, spacing: float = 4.0) -> Patient:
    """Return a water cylinder around the z axis, centred in the origin, for plans made for somebody else.

    Parameters
    ----------
    radius, length : float
        Of the cylinder [mm].
    spacing : float
        Side of the voxels [mm].

    >>> round(water_cylinder().structures["BODY"].volume / 1e6, 1)  # pi x 150^2 x 300 mm3 = 21.2 l
    21.2
    """
    across, along = (2 * math.ceil(size / spacing) + 5 for size in (radius, 0.5 * length))
    grid = _centred_grid(counts=(across, across, along), spacing=(spacing,) * 3, centre=(0.0, 0.0, 0.0))
    x, y, z = _coordinates(grid)
    inside = (np.hypot(x, y) <= radius) & (np.abs(z) <= 0.5 * length)
    body = Structure.from_mask("BODY", grid, inside, role="external", color=(0.30, 0.45, 0.69))
    return Patient("cylinder", CT(grid, np.where(inside, _WATER, _AIR)), Structures([body]))


PHANTOMS: dict[str, Callable[[], Patient]] = {"tg119": tg119, "box": box}
"""The built-in phantoms: name -> function without arguments that builds the patient."""


GOALS: dict[str, tuple[tuple[str, str, float, float], ...]] = {
    "tg119": (
        ("OuterTarget", "squared_deviation", 50.0, 1000.0),
        ("Core", "squared_overdosing", 15.0, 300.0),
        ("Ring", "squared_overdosing", 40.0, 500.0),
        ("BODY", "squared_overdosing", 30.0, 100.0),
    ),
    "box": (("BODY", "squared_overdosing", 5.0, 100.0), ("OuterTarget", "squared_deviation", 60.0, 800.0)),
}
"""Goals of each phantom: structure, objective, its reference as a course total [Gy], weight; `load_patient` gives them.

Those of the C-shape aim at the report's easy case: at a target D95 of 50 Gy, D10 of the target below 55 Gy and of the
core below 22 Gy. Those of the cube are matRad's for its BOXPHANTOM (BSD-3).
"""

ION_GOALS: dict[str, tuple[tuple[str, str, float, float], ...]] = {
    "tg119": (
        ("OuterTarget", "squared_deviation", 50.0, 1000.0),
        ("Core", "squared_overdosing", 25.0, 50.0),
        ("Ring", "squared_overdosing", 50.0, 300.0),
        ("BODY", "squared_overdosing", 30.0, 100.0),
    ),
    "box": (("OuterTarget", "squared_deviation", 60.0, 100.0), ("BODY", "squared_overdosing", 40.0, 2.0)),
}
"""Goals of each phantom for two fields of ions, in the quantity of the prescription, as `GOALS` has them for photons.

What photons are asked of tissue before and beside a target, two fields of ions could only meet by an uneven dose in it.
"""


def phantom(name: str) -> Patient:
    """Return the built-in phantom of that name, without goals: `radplan.load_patient` gives it those of `GOALS`.

    Raises
    ------
    UnknownNameError
        When there is none of that name; offers the nearest.

    >>> phantom("box").name
    'box'
    """
    if name not in PHANTOMS:
        raise UnknownNameError("phantom", name, PHANTOMS)
    return PHANTOMS[name]()


def _centred_grid(
    counts: tuple[int, int, int], spacing: tuple[float, float, float], centre: tuple[float, float, float]
) -> Grid:
    """Return the grid of `counts` (x, y, z) voxels whose middle is `centre`."""
    x, y, z = (c - 0.5 * (n - 1) * s for c, n, s in zip(centre, counts, spacing, strict=True))
    return Grid((counts[2], counts[1], counts[0]), spacing, (x, y, z))


def _coordinates(grid: Grid) -> tuple[Any, Any, Any]:
    x, y, z = grid.axes
    return x[None, None, :], y[None, :, None], z[:, None, None]
