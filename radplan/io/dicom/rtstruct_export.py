"""Structures as an RTSTRUCT file: contours along the edges of voxels, which give the same voxels when read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.io.dicom.ct import CTSeries
from radplan.io.dicom.reading import Dataset, reading
from radplan.io.dicom.writing import check_identity, describe_file, empty, identified, referring, write_whole
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
_STUDY = "1.2.840.10008.3.1.2.3.1"
_TYPES = {"target": "PTV", "external": "EXTERNAL", "oar": "ORGAN", "ignored": "CONTROL"}
_COLOR = (0.7, 0.7, 0.7)


def export_structures(path: str | Path, patient: Patient, series: CTSeries) -> Path:
    """Write all structures of a patient as an RTSTRUCT file: whole or not at all.

    Voxels that belong by half or more are outlined slice by slice along their edges; holes are contours of their own.

    Parameters
    ----------
    path : path-like
        The file to write; one of that name is replaced.
    patient : Patient
        Whose structures.
    series : CTSeries
        The images they were drawn on; give patient, study and frame of reference.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        When there is no structure, or the images lack identifiers.
    FileError
        When the file cannot be written.
    """
    path = Path(path)
    check_identity(series)
    if not patient.structures:
        raise InputError(f"patient {patient.name!r} has no structures to write")
    with reading(path):
        from pydicom.uid import RTStructureSetStorage

        dataset = identified(series, {})
        now = describe_file(dataset, RTStructureSetStorage, "RTSTRUCT", "radplan structures")
        dataset.StructureSetLabel, dataset.StructureSetName = "radplan", patient.name[:64]
        dataset.StructureSetDate, dataset.StructureSetTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
        dataset.ApprovalStatus = "UNAPPROVED"
        dataset.ReferencedFrameOfReferenceSequence = [_frame(series)]
        places = dict(zip(_heights(series), series.instances, strict=True))
        listed, drawn, observed = [], [], []
        for number, structure in enumerate(patient.structures.values(), start=1):
            listed.append(_region(number, structure, series))
            drawn.append(_contours(number, structure, places))
            observed.append(_observation(number, structure))
        dataset.StructureSetROISequence = listed
        dataset.ROIContourSequence = drawn
        dataset.RTROIObservationsSequence = observed
        write_whole(path, dataset, implicit=True)
    return path


def outlines(mask: npt.NDArray[np.bool_]) -> list[npt.NDArray[np.int64]]:
    """Return the loops (n, 2) along pixel edges, (column, row) of corners, that enclose the pixels of a mask.

    Corner (0, 0) is the outer corner of pixel (0, 0). Pixels that touch at a corner only are apart; holes have loops of
    their own, the other way round.

    >>> outlines(np.asarray([[True, True]]))[0].tolist()
    [[0, 0], [2, 0], [2, 1], [0, 1]]
    """
    following = _edges(mask)
    loops = []
    while following:
        start = next(iter(following))
        loop, heading = [start], (0, 0)
        while True:
            corner = loop[-1]
            ways = following[corner]
            # Why: where two loops meet at a corner, turning right keeps pixels that touch there apart.
            right = (-heading[1], heading[0])
            way = right if right in ways and len(ways) > 1 else ways[0]
            ways.remove(way)
            if not ways:
                del following[corner]
            heading = way
            after = (corner[0] + way[0], corner[1] + way[1])
            if after == start:
                break
            loop.append(after)
        corners = np.asarray(loop, dtype=np.int64)
        before, behind = corners - np.roll(corners, 1, axis=0), np.roll(corners, -1, axis=0) - corners
        loops.append(corners[np.any(before != behind, axis=1)])
    return loops


def _edges(mask: Bools) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return the steps along pixel edges from every corner, pixels on the right hand."""
    padded = np.pad(mask, 1)
    inside = padded[1:-1, 1:-1]
    following: dict[tuple[int, int], list[tuple[int, int]]] = {}
    # Neighbour that is outside, corner where the edge begins, and its direction, all as (column, row).
    sides = (((0, -1), (0, 0), (1, 0)), ((1, 0), (1, 0), (0, 1)), ((0, 1), (1, 1), (-1, 0)), ((-1, 0), (0, 1), (0, -1)))
    for (dx, dy), (cx, cy), step in sides:
        neighbour = padded[1 + dy : padded.shape[0] - 1 + dy, 1 + dx : padded.shape[1] - 1 + dx]
        rows, columns = np.nonzero(inside & ~neighbour)
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            following.setdefault((column + cx, row + cy), []).append(step)
    return following


def _heights(series: CTSeries) -> list[float]:
    """Return the height z of every image of a series [mm]; none where slices run along another axis."""
    if series.orientation.along_slices[2] == 0:
        return []
    heights = [float(z) for z in series.ct.grid.axes[2]]
    ordered = heights if series.orientation.along_slices[2] > 0 else heights[::-1]
    return ordered[: len(series.instances)]


def _frame(series: CTSeries) -> Dataset:
    frame = empty()
    frame.FrameOfReferenceUID = series.frame_of_reference
    if series.instances:
        images = empty()
        images.SeriesInstanceUID = series.series
        images.ContourImageSequence = [referring(_CT_IMAGE, instance) for instance in series.instances]
        study = referring(_STUDY, series.identity["StudyInstanceUID"])
        study.RTReferencedSeriesSequence = [images]
        frame.RTReferencedStudySequence = [study]
    return frame


def _region(number: int, structure: Structure, series: CTSeries) -> Dataset:
    region = empty()
    region.ROINumber, region.ROIName = number, structure.name[:64]
    region.ReferencedFrameOfReferenceUID = series.frame_of_reference
    region.ROIGenerationAlgorithm = ""
    return region


def _observation(number: int, structure: Structure) -> Dataset:
    observation = empty()
    observation.ObservationNumber, observation.ReferencedROINumber = number, number
    named = structure.name[:3].upper()
    is_target = structure.role == "target"
    observation.RTROIInterpretedType = named if is_target and named in ("GTV", "CTV") else _TYPES[structure.role]
    observation.ROIInterpreter = ""
    return observation


def _contours(number: int, structure: Structure, places: dict[float, str]) -> Dataset:
    drawn = empty()
    drawn.ReferencedROINumber = number
    drawn.ROIDisplayColor = [round(255 * part) for part in structure.color or _COLOR]
    items = []
    for points in _loops(structure):
        item = empty()
        item.ContourGeometricType, item.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
        item.ContourData = [f"{value:.6g}" for value in np.round(points, 3).ravel()]
        instance = places.get(float(points[0, 2]))
        if instance:
            item.ContourImageSequence = [referring(_CT_IMAGE, instance)]
        items.append(item)
    if items:
        drawn.ContourSequence = items
    return drawn


def _loops(structure: Structure) -> Iterator[Floats]:
    """Yield contours (n, 3) of a structure, slice by slice [mm]."""
    grid: Grid = structure.grid
    inside = slice(None) if structure.fraction is None else structure.fraction >= 0.5
    mask = np.zeros(grid.size, dtype=bool)
    mask[structure.voxels[inside]] = True
    volume = mask.reshape(grid.shape)
    first = np.asarray(grid.origin[:2]) - 0.5 * np.asarray(grid.spacing[:2])
    for index in np.flatnonzero(volume.any(axis=(1, 2))):
        height = float(grid.axes[2][index])
        for loop in outlines(volume[index]):
            corners = first + loop * np.asarray(grid.spacing[:2])
            yield np.column_stack([corners, np.full(len(corners), height)])
