"""PTW's text format of tank scans (.mcc): blocks of entries, each with its table of positions and doses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from radplan.commissioning.tank import Curve, TankScan
from radplan.errors import FileError, InputError

_CURVES: Mapping[str, Curve] = {
    "PDD": "depth dose",
    "INPLANE_PROFILE": "inplane",
    "CROSSPLANE_PROFILE": "crossplane",
}


def read_mcc(path: Path) -> tuple[list[TankScan], list[str]]:
    """Return the open photon fields' curves of a file, and what was left out and why.

    Raises
    ------
    FileError
        When it is no .mcc file, or a scan's numbers cannot be read; names the scan.
    """
    try:
        text = path.read_text(encoding="latin-1")
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror}") from error
    if "BEGIN_SCAN_DATA" not in text:
        raise FileError(path, "is no PTW .mcc file: it has no BEGIN_SCAN_DATA")
    scans: list[TankScan] = []
    notes: list[str] = []
    blocks = [block for block in text.split("BEGIN_SCAN ")[1:] if "BEGIN_DATA" in block]
    for number, block in enumerate(blocks, start=1):
        head, _, rest = block.partition("BEGIN_DATA")
        entries = dict(line.strip().split("=", 1) for line in head.splitlines() if "=" in line)
        why = _unused(entries)
        if why:
            notes.append(f"{path.name}, scan {number}: {why}; left out")
            continue
        try:
            scans.append(_scan(entries, rest.partition("END_DATA")[0], f"{path.name}, scan {number}"))
        except KeyError as error:
            raise FileError(path, f"lacks {error.args[0]}", f"scan {number}") from error
        except (ValueError, IndexError) as error:
            raise FileError(path, f"cannot be read as a curve: {error}", f"scan {number}") from error
    return scans, notes


def _unused(entries: Mapping[str, str]) -> str:
    """Say why a scan does not serve, or nothing."""
    if entries.get("MODALITY", "X") != "X":
        return f"modality {entries['MODALITY']} is no photon beam"
    if entries.get("SCAN_CURVETYPE") not in _CURVES:
        return f"curve {entries.get('SCAN_CURVETYPE', 'of no type')} is no depth dose, inplane or crossplane profile"
    if _number(entries, "WEDGE_ANGLE") or _number(entries, "GANTRY") or _number(entries, "COLL_ANGLE"):
        return "with a wedge, or at another gantry or collimator angle than 0"
    if any(_number(entries, f"COLL_OFFSET_{axis}") for axis in ("INPLANE", "CROSSPLANE")):
        return "a field beside the axis"
    if any(_number(entries, f"SCAN_OFFAXIS_{axis}") for axis in ("INPLANE", "CROSSPLANE")):
        return "not through the axis"
    if entries.get("MEAS_MEDIUM", "WATER") != "WATER":
        return f"measured in {entries['MEAS_MEDIUM']}"
    return ""


def _scan(entries: Mapping[str, str], table: str, origin: str) -> TankScan:
    rows = [line.split() for line in table.strip().splitlines()]
    values = np.asarray([[float(row[0]), float(row[1])] for row in rows])
    curve = _CURVES[entries["SCAN_CURVETYPE"]]
    leaf_axis: Literal["x", "y"] | None = None
    if entries.get("CROSSPLANE_AXIS") == "MLC":
        leaf_axis = "x"
    elif entries.get("INPLANE_AXIS") == "MLC":
        leaf_axis = "y"
    try:
        return TankScan(
            curve,
            float(entries["ENERGY"]),
            float(entries["SSD"]),
            (float(entries["FIELD_CROSSPLANE"]), float(entries["FIELD_INPLANE"])),
            None if curve == "depth dose" else float(entries["SCAN_DEPTH"]),
            values[:, 0],
            values[:, 1],
            leaf_axis,
            entries.get("DETECTOR_NAME", ""),
            origin,
        )
    except InputError as error:
        raise ValueError(str(error).removeprefix(f"{origin}: ")) from error


def _number(entries: Mapping[str, str], name: str) -> float:
    return float(entries.get(name) or 0.0)
