"""DVH tables of other systems, to stand beside a plan's own."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import numpy as np

from radplan.analysis.dvh import DVH
from radplan.errors import FileError

_GRAY = {"Gy": 1.0, "cGy": 0.01}


def read_dvh_table(path: str | Path) -> dict[str, DVH]:
    r"""Return the cumulative DVHs of a table by structure.

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
        When it cannot be read or has another layout.

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
        raise FileError(path, f"cannot be read as a table ({error})") from None
    if len(rows) < 2:
        raise FileError(path, "holds no DVH: expected a line of headings and at least one line of numbers")
    try:
        return _by_row(rows) if "ROI" in rows[0] else _by_column(rows)
    except (ValueError, IndexError, StopIteration):
        raise FileError(
            path,
            "is no DVH table: expected levels down the first column and 'NAME [%]' above the others, or a row per "
            "structure with the columns ROI, Volume (mL), 0cGy, 10cGy, ...",
        ) from None


def _by_row(rows: list[list[str]]) -> dict[str, DVH]:
    head = rows[0]
    found = [(k, re.fullmatch(r"([\d.]+)\s*(c?Gy)", name.strip())) for k, name in enumerate(head)]
    columns = [(k, float(match[1]) * _GRAY[match[2]]) for k, match in found if match]
    levels = np.asarray([level for _, level in columns])
    if levels.size == 0 or (np.diff(levels) <= 0).any():
        raise ValueError
    name, volume = head.index("ROI"), next(k for k, text in enumerate(head) if text.startswith("Volume"))
    curves = {}
    for row in rows[1:]:
        percent = [float(row[k]) if k < len(row) and row[k].strip() else 0.0 for k, _ in columns]
        curves[row[name].strip()] = DVH(
            row[name].strip(), "physical_dose", "Gy", levels, np.asarray(percent), float(row[volume])
        )
    return curves


def _by_column(rows: list[list[str]]) -> dict[str, DVH]:
    kind = re.fullmatch(r"(\w+) \[(.+)\]", rows[0][0])
    names = [re.fullmatch(r"(.+) \[%\]", text) for text in rows[0][1:]]
    if kind is None or not names or not all(names):
        raise ValueError
    numbers = np.asarray([[float(text) for text in row] for row in rows[1:]])
    scale, unit = (_GRAY[kind[2]], "Gy") if kind[2] in _GRAY else (1.0, kind[2])
    return {
        match[1]: DVH(match[1], kind[1], unit, scale * numbers[:, 0], numbers[:, k + 1], float("nan"))
        for k, match in enumerate(names)
        if match
    }
