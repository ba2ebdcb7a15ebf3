"""A patient without images: the external contour of a structure set, filled with water."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.io.dicom.case import DicomCase, choose_structure_set
from radplan.io.dicom.contours import fill_contours, plane_spacing
from radplan.io.dicom.ct import CTSeries
from radplan.io.dicom.folder import list_folder
from radplan.io.dicom.orientation import Orientation
from radplan.io.dicom.rtstruct import Region, read_regions, read_structures, role_of
from radplan.patient.ct import CT
from radplan.patient.patient import Patient

logger = logging.getLogger(__name__)

_AIR = -1000.0
_MARGIN = 3
"""Voxels of air around the contour."""


def read_water_case(folder: str | Path, spacing: float = 2.0, structure_set: str | Path | None = None) -> DicomCase:
    """Read a structure set without its images: water inside the external contour, air outside.

    The images made for it have square pixels, and slices where the contours lie. They do not say how the patient lay;
    the patient is taken to lie head first supine (HFS).

    Parameters
    ----------
    folder : path-like
        A folder with an RTSTRUCT, or the file.
    spacing : float
        Side of the pixels [mm].
    structure_set : str or path-like, optional
        SOPInstanceUID or file of the RTSTRUCT to take of several.

    Raises
    ------
    FileError
        When there is no structure set, or several to choose from, or it has no external contour.
    """
    folder = Path(folder)
    if not spacing > 0:
        raise InputError(f"spacing must be > 0 mm, got {spacing}")
    entry = choose_structure_set(list_folder(folder), structure_set)
    if entry is None:
        raise FileError(folder, "holds no structure set; expected one to take the external contour from")
    outline = _outline(entry.path, read_regions(entry.path))
    frame = outline.frame_of_reference
    try:
        grid = _grid(outline, spacing)
        voxels, _ = fill_contours(outline.contours, grid, grid.spacing[2])
    except InputError as error:
        raise FileError(entry.path, f"structure {outline.name}: {error}") from None
    hu = np.full(grid.size, _AIR, dtype=np.float32)
    hu[voxels] = 0.0
    structures = read_structures(entry.path, grid)
    name = folder.stem if folder.is_file() else folder.name or folder.resolve().name
    logger.warning("%s has no images: %s is filled with water", name, outline.name)
    ct = CT(grid, hu.reshape(grid.shape))
    series = CTSeries(ct, Orientation(patient_position=""), frame, "", (), (), {})
    return DicomCase(Patient(name, ct, structures), series, entry.instance)


def _outline(path: Path, regions: tuple[Region, ...]) -> Region:
    """Return the external contour."""
    outlines = [r for r in regions if r.contours and not r.fault and role_of(r.kind, r.name) == "external"]
    if not outlines:
        raise FileError(
            path, f"has no external contour to fill with water; found: {', '.join(r.name for r in regions)}"
        )
    return max(outlines, key=lambda region: sum(len(contour) for contour in region.contours))


def _grid(outline: Region, spacing: float) -> Grid:
    """Return a grid around a contour whose slices lie in its planes."""
    points = np.concatenate(outline.contours)
    low, high = points.min(axis=0), points.max(axis=0)
    step = plane_spacing(outline.contours)
    if step is None:
        raise InputError("lies in one plane: its length is not known")
    sizes = (spacing, spacing, step)
    counts = [int(np.ceil((high[k] - low[k]) / sizes[k] - 1e-6)) + 1 + (2 * _MARGIN if k < 2 else 2) for k in range(3)]
    first = [low[k] - (_MARGIN if k < 2 else 1) * sizes[k] for k in range(3)]
    return Grid((counts[2], counts[1], counts[0]), sizes, (float(first[0]), float(first[1]), float(first[2])))
