"""Tank data in tables of comma-separated values: curves point by point, or output factors by field."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import numpy as np

from radplan.commissioning.tank import OutputFactor, TankScan
from radplan.errors import FileError, InputError

COLUMNS = ("curve", "energy_MV", "ssd_mm", "field_x_mm", "field_y_mm", "depth_mm", "position_mm", "dose")
"""Columns of a table of points; ``leaf_axis`` and ``detector`` may follow. An ``output factor`` is one row; the depths
of a depth dose stand in ``position_mm``, or in ``depth_mm`` with no position or one of 0."""


def read_table(path: Path, ssd: float, depth: float) -> tuple[list[TankScan], list[OutputFactor]]:
    """Return the curves and output factors of a table.

    Two layouts: points under the names of `COLUMNS`, and a matrix with fields such as ``05x05`` in cm over energies
    such as ``6 MV``, whose factors are at the surface distance and depth that are given.

    Raises
    ------
    FileError
        When the table is of neither layout, or a row cannot be read; names the row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(line for line in file if not line.startswith("#")) if any(row)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FileError(path, f"cannot be read as a table: {error}") from error
    header = [cell.strip() for cell in rows[0]] if rows else []
    if rows and set(COLUMNS) <= set(header):
        return _points(path, header, rows[1:])
    if len(rows) > 1 and all(_field(cell) for cell in header[1:]) and len(header) > 1:
        return [], _factors(path, header, rows[1:], ssd, depth)
    raise FileError(
        path,
        f"is no table of tank data: expected columns {', '.join(COLUMNS)}, or output factors with fields such as "
        "05x05 in the first row and energies such as 6 MV in the first column",
    )


def _points(path: Path, header: list[str], rows: list[list[str]]) -> tuple[list[TankScan], list[OutputFactor]]:
    curves: dict[Any, list[tuple[float, float]]] = {}
    factors: list[OutputFactor] = []
    for number, row in enumerate(rows, start=2):
        entry = dict(zip(header, (cell.strip() for cell in row), strict=False))
        try:
            field = float(entry["field_x_mm"]), float(entry["field_y_mm"])
            energy, ssd = float(entry["energy_MV"]), float(entry["ssd_mm"])
            depth = float(entry["depth_mm"]) if entry["depth_mm"] else None
            if entry["curve"] == "output factor":
                factors.append(OutputFactor(field, ssd, depth or 0.0, float(entry["dose"]), energy))
                continue
            if entry["curve"] == "depth dose" and depth is not None:
                position, depth = _depth(depth, entry["position_mm"]), None
            else:
                position = float(entry["position_mm"])
            key: Any = (
                entry["curve"],
                energy,
                ssd,
                field,
                depth,
                entry.get("leaf_axis") or None,
                entry.get("detector", ""),
            )
            curves.setdefault(key, []).append((position, float(entry["dose"])))
        except (KeyError, ValueError) as error:
            raise FileError(path, f"cannot be read: {error}", f"row {number}") from error
    scans = []
    for count, (key, points) in enumerate(curves.items(), start=1):
        values = np.asarray(points)
        try:
            curve, energy, ssd, field, depth, leaf_axis, detector = key
            origin = f"{path.name}, curve {count}"
            scans.append(
                TankScan(curve, energy, ssd, field, depth, values[:, 0], values[:, 1], leaf_axis, detector, origin)
            )
        except InputError as error:
            raise FileError(path, str(error).removeprefix(f"{path.name}, ")) from error
    return scans, factors


def _depth(depth: float, position: str) -> float:
    """Return a depth of a depth dose that stands in the column of depths, where no position contradicts it [mm]."""
    if position and float(position) not in (0.0, depth):
        msg = f"a depth dose states a depth of {depth:g} mm and a position of {position} mm; give one of them"
        raise ValueError(msg)
    return depth


def _factors(path: Path, header: list[str], rows: list[list[str]], ssd: float, depth: float) -> list[OutputFactor]:
    factors = []
    for row in rows:
        energy = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:MV|X)?\s*", row[0], re.IGNORECASE)
        if energy is None:
            raise FileError(path, f"expected an energy such as '6 MV', got {row[0]!r}", "first column")
        for name, value in zip(header[1:], row[1:], strict=False):
            field = _field(name)
            assert field is not None
            try:
                factors.append(OutputFactor(field, ssd, depth, float(value), float(energy.group(1))))
            except (InputError, ValueError) as error:
                raise FileError(path, f"cannot be read: {error}", f"{row[0]}, {name}") from error
    return factors


def _field(name: str) -> tuple[float, float] | None:
    """Return width and length [mm] of a field that is called as ``05x05`` in cm."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*[xX]\s*(\d+(?:\.\d+)?)\s*", name)
    return None if match is None else (10.0 * float(match.group(1)), 10.0 * float(match.group(2)))
