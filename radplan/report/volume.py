"""A plan's images as a browser takes them: CT, structures and quantities, quantised, packed and small."""

from __future__ import annotations

import base64
import gzip
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radplan.geometry.grid import Grid
from radplan.geometry.resample import resample_linear
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure
from radplan.plan import Plan
from radplan.quantities.base import Quantity
from radplan.viz.palette import structure_colors

WINDOW = (-360.0, 440.0)
"""Hounsfield units shown from black to white."""

ISODOSES = {20.0: "#3949ab", 50.0: "#00acc1", 80.0: "#43a047", 95.0: "#fdd835", 107.0: "#d81b60"}
"""Percent of the reference -> colour."""

BUDGET = 5_000_000
"""Characters that all volumes of a page may take together; the images are thinned until they fit."""

_MOST_STRUCTURES = 32
_MOST_VOXELS = 7_000_000
_MARGIN = 12.0
_WASH_FROM = 0.1


def slice_data(plan: Plan, quantities: Sequence[str | Quantity] | None = None, budget: int = BUDGET) -> dict[str, Any]:
    """Return what ``slices.js`` shows of a plan: plain data, volumes as gzip in base64.

    The CT is cut to the body and a margin and shown in steps of 1/255 of the window; quantities lie on the dose grid
    in steps of 1/65535 of their maximum. Where everything together takes more than the budget, the CT is shown in 64
    tones, then CT and structures on every second, third, ... voxel; dose grids of more than 7 million voxels are
    resampled.

    Parameters
    ----------
    plan : Plan
        What is shown.
    quantities : sequence of str or Quantity, optional
        Which; those that the plan tells of otherwise.
    budget : int
        Characters that the volumes may take.

    Returns
    -------
    dict
        ``shape``, ``spacing``, ``origin`` of the images shown [mm], ``center``, ``ct``, ``masks``, ``structures``,
        ``quantities``, ``window`` and ``palette``.
    """
    cubes = [_quantity(plan, quantity) for quantity in quantities or plan.told()]
    return _scene(plan.patient, [float(value) for value in plan.isocenter], cubes, budget)


def anatomy_data(patient: Patient, budget: int = BUDGET) -> dict[str, Any]:
    """Return what ``slices.js`` shows of a patient without a plan: CT and structures, about the targets."""
    names = [name for name in patient.target_names if patient.structures[name].voxels.size]
    parts = [patient.structures[name] for name in names] or [patient.external]
    points = np.concatenate([part.grid.points(part.voxels) for part in parts])
    return _scene(patient, [float(value) for value in points.mean(axis=0)], [_nothing()], budget)


def _scene(patient: Patient, center: list[float], cubes: list[dict[str, Any]], budget: int) -> dict[str, Any]:
    """Return images within what the quantities leave of the budget, and the quantities."""
    structures = _shown(patient)
    left = budget - sum(len(cube["values"]) for cube in cubes)
    colors = structure_colors(patient.structures)
    images = _images(patient, structures, 1, 256)
    if _size(images) > left:
        images = _images(patient, structures, 1, 64)
    step = 1
    while _size(images) > left and min(images["shape"]) > 8:
        step = max(step + 1, math.floor((_size(images) / max(left, 1)) ** (1.0 / 3.0) * step))
        images = _images(patient, structures, step, 64)
    return {
        **images,
        "center": center,
        "window": list(WINDOW),
        "palette": _palette(),
        "structures": [
            {"name": part.name, "bit": bit, "color": _hexadecimal(colors[part.name])}
            for bit, part in enumerate(structures)
        ],
        "body_bit": next((bit for bit, part in enumerate(structures) if part.role == "external"), -1),
        "quantities": cubes,
    }


def _size(images: Mapping[str, Any]) -> int:
    return len(images["ct"]) + len(images["masks"])


def _shown(patient: Patient) -> list[Structure]:
    """Return the structures that are drawn, targets first, at most as many as a mask has bits."""
    order = {"target": 0, "external": 1, "oar": 2}
    known = [part for part in patient.structures.values() if part.role != "ignored" and part.voxels.size]
    return sorted(known, key=lambda part: order.get(part.role, 3))[:_MOST_STRUCTURES]


def _images(patient: Patient, structures: Sequence[Structure], step: int, tones: int) -> dict[str, Any]:
    """Return CT, in so many tones, and structure masks about the body, every `step`-th voxel along each axis."""
    ct = patient.ct
    body = patient.dosed_mask()
    chosen = []
    for axis in range(3):
        hit = np.flatnonzero(body.any(axis=tuple(other for other in range(3) if other != axis)))
        extra = int(_MARGIN / ct.grid.spacing[2 - axis])
        low, high = max(int(hit[0]) - extra, 0), min(int(hit[-1]) + extra + 1, body.shape[axis])
        chosen.append(slice(low, high, step))
    part = tuple(chosen)
    bits = len(structures)
    kind = np.dtype(np.uint8 if bits <= 8 else np.uint16 if bits <= 16 else np.uint32)
    masks = np.zeros(ct.hu[part].shape, dtype=kind)
    for bit, structure in enumerate(structures):
        masks |= structure.mask()[part].astype(kind) << kind.type(bit)
    black, white = WINDOW
    gray = np.clip((ct.hu[part].astype(np.float32) - black) / (white - black), 0.0, 1.0)
    first = [cut.start for cut in chosen][::-1]
    return {
        "shape": list(masks.shape),
        "spacing": [value * step for value in ct.grid.spacing],
        "origin": [o + f * s for o, f, s in zip(ct.grid.origin, first, ct.grid.spacing, strict=True)],
        "ct": packed(np.round(np.round(gray * (tones - 1)) * (255.0 / (tones - 1))).astype(np.uint8)),
        "masks": packed(masks),
        "mask_bytes": kind.itemsize,
    }


def _quantity(plan: Plan, quantity: str | Quantity) -> dict[str, Any]:
    """Return one quantity on its grid, with its isodoses: of the prescription, or of its maximum."""
    grid, cube = _bounded(plan.model.grid, np.asarray(plan[quantity], dtype=np.float64))
    top = max(float(cube.max()), 1e-12)
    prescription = plan.patient.prescription if plan.is_prescribed(quantity) else None
    reference = top if prescription is None else prescription
    word = "of the maximum" if prescription is None else "of the prescription"
    unit = plan.unit(quantity)
    levels = [
        {"value": reference * percent / 100.0, "color": color, "label": _label(percent, reference, unit, word)}
        for percent, color in sorted(ISODOSES.items(), reverse=True)
        if reference * percent / 100.0 < top
    ]
    return {
        "name": plan.quantity(quantity).name,
        "title": plan.title(quantity),
        "unit": unit,
        "shape": list(grid.shape),
        "spacing": list(grid.spacing),
        "origin": list(grid.origin),
        "step": top / 65535.0,
        "top": max(top, 1.1 * reference) if prescription is not None else top,
        "wash_from": _WASH_FROM * reference,
        "levels": levels,
        "values": packed(np.round(np.clip(cube, 0.0, None) / top * 65535.0).astype("<u2")),
    }


def _nothing() -> dict[str, Any]:
    """Return a quantity that is zero everywhere and shows nothing."""
    return {
        "name": "none",
        "title": "no dose yet",
        "unit": "Gy",
        "shape": [1, 1, 1],
        "spacing": [1.0, 1.0, 1.0],
        "origin": [0.0, 0.0, 0.0],
        "step": 0.0,
        "top": 1.0,
        "wash_from": 1.0,
        "levels": [],
        "values": packed(np.zeros((1, 1, 1), dtype="<u2")),
    }


def _label(percent: float, reference: float, unit: str, word: str) -> str:
    return f"{percent:g} % {word} ({percent / 100.0 * reference:.1f} {unit})"


def _bounded(grid: Grid, cube: NDArray[np.float64]) -> tuple[Grid, NDArray[np.float64]]:
    if grid.size <= _MOST_VOXELS:
        return grid, cube
    factor = (grid.size / _MOST_VOXELS) ** (1.0 / 3.0)
    x, y, z = (factor * value for value in grid.spacing)
    coarse = grid.with_spacing((x, y, z))
    return coarse, np.asarray(resample_linear(cube, grid, coarse))


def packed(values: NDArray[Any]) -> str:
    r"""Return an array's bytes, little-endian and C order, as gzip in base64.

    >>> gzip.decompress(base64.b64decode(packed(np.asarray([1, 2], dtype=np.uint8))))
    b'\x01\x02'
    """
    data = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False))
    return base64.b64encode(gzip.compress(data.tobytes(), compresslevel=6, mtime=0)).decode("ascii")


def _palette() -> list[int]:
    """Return 256 colours of the wash, red, green and blue from 0 to 255."""
    from bokeh.palettes import Turbo256

    return [int(tone[k : k + 2], 16) for tone in Turbo256 for k in (1, 3, 5)]


def _hexadecimal(color: tuple[float, float, float]) -> str:
    return "#" + "".join(f"{round(255 * value):02x}" for value in color)
