"""Structure sets: each region of interest of an RTSTRUCT file as a structure on a grid."""

from __future__ import annotations

import logging
import re
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError
from radplan.geometry.grid import Grid
from radplan.io.dicom.contours import Ends, fill_contours, normal_axis, plane_spacing
from radplan.io.dicom.reading import (
    ODD,
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
from radplan.progress import each

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_SKIPPED = ("POINT", "OPEN_PLANAR", "OPEN_NONPLANAR")
_NO_CONTOURS = "it has no contours"
_NO_VOLUME = "its contours enclose nothing"

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

_AROUND = "ring|shell|rind|avoid|spar(e|ing)|margin|minus|exclu|without"
"""Words in names of helpers that lie around a target or leave one out."""

_NAMES: tuple[tuple[str, Role], ...] = (
    (rf"^i?[gcpi]tv(?!.*({_AROUND}))(?!.*(-|not|sub).*[gcpi]tv)", "target"),
    (r"^(external|body|skin[ _-]?outer|patient|(outer|external|body)[ _-]?(contour|outline))$", "external"),
    (r"^(couch|bolus)", "ignored"),
)
"""Role by TG-263 name, where the file gives no type; a difference of targets, such as PTV-CTV, is none."""


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
    fault: str = ""


def role_of(kind: str, name: str) -> Role:
    """Return a structure's role from its RT ROI Interpreted Type, or from its TG-263 name where that says nothing.

    Source: Mayo et al., Int. J. Radiat. Oncol. Biol. Phys. 100 (2018) 1057 (AAPM TG-263).

    >>> role_of("AVOIDANCE", "PTV_Low"), role_of("", "PTVp_5000"), role_of("", "External"), role_of("", "PTV ring")
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

    Points and open contours enclose nothing. Regions without closed contours, and regions that cannot be drawn (tilted
    contours, another frame of reference, damaged attributes), are left out and named, and `Structures.left_out` says
    why; the rest is read. Of several external contours the largest counts. Regions that share a name are told apart by
    their number. All this is announced, as are roles that come from names.

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
        When the file is damaged, no RTSTRUCT, or no region can be drawn; names the first and the cause.
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
    regions = [_in_frame(region, frame_of_reference, allow_other_frame) for region in read_regions(path)]
    drawable = [region for region in regions if not region.fault]
    faults = {region.name: region.fault for region in regions if region.fault}
    odd = [region for region in regions if region.fault and not region.fault.startswith((_NO_CONTOURS, _NO_VOLUME))]
    if odd and not drawable:
        raise FileError(path, f"structure {odd[0].name}: {odd[0].fault}")
    _announce_faults(faults)
    thickness = _slice_distance(drawable, grid)
    drawn: list[Structure] = []
    given: list[DensityOverride] = []
    named = list(zip(drawable, _distinct_names(drawable), strict=True))
    for region, name in each("patient", named, "structures"):
        voxels, fraction = fill_contours(region.contours, grid, thickness, ends, name)
        if voxels.size == 0:
            faults[name] = _why_empty(region, grid)
            logger.warning("structure %s %s and is left out", name, faults[name])
            continue
        _announce_loss(region, name, grid)
        parts = None if (fraction == 1.0).all() else fraction
        drawn.append(Structure(name, grid, voxels, parts, role_of(region.kind, name), color=region.color))
        _announce_density(region, name)
        if region.density is not None:
            given.append(DensityOverride(drawn[-1], region.density, dosed=region.kind == "BOLUS"))
    _announce_roles(drawable)
    known = {structure.name for structure in drawn}
    left_out = {name: fault for name, fault in faults.items() if name not in known}
    return Structures(_one_external(drawn), left_out), tuple(given)


def read_regions(path: str | Path) -> tuple[Region, ...]:
    """Return the regions of interest of an RTSTRUCT file in file order, with their closed planar contours.

    Regions that cannot be drawn come with a `Region.fault`. What belongs to no listed region is passed over and told.

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
        numbered = _by_number(path, dataset, "StructureSetROISequence", "ROINumber")
        observed = _by_number(path, dataset, "RTROIObservationsSequence", "ReferencedROINumber")
        drawn = _by_number(path, dataset, "ROIContourSequence", "ReferencedROINumber")
        frame = _common_frame(path, dataset)
        for number in sorted(set(drawn) - set(numbered)):
            logger.warning("%s: holds contours of ROI number %d, which it does not list", path.name, number)
        return tuple(
            _read_region(path, item, number, observed.get(number, []), drawn.get(number, []), frame, len(items))
            for number, items in numbered.items()
            for item in items
        )


def _by_number(path: Path, dataset: Dataset, sequence: str, keyword: str) -> dict[int, list[Dataset]]:
    """Return the items of a sequence by ROI number; those without one are passed over, which is told."""
    numbered: dict[int, list[Dataset]] = {}
    for index, item in enumerate(items_of(dataset, sequence), start=1):
        try:
            numbered.setdefault(whole_of(path, item, keyword), []).append(item)
        except ODD:
            logger.warning("%s: item %d of %s has no %s and is passed over", path.name, index, sequence, keyword)
    return numbered


def _common_frame(path: Path, dataset: Dataset) -> str:
    stated = text_of(path, dataset, "FrameOfReferenceUID", "")
    listed = [
        text_of(path, item, "FrameOfReferenceUID", "")
        for item in items_of(dataset, "ReferencedFrameOfReferenceSequence")
    ]
    return stated or (listed[0] if len(listed) == 1 else "")


def _stated_density(path: Path, observations: list[Dataset], name: str) -> float | None:
    """Return the relative electron density among the physical properties of a region, None where there is none."""
    for entry in (entry for item in observations for entry in items_of(item, "ROIPhysicalPropertiesSequence")):
        if text_of(path, entry, "ROIPhysicalProperty", "").upper() == "REL_ELEC_DENSITY":
            try:
                density = number_of(path, entry, "ROIPhysicalPropertyValue")
            except ODD:
                density = -1.0
            if density >= 0:
                return density
            logger.warning("structure %s: its stated density (ROIPhysicalPropertyValue) is no number >= 0", name)
    return None


def _color(path: Path, drawn: list[Dataset]) -> tuple[float, float, float] | None:
    """Return the colour, which only serves figures, where it is one; a fourth number (opacity) is passed over."""
    for entry in drawn:
        with suppress(*ODD):
            values = np.clip(numbers_of(path, entry, "ROIDisplayColor") / 255.0, 0.0, 1.0).tolist()
            if len(values) in (3, 4):
                return values[0], values[1], values[2]
    return None


def _read_region(
    path: Path, item: Dataset, number: int, observed: list[Dataset], drawn: list[Dataset], frame: str, listed: int
) -> Region:
    """Return one region; `listed` is how many have its number."""
    name = text_of(path, item, "ROIName", "") or f"ROI {number}"
    kinds = (text_of(path, entry, "RTROIInterpretedType", "") for entry in observed)
    kind = next((kind.upper() for kind in kinds if kind), "")
    own = text_of(path, item, "ReferencedFrameOfReferenceUID", "")
    contours: tuple[Floats, ...] = ()
    try:
        contours, fault = _read_contours(path, drawn)
        if contours:
            normal_axis(contours)
    except ODD as error:
        fault = str(error).removeprefix(f"{path}: ")
    if listed > 1:
        fault = f"{listed} regions have its number, {number}: which contours are its own is not known"
    density = _stated_density(path, observed, name)
    return Region(number, name, kind, own or frame, _color(path, drawn), contours, density, fault)


def _read_contours(path: Path, drawn: list[Dataset]) -> tuple[tuple[Floats, ...], str]:
    """Return the closed planar contours of a region, and why there are none where that is so."""
    contours: list[Floats] = []
    skipped: Counter[str] = Counter()
    for contour in (contour for entry in drawn for contour in items_of(entry, "ContourSequence")):
        shape = text_of(path, contour, "ContourGeometricType")
        if shape in _SKIPPED:
            skipped[shape] += 1
        elif shape not in _CLOSED:
            raise FileError(path, f"ContourGeometricType {shape!r} is not known")
        else:
            points = _read_contour(path, contour)
            if len(points) >= 3:
                contours.append(points)
            else:
                skipped[f"{shape} of fewer than three points"] += 1
    if contours or not skipped:
        return tuple(contours), "" if contours else _NO_CONTOURS
    return (), f"{_NO_VOLUME} ({', '.join(f'{count} {shape}' for shape, count in skipped.items())})"


def _read_contour(path: Path, contour: Dataset) -> Floats:
    values = positions_of(path, contour, "ContourData")
    if values.size % 3:
        raise FileError(path, f"a contour holds {values.size} coordinates; expected x, y, z of each point")
    if contour.get("NumberOfContourPoints"):
        count = whole_of(path, contour, "NumberOfContourPoints")
        if 3 * count != values.size:
            raise FileError(path, f"a contour of {count} points holds {values.size} coordinates")
    return values.reshape(-1, 3)


def _in_frame(region: Region, expected: str | None, allowed: bool) -> Region:
    """Return a region with a fault where its frame of reference is not the expected one; None expects nothing."""
    if expected is None or region.fault or (expected and region.frame_of_reference == expected):
        return region
    said = region.frame_of_reference or "not stated"
    if allowed:
        logger.warning("structure %s: its frame of reference is %s; allowed", region.name, said)
        return region
    fault = (
        f"its frame of reference is {said}, that of the images {expected or 'not stated'}: positions may not agree; "
        "give the structure set of these images, or allow another frame of reference (allow_other_frame) if you know "
        "that both share coordinates"
    )
    return replace(region, fault=fault)


def _announce_faults(faults: dict[str, str]) -> None:
    empty = [name for name, fault in faults.items() if fault == _NO_CONTOURS]
    if empty:
        logger.warning("%d structures have no contours and are left out: %s", len(empty), ", ".join(empty))
    for name, fault in faults.items():
        if fault != _NO_CONTOURS:
            logger.warning("structure %s is left out: %s", name, fault)


def _announce_roles(regions: list[Region]) -> None:
    """Say which targets and outlines are such by their names alone."""
    guessed = [r for r in regions if r.kind.upper() not in _TYPES and role_of(r.kind, r.name) in ("target", "external")]
    if guessed:
        said = ", ".join(f"{region.name} is {role_of(region.kind, region.name)}" for region in guessed)
        logger.warning("roles taken from names, the file states none: %s", said)


def _why_empty(region: Region, grid: Grid) -> str:
    points = np.concatenate(region.contours)
    low, high = grid.bounds
    apart = (points.max(axis=0) < low) | (points.min(axis=0) > high)
    return "lies outside the images" if apart.any() else "encloses no volume"


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
