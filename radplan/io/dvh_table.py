"""DVH tables of other systems, to stand beside a plan's own."""

from __future__ import annotations

import csv
import logging
import re
from pathlib import Path

import numpy as np

from radplan.analysis.dvh import DVH
from radplan.errors import FileError

logger = logging.getLogger(__name__)

_ROUNDED = 0.5
"""How far a curve may rise, or leave 0 to 100, by rounding [%]."""

_LEAST_VOLUME = 1e-3
"""Volume below which a structure has no curve [cm3]."""

_STARTS = 2.0
"""How far below 100 a curve may begin at level 0 [%]: some systems count voxels at 0 Gy apart."""

_GRAY = {"Gy": 1.0, "cGy": 0.01}


def read_dvh_table(path: str | Path) -> dict[str, DVH]:
    r"""Return the cumulative DVHs of a table by structure.

    Each curve is looked at: volumes in percent that begin near 100, never rise, and end at 0 or above; levels that rise
    from 0 or more. A differential DVH, volumes in cm3 and parts of 1 are told apart and refused, as is a structure that
    stands twice; a structure of no volume, as of a couch that is a surface, is left out.

    Two layouts of comma-separated values are understood: ``dvh.csv`` as `save_plan` writes it (a column per
    structure), and a row per structure with its name, its volume [cm3] and volumes [%] under levels such as ``10cGy``,
    as OnkoDICOM exports it. Levels in cGy become Gy; those of another unit stay, and the curves say which.

    Parameters
    ----------
    path : path-like
        The table.

    Raises
    ------
    FileError
        When it cannot be read, has another layout, or holds what is no cumulative DVH in percent; names the structure.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder, "table.csv")
    ...     _ = file.write_text("ROI,Volume (mL),0cGy,10cGy\nPTV,20.0,100,40\n")
    ...     read_dvh_table(file)["PTV"].cc.tolist()
    [20.0, 8.0]
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file) if any(row)]
    except FileNotFoundError:
        raise FileError(path, "no such DVH table") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(
            path, f"cannot be read as a DVH table ({error}); a dose is an RTDOSE file or an NRRD dose"
        ) from None
    if len(rows) < 2:
        raise FileError(path, "holds no DVH: expected a line of headings and at least one line of numbers")
    try:
        curves = _by_row(rows) if "ROI" in rows[0] else _by_column(rows)
    except (ValueError, IndexError, StopIteration):
        raise FileError(
            path,
            "is no DVH table: expected levels down the first column and 'NAME [%]' above the others, or a row per "
            "structure with the columns ROI, Volume (mL), 0cGy, 10cGy, ...",
        ) from None
    named: dict[str, DVH] = {}
    for curve in curves:
        if 0.0 <= curve.volume < _LEAST_VOLUME:
            logger.info("%s: structure %r has no volume and is left out", path, curve.structure)
            continue
        fault = f"structure {curve.structure!r} stands twice" if curve.structure in named else _fault(curve)
        if fault:
            raise FileError(
                path, f"{fault}; expected a cumulative DVH of each structure, volumes in % that fall from 100"
            )
        named[curve.structure] = curve
    return named


def _fault(curve: DVH) -> str:
    """Return what is odd about a curve, or nothing."""
    levels, percent = curve.levels, curve.percent
    name = repr(curve.structure)
    if not (np.isfinite(levels).all() and np.isfinite(percent).all()):
        return f"{name} holds a level or volume that is NaN or infinite"
    if levels[0] < 0 or not (np.diff(levels) > 0).all():
        return f"the levels of {name} do not rise from 0 or more"
    if curve.volume < 0 or np.isinf(curve.volume):
        return f"{name} has a volume of {curve.volume:g} cm3"
    if percent.min() < -_ROUNDED:
        return f"{name} falls to {percent.min():g} %"
    if percent.max() > 100.0 + _ROUNDED:
        return f"{name} rises to {percent.max():g} %, more than all: are volumes in cm3?"
    if np.max(percent - np.minimum.accumulate(percent)) > _ROUNDED:
        return f"{name} rises with the level: is it a differential DVH?"
    if levels[0] == 0.0 and percent[0] < 100.0 - _STARTS:
        hint = "are volumes parts of 1, or in cm3?" if percent[0] > 0 else "is it a differential DVH?"
        return f"{name} begins with {percent[0]:g} % at level 0: {hint}"
    return ""


def _by_row(rows: list[list[str]]) -> list[DVH]:
    head = rows[0]
    found = [(k, re.fullmatch(r"([\d.]+)\s*(c?Gy)", name.strip())) for k, name in enumerate(head)]
    columns = [(k, float(match[1]) * _GRAY[match[2]]) for k, match in found if match]
    levels = np.asarray([level for _, level in columns])
    if levels.size == 0 or (np.diff(levels) <= 0).any():
        raise ValueError
    name, volume = head.index("ROI"), next(k for k, text in enumerate(head) if text.startswith("Volume"))
    curves = []
    for row in rows[1:]:
        percent = [float(row[k]) if k < len(row) and row[k].strip() else 0.0 for k, _ in columns]
        curves.append(DVH(row[name].strip(), "physical_dose", "Gy", levels, np.asarray(percent), float(row[volume])))
    return curves


def _by_column(rows: list[list[str]]) -> list[DVH]:
    kind = re.fullmatch(r"(\w+) \[(.+)\]", rows[0][0])
    names = [re.fullmatch(r"(.+) \[%\]", text) for text in rows[0][1:]]
    if kind is None or not names or not all(names):
        raise ValueError
    numbers = np.asarray([[float(text) for text in row] for row in rows[1:]])
    scale, unit = (_GRAY[kind[2]], "Gy") if kind[2] in _GRAY else (1.0, kind[2])
    return [
        DVH(match[1], kind[1], unit, scale * numbers[:, 0], numbers[:, k + 1], float("nan"))
        for k, match in enumerate(names)
        if match
    ]
