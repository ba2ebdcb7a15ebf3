"""Booleans and 5 mm margins of real contours against masks made by another program.

Contours: Eclipse (RTSTRUCT of a prostate plan). Masks: SlicerRT's baselines for the morphology of the same contours on
0.98 x 0.98 x 2.5 mm voxels (SlicerRT test data, MIT). SlicerRT moves a mask by a kernel of whole voxels. Its "5 mm"
kernel has 11 x 11 x 5 voxels, an ellipsoid of half-axes 5.37, 5.37 and 6.25 mm: a mask of the contours moved by that
ellipsoid, voxel centre to voxel centre, is SlicerRT's mask (Dice 1.0000). The margins are therefore compared with that
ellipsoid. With exactly 5 mm the margins reach a Dice of 0.982 (grown) and 0.971 (shrunk) with these masks; a mask moved
by exactly 5 mm from voxel centre to voxel centre reaches 0.965 and 0.947.
"""

from __future__ import annotations

import gzip
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from radplan.geometry.grid import Grid
from radplan.io.dicom.rtstruct import read_structures
from radplan.patient import contract, evaluate_expression, expand

CASE = "cases/eclipse-prostate"
GRID = Grid((92, 512, 512), (0.976562, 0.976562, 2.5), (-250.0, -250.0, -122.5))
KERNEL = (5.5 * 0.976562, 5.5 * 0.976562, 6.25)


def segment(path: Path) -> np.ndarray:
    """Return the mask on GRID of a .seg.nrrd file: one gzip-compressed byte volume, cut out of a larger one."""
    header, data = path.read_bytes().split(b"\n\n", 1)
    lines = [line.replace(":=", ": ").split(": ", 1) for line in header.decode().splitlines()[1:] if line[0] != "#"]
    fields = dict(lines)
    assert (fields["type"], fields["encoding"]) == ("unsigned char", "gzip")
    nx, ny, nz, _ = (int(n) for n in fields["sizes"].split())
    x, _, y, _, z, _ = (int(n) for n in fields["Segment0_Extent"].split())
    mask = np.zeros(GRID.shape, dtype=bool)
    part = np.frombuffer(gzip.decompress(data), dtype=np.uint8).reshape(nz, ny, nx)
    mask[z : z + nz, y : y + ny, x : x + nx] = part > 0
    return mask


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


@cache
def drawn(path: Path):
    return read_structures(path, GRID)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Bladder | PTV", "Bladder_Union_PTV"),
        ("Bladder & PTV", "Bladder_Intersect_PTV"),
        ("Bladder - PTV", "Bladder_Subtract_PTV"),
    ],
)
def test_booleans_are_the_masks_of_slicerrt(shared, text, name):
    expected = segment(shared(f"{CASE}/EclipseProstate_{name}.seg.nrrd"))
    found = evaluate_expression(text, drawn(shared(f"{CASE}/RS.dcm"))).mask()
    assert dice(found, expected) >= 0.9999


@pytest.mark.parametrize(("move", "name"), [(expand, "Expanded"), (contract, "Shrunk")])
def test_margins_of_the_kernels_size_are_the_masks_of_slicerrt(shared, move, name):
    expected = segment(shared(f"{CASE}/EclipseProstate_{name}_5_5_5_Bladder.seg.nrrd"))
    bladder = drawn(shared(f"{CASE}/RS.dcm"))["Bladder"]
    assert dice(move(bladder, KERNEL).mask(), expected) >= 0.98
    assert dice(move(bladder, 5.0).mask(), expected) >= 0.97


def test_slicerrts_kernel_is_larger_than_5_mm(shared):
    mask = drawn(shared(f"{CASE}/RS.dcm"))["Bladder"].mask()
    scaled = tuple(s / k for s, k in zip(GRID.spacing[::-1], KERNEL[::-1], strict=True))
    box = tuple(slice(at.min() - 8, at.max() + 9) for at in np.nonzero(mask))
    moved = ndimage.distance_transform_edt(~mask[box], sampling=scaled) <= 1 + 1e-6
    assert dice(moved, segment(shared(f"{CASE}/EclipseProstate_Expanded_5_5_5_Bladder.seg.nrrd"))[box]) >= 0.9999
