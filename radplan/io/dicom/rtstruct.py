"""Structure sets: each region of interest of an RTSTRUCT file as a structure on a grid."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.geometry.grid import Grid
from radplan.io.dicom.contours import Ends, fill_contours, plane_spacing
from radplan.io.dicom.reading import (
    Dataset,
    items_of,
    number_of,
    numbers_of,
    open_dataset,
    positions_of,
    reading,
    text_of,
    whole_of,
)
from radplan.patient.patient import DensityOverride
from radplan.patient.structures import Role, Structure, Structures

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_SKIPPED = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")

_TYPES: dict[str, Role] = {
    **dict.fromkeys(("PTV", "CTV", "GTV", "ITV"), "target"),
    "EXTERNAL": "external",
    **dict.fromkeys(("ORGAN", "AVOIDANCE", "CAVITY", "TREATED_VOLUME", "IRRAD_VOLUME", "DOSE_REGION"), "oar"),
    **dict.fromkeys(
        ("BOLUS", "SUPPORT", "FIXATION", "MARKER", "ISOCENTER", "REGISTRATION", "CONTRAST_AGENT"), "ignored"
    ),
    **dict.fromkeys(("BRACHY_CHANNEL", "BRACHY_ACCESSORY", "BRACHY_SRC_APP", "BRACHY_CHNL_SHLD"), "ignored"),
}
"""Role of each RT ROI Interpreted Type; of types not listed the name decides."""

_NAMES: tuple[tuple[str, Role], ...] = (
    (r"^i?[gcpi]tv(?!\w*ring)", "target"),
    (r"^(external|body|skin_?outer)$", "external"),
    (r"^(couch|bolus)", "ignored"),
)
"""Role by TG-263 name, where the file gives no type."""


@dataclass(frozen=True, eq=False)
class Region:
    """One region of interest as the file gives it.

    Parameters
    ----------
    number : int
        ROI number.
    name : str
        ROI name.
    kind : str
        RT ROI Interpreted Type, upper case, or empty.
    frame_of_reference : str
        UID of the coordinate system of its contours, or empty.
    color : (float, float, float) or None
        Red, green and blue in [0, 1].
    contours : tuple of arrays of shape (n, 3)
        Closed planar contours in patient coordinates [mm].
    density : float, optional
        Electron density relative to water that the file states (ROI Physical Property REL_ELEC_DENSITY) [1].
    """

    number: int
    name: str
    kind: str
    frame_of_reference: str
    color: tuple[float, float, float] | None
    contours: tuple[Floats, ...]
    density: float | None = None


def role_of(kind: str, name: str) -> Role:
    """Return a structure's role from its RT ROI Interpreted Type, or from its TG-263 name where that says nothing.

    Source: Mayo et al., Int. J. Radiat. Oncol. Biol. Phys. 100 (2018) 1057 (AAPM TG-263).

    >>> role_of("AVOIDANCE", "PTV_Low"), role_of("", "PTVp_5000"), role_of("", "External"), role_of("", "Heart")
    ('oar', 'target', 'external', 'oar')
    """
    if kind.upper() in _TYPES:
        return _TYPES[kind.upper()]
    return next((role for pattern, role in _NAMES if re.match(pattern, name.strip(), re.IGNORECASE)), "oar")


def read_structures(
    path: str | Path,
    grid: Grid,
    frame_of_reference: str | None = None,
    allow_other_frame: bool = False,
    ends: Ends = "flat",
) -> Structures:
    """Read a structure set onto a grid, partial voxels in part.

    Points and open contours are left out, as are regions without contours. Of several external contours the largest
    counts. Regions that share a name are told apart by their number; both are announced.

    Parameters
    ----------
    path : path-like
        The RTSTRUCT file.
    grid : Grid
        The grid to draw on, as a rule the CT's.
    frame_of_reference : str, optional
        FrameOfReferenceUID of `grid`; the contours must lie in it. None: not checked.
    allow_other_frame : bool
        Whether contours of another, or of no stated, frame of reference are taken as they are.
    ends : "flat" or "tapered"
        How a structure ends half a contour spacing beyond its last contour; see `fill_contours`. Flat is what most
        systems do; tapered comes nearer to Eclipse's volumes and coldest doses.

    Raises
    ------
    FileError
        When the file is damaged, no RTSTRUCT, or in another frame of reference; names the region and the cause.
    """
    return read_structure_set(path, grid, frame_of_reference, allow_other_frame, ends)[0]


def read_structure_set(
    path: str | Path,
    grid: Grid,
    frame_of_reference: str | None = None,
    allow_other_frame: bool = False,
    ends: Ends = "flat",
) -> tuple[Structures, tuple[DensityOverride, ...]]:
    """Read a structure set and the densities that it states, as `read_structures` reads the structures.

    A region with a relative electron density among its physical properties gives an override: couch, bolus, metal.
    One of the type BOLUS gets dose. A BOLUS or SUPPORT without a density is announced: it counts as air.
    """
    path = Path(path)
    regions = [region for region in read_regions(path) if region.contours]
    if frame_of_reference is not None:
        for region in regions:
            _check_frame(path, region, frame_of_reference, allow_other_frame)
    try:
        thickness = _slice_distance(regions, grid)
        names = _distinct_names(regions)
        drawn: list[Structure] = []
        given: list[DensityOverride] = []
        for region, name in zip(regions, names, strict=True):
            voxels, fraction = fill_contours(region.contours, grid, thickness, ends)
            if voxels.size == 0:
                logger.warning("structure %s lies outside the images and is left out", name)
                continue
            _announce_loss(region, name, grid)
            parts = None if (fraction == 1.0).all() else fraction
            drawn.append(Structure(name, grid, voxels, parts, role_of(region.kind, name), color=region.color))
            _announce_density(region, name)
            if region.density is not None:
                given.append(DensityOverride(drawn[-1], region.density, dosed=region.kind == "BOLUS"))
        return Structures(_one_external(drawn)), tuple(given)
    except InputError as error:
        raise FileError(path, str(error)) from None


def read_regions(path: str | Path) -> tuple[Region, ...]:
    """Return the regions of interest of an RTSTRUCT file in file order, with their closed planar contours.

    Raises
    ------
    FileError
        When the file is damaged or no RTSTRUCT.
    """
    path = Path(path)
    dataset = open_dataset(path)
    with reading(path):
        if text_of(path, dataset, "Modality", "") != "RTSTRUCT":
            raise FileError(path, f"is a file of modality {text_of(path, dataset, 'Modality', '?')}; expected RTSTRUCT")
        listed = items_of(dataset, "StructureSetROISequence")
        if not listed:
            raise FileError(path, "holds no StructureSetROISequence: no structure is listed")
        observed = {
            whole_of(path, item, "ReferencedROINumber"): (
                text_of(path, item, "RTROIInterpretedType", "").upper(),
                _stated_density(path, item),
            )
            for item in items_of(dataset, "RTROIObservationsSequence")
        }
        drawn: dict[int, list[Dataset]] = {}
        for item in items_of(dataset, "ROIContourSequence"):
            drawn.setdefault(whole_of(path, item, "ReferencedROINumber"), []).append(item)
        numbers = [whole_of(path, item, "ROINumber") for item in listed]
        for number, count in Counter(numbers).items():
            if count > 1:
                raise FileError(path, f"lists ROI number {number} {count} times")
        unknown = sorted(set(drawn) - set(numbers))
        if unknown:
            raise FileError(path, f"holds contours of ROI number {unknown[0]}, which it does not list")
        frame = _common_frame(path, dataset)
        return tuple(
            _read_region(path, item, number, observed.get(number, ("", None)), drawn.get(number, []), frame)
            for item, number in zip(listed, numbers, strict=True)
        )


def _common_frame(path: Path, dataset: Dataset) -> str:
    stated = text_of(path, dataset, "FrameOfReferenceUID", "")
    listed = [
        text_of(path, item, "FrameOfReferenceUID", "")
        for item in items_of(dataset, "ReferencedFrameOfReferenceSequence")
    ]
    return stated or (listed[0] if len(listed) == 1 else "")


def _stated_density(path: Path, observation: Dataset) -> float | None:
    """Return the relative electron density among the physical properties of a region, None where there is none."""
    for entry in items_of(observation, "ROIPhysicalPropertiesSequence"):
        if text_of(path, entry, "ROIPhysicalProperty", "").upper() == "REL_ELEC_DENSITY":
            return number_of(path, entry, "ROIPhysicalPropertyValue")
    return None


def _read_region(
    path: Path, item: Dataset, number: int, observed: tuple[str, float | None], drawn: list[Dataset], frame: str
) -> Region:
    """Return one region; `observed` are its interpreted type and its stated density."""
    name = text_of(path, item, "ROIName", "") or f"ROI {number}"
    contours: list[Floats] = []
    skipped: Counter[str] = Counter()
    color = None
    for entry in drawn:
        if color is None and entry.get("ROIDisplayColor"):
            red, green, blue = np.clip(numbers_of(path, entry, "ROIDisplayColor", 3) / 255.0, 0.0, 1.0).tolist()
            color = (red, green, blue)
        for contour in items_of(entry, "ContourSequence"):
            shape = text_of(path, contour, "ContourGeometricType")
            if shape in _SKIPPED:
                skipped[shape] += 1
            elif shape in _CLOSED:
                contours.append(_read_contour(path, contour, name))
            else:
                raise FileError(path, f"structure {name}: ContourGeometricType {shape!r} is not known")
    if skipped:
        said = ", ".join(f"{count} {shape}" for shape, count in skipped.items())
        logger.info("structure %s: %s contour(s) enclose nothing and are left out", name, said)
    own = text_of(path, item, "ReferencedFrameOfReferenceUID", "")
    kind, density = observed
    return Region(number, name, kind, own or frame, color, tuple(c for c in contours if len(c) >= 3), density)


def _read_contour(path: Path, contour: Dataset, name: str) -> Floats:
    values = positions_of(path, contour, "ContourData")
    if values.size % 3:
        raise FileError(
            path, f"structure {name}: a contour holds {values.size} coordinates; expected x, y, z of each point"
        )
    if contour.get("NumberOfContourPoints"):
        count = whole_of(path, contour, "NumberOfContourPoints")
        if 3 * count != values.size:
            raise FileError(path, f"structure {name}: a contour of {count} points holds {values.size} coordinates")
    return values.reshape(-1, 3)


def _check_frame(path: Path, region: Region, expected: str, allowed: bool) -> None:
    if region.frame_of_reference == expected and expected:
        return
    said = region.frame_of_reference or "not stated"
    if not allowed:
        raise FileError(
            path,
            f"structure {region.name}: its frame of reference is {said}, that of the images "
            f"{expected or 'not stated'}: positions may not agree; "
            "give the structure set of these images, or allow_other_frame=True if you know "
            "that both share coordinates",
        )
    logger.warning("structure %s: its frame of reference is %s; allowed", region.name, said)


def _slice_distance(regions: list[Region], grid: Grid) -> float:
    """Return the usual distance between contour planes of a file, at least the grid's slice spacing [mm]."""
    steps = [plane_spacing(region.contours) for region in regions]
    known = [step for step in steps if step is not None]
    return max(float(np.median(known)) if known else 0.0, grid.spacing[2])


def _distinct_names(regions: list[Region]) -> list[str]:
    counts = Counter(region.name for region in regions)
    for name, count in counts.items():
        if count > 1:
            logger.warning("%d structures are named %s: each gets its ROI number", count, name)
    return [r.name if counts[r.name] == 1 else f"{r.name} (ROI {r.number})" for r in regions]


def _announce_loss(region: Region, name: str, grid: Grid) -> None:
    low, high = grid.bounds
    reach = np.concatenate(region.contours)
    if (reach.min(axis=0) < low - 0.01).any() or (reach.max(axis=0) > high + 0.01).any():
        logger.warning("structure %s reaches beyond the images: only the part inside counts", name)


def _announce_density(region: Region, name: str) -> None:
    if region.density is not None:
        logger.warning("structure %s: its stated density %g replaces the CT's", name, region.density)
    elif region.kind in ("BOLUS", "SUPPORT"):
        logger.warning(
            "structure %s is of type %s and states no density: outside the body it is air", name, region.kind
        )


def _one_external(structures: list[Structure]) -> list[Structure]:
    outlines = [s for s in structures if s.role == "external"]
    if len(outlines) <= 1:
        return structures
    largest = max(outlines, key=lambda s: s.volume)
    logger.warning("%d external contours: the largest, %s, counts", len(outlines), largest.name)
    return [
        Structure(s.name, s.grid, s.voxels, s.fraction, "ignored", color=s.color)
        if s.role == "external" and s is not largest
        else s
        for s in structures
    ]
