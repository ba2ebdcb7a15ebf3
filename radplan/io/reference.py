"""What another system calculated, read to be compared with: a dose, the DVHs of one, or both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from radplan.analysis.dvh import DVH
from radplan.errors import FileError
from radplan.io.dicom import DicomCase, DoseImage, Orientation, read_dose, read_summed_dose
from radplan.io.dicom.reading import is_dicom
from radplan.io.dvh_table import read_dvh_table
from radplan.io.nrrd import read_nrrd


@dataclass(frozen=True, eq=False)
class ReferenceDose:
    """What another system calculated: a dose, or the DVHs of one, or both.

    Parameters
    ----------
    curves : mapping of str to DVH
        Cumulative DVHs by structure, course totals.
    dose : DoseImage, optional
        The dose, a course total or that of one fraction.
    label : str
        What to call it.

    >>> ReferenceDose({}).dose is None
    True
    """

    curves: Mapping[str, DVH]
    dose: DoseImage | None = None
    label: str = "reference"


def read_reference(
    paths: str | Path | Iterable[str | Path],
    case: DicomCase | None = None,
    allow_other_frame: bool = False,
    effective: bool = False,
) -> ReferenceDose:
    """Read what another system calculated: an RTDOSE or NRRD dose [Gy], a DVH table, or one of each.

    Several RTDOSE files of single beams of one plan are summed.

    Parameters
    ----------
    paths : path-like or several
        The files.
    case : DicomCase, optional
        Whose frame of reference the dose must share.
    allow_other_frame : bool
        Whether a dose of another frame is taken as it is.
    effective : bool
        Whether dose weighted by biological effectiveness (DoseType EFFECTIVE) is taken, too.

    Raises
    ------
    FileError
        When a file cannot be read, is a dose of one beam alone, does not hold physical dose in Gy or cGy, or there are
        two of a kind.
    """
    given = [paths] if isinstance(paths, str | Path) else list(paths)
    curves: dict[str, DVH] = {}
    images: list[Path] = []
    for path in (Path(entry) for entry in given):
        if not path.is_file():
            raise FileError(path, "no such file; expected an RTDOSE file, an NRRD dose or a DVH table")
        if path.suffix.lower() != ".nrrd" and not is_dicom(path):
            if curves:
                raise FileError(path, "is a second DVH table; expected one")
            curves = _read_curves(path)
            continue
        images.append(path)
    return ReferenceDose(curves, _read_doses(images, case, allow_other_frame, effective))


def _read_doses(
    paths: list[Path], case: DicomCase | None, allow_other_frame: bool, effective: bool
) -> DoseImage | None:
    """Return the dose of one file, or the sum of several of single beams."""
    if not paths:
        return None
    if len(paths) == 1:
        return _read_image(paths[0], case, allow_other_frame, effective)
    for path in paths[1:]:
        if path.suffix.lower() == ".nrrd":
            raise FileError(path, "is a second dose; expected one, or RTDOSE files of single beams to sum")
    frame = case.series.frame_of_reference if case is not None else ""
    summed = read_summed_dose(paths, frame or None, allow_other_frame)
    if summed.dose_type not in _dose_types(effective):
        raise FileError(paths[0], f"holds {summed.dose_type} dose; expected {' or '.join(_dose_types(effective))}")
    return summed


def _dose_types(effective: bool) -> tuple[str, ...]:
    return ("PHYSICAL", "EFFECTIVE") if effective else ("PHYSICAL",)


def _read_curves(path: Path) -> dict[str, DVH]:
    curves = read_dvh_table(path)
    for curve in curves.values():
        if (curve.quantity, curve.unit) != ("physical_dose", "Gy"):
            raise FileError(
                path, f"holds DVHs of {curve.quantity} [{curve.unit}]; expected physical_dose [Gy], which is calculated"
            )
    return curves


def _read_image(path: Path, case: DicomCase | None, allow_other_frame: bool, effective: bool) -> DoseImage:
    if path.suffix.lower() == ".nrrd":
        values, grid = read_nrrd(path)
        return DoseImage(grid, values, "PHYSICAL", "PLAN", "", Orientation(patient_position="HFS"), 0.0)
    frame = case.series.frame_of_reference if case is not None else ""
    image = read_dose(path, frame or None, allow_other_frame)
    kinds = _dose_types(effective)
    if image.dose_type not in kinds or image.summation not in ("PLAN", "FRACTION", ""):
        raise FileError(
            path,
            f"holds {image.dose_type} dose of a {image.summation}; expected {' or '.join(kinds)} of a PLAN or FRACTION",
        )
    return image


def read_curve(curve: DVH, name: str) -> float:
    """Return ``Dmean`` or ``D<percent>`` of a cumulative DVH [its unit], linear between its levels.

    The mean is the area under the curve; NaN where the curve ends with more than 1 % of the volume.

    >>> ramp = DVH("PTV", "physical_dose", "Gy", np.asarray([0.0, 10.0, 20.0]), np.asarray([100.0, 100.0, 0.0]), 1.0)
    >>> read_curve(ramp, "Dmean"), read_curve(ramp, "D50")
    (15.0, 15.0)
    """
    levels, percent = curve.levels, curve.percent
    if name == "Dmean":
        tail = 0.0 if percent[-1] <= 1.0 else np.nan
        return float(levels[0] + np.trapezoid(percent, levels) / max(float(percent[0]), 1e-12) + tail)
    falling = np.maximum.accumulate(percent[::-1])[::-1]
    return float(np.interp(-float(name[1:]), -falling, levels))
