"""OpenKBP patients: the challenge's folders of csv files and the compact npz form, with the dose that was planned.

Babier et al., Med. Phys. 48 (2021) 5549: head-and-neck patients on 128 x 128 x 128 voxels, 70, 63 and 56 Gy in 35
fractions, nine 6 MV beams at 0, 40, ..., 320 degrees. No file is ever unpickled.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.arrays.npz import read_npz
from radplan.errors import FileError
from radplan.geometry.grid import Grid
from radplan.patient.ct import CT
from radplan.patient.patient import Patient, find_external
from radplan.patient.structures import Role, Structure, Structures

ORGANS = ("Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible")
"""The organs of the challenge, by their names there; a patient may lack some."""

LEVELS: dict[str, float] = {"PTV56": 56.0, "PTV63": 63.0, "PTV70": 70.0}
"""The targets of the challenge and their prescribed course doses [Gy]; a patient may lack some, not all."""

DOSE_MASK = "DoseMask"
"""Name of the structure of voxels in which the challenge counts dose; outside it the dose is 0 by definition."""

BEAM_ANGLES = tuple(range(0, 360, 40))
"""Gantry angles of the nine coplanar beams of every plan of the challenge [degree]."""

FRACTIONS = 35

_NAMES = (*ORGANS, *LEVELS)
_SIDE = 128
_HU_OFFSET = 1024.0
_AIR = -1024.0
_PRIORITIES = {"PTV70": 1, "PTV63": 2, "PTV56": 3}

Volume = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class OpenKBPCase:
    """A patient of OpenKBP and the dose of the plan that was made for them.

    Parameters
    ----------
    patient : Patient
        CT, the structures present and `DOSE_MASK`, on a grid whose origin is the place in the 128-voxel cube.
    dose : array of shape (nz, ny, nx)
        Planned course dose [Gy]; 0 outside the dose mask. On the compact half-resolution grid it is the mean over
        the part of each voxel that lies in the mask.
    ct_present : bool
        False where the CT was lost and water stands in its place.
    """

    patient: Patient
    dose: Volume
    ct_present: bool = True


def read_openkbp(path: str | Path) -> OpenKBPCase:
    """Return the patient and the planned dose of an OpenKBP folder of csv files or of a compact npz file.

    Axes are turned to the patient's, ``[z, y, x]`` in LPS: the challenge counts anterior to posterior, right to left,
    superior to inferior. CT numbers are the challenge's less 1024. The outline is found by threshold and joined with
    all structures; structures that are empty are left out, and so is what the challenge does not name.

    Parameters
    ----------
    path : path-like
        ``pt_1/`` with ``ct.csv``, ``dose.csv``, ``possible_dose_mask.csv``, ``voxel_dimensions.csv`` and one csv per
        structure; or ``pt_1.npz`` at half resolution (partial voxels in eighths) or at full resolution (bits).

    Raises
    ------
    FileError
        When it is neither, lacks an entry, or holds what is no such patient; says which.
    """
    path = Path(path)
    return _read_folder(path) if path.is_dir() else _read_npz(path)


def is_openkbp(path: str | Path) -> bool:
    """Return whether a folder or an npz file has the layout that `read_openkbp` reads."""
    path = Path(path)
    if path.is_dir():
        return (path / "voxel_dimensions.csv").is_file() and (path / "possible_dose_mask.csv").is_file()
    if path.suffix.lower() != ".npz" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return {"dose_mask.npy", "spacing.npy", "corner.npy"} <= set(archive.namelist())


def write_openkbp(case: OpenKBPCase, folder: str | Path) -> None:
    """Write a patient at full resolution as the challenge's csv files, to an empty or new folder.

    Raises
    ------
    FileError
        When the folder is not empty, or the patient is not on the 128-voxel cube of the challenge.
    """
    structures = case.patient.structures
    masks = {name: structure.mask() for name, structure in structures.items() if name in _NAMES}
    write_openkbp_layout(folder, case.patient.ct, case.dose, structures[DOSE_MASK].mask(), masks)


def write_openkbp_layout(folder: str | Path, ct: CT, dose: Volume, inside: Mask, masks: Mapping[str, Mask]) -> None:
    """Write CT, dose and structures of any names as csv files in the challenge's layout, to an empty or new folder.

    Parameters
    ----------
    folder : path-like
        Where to.
    ct : CT
        Its grid's origin is the place in the cube of 128 voxels along each axis.
    dose : array of shape (nz, ny, nx)
        Course total [Gy].
    inside : array of bool (nz, ny, nx)
        Voxels in which CT numbers and dose are written: ``possible_dose_mask.csv``.
    masks : mapping of str to array of bool (nz, ny, nx)
        Structures, each a csv of its name.

    Raises
    ------
    FileError
        When the folder is not empty, or the grid does not fit into the cube.
    """
    folder, grid = Path(folder), ct.grid
    if folder.exists() and any(folder.iterdir()):
        raise FileError(folder, "is not empty: give a new folder")
    corner = [round(o / s) for o, s in zip(grid.origin[::-1], grid.spacing[::-1], strict=True)]
    if min(corner) < 0 or any(c + n > _SIDE for c, n in zip(corner, grid.shape, strict=True)):
        raise FileError(folder, f"the grid {grid} does not fit into {_SIDE}^3 voxels at {corner} [z, y, x]")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "voxel_dimensions.csv").open("w") as stream:
        stream.writelines(f"{size:g}\n" for size in grid.spacing)
    for name, mask in {**masks, "possible_dose_mask": inside}.items():
        _write_csv(folder / f"{name}.csv", _flat_index(np.flatnonzero(mask), grid, corner), None)
    voxels = np.flatnonzero(inside)
    where = _flat_index(voxels, grid, corner)
    _write_csv(folder / "ct.csv", where, ct.hu.reshape(-1)[voxels] + _HU_OFFSET)
    _write_csv(folder / "dose.csv", where, dose.reshape(-1)[voxels])


def _flat_index(voxels: npt.NDArray[np.int64], grid: Grid, corner: list[int]) -> npt.NDArray[np.int64]:
    z, y, x = np.unravel_index(voxels, grid.shape)
    return ((y + corner[1]) * _SIDE + (x + corner[2])) * _SIDE + (_SIDE - 1 - (z + corner[0]))


def _write_csv(path: Path, index: npt.NDArray[np.int64], values: npt.NDArray[Any] | None) -> None:
    order = np.argsort(index)
    with path.open("w") as stream:
        stream.write(",data\n")
        if values is None:
            stream.writelines(f"{i},\n" for i in index[order])
        else:
            stream.writelines(f"{i},{v:.6g}\n" for i, v in zip(index[order], values[order], strict=True))


def _read_folder(folder: Path) -> OpenKBPCase:
    spacing = _sizes(folder / "voxel_dimensions.csv")
    mask = _cube(folder / "possible_dose_mask.csv") > 0
    parts = {name: _cube(folder / f"{name}.csv") for name in _NAMES if (folder / f"{name}.csv").is_file()}
    dose = _cube(folder / "dose.csv") if (folder / "dose.csv").is_file() else np.zeros(mask.shape, np.float32)
    ct_present = (folder / "ct.csv").is_file()
    numbers = _cube(folder / "ct.csv") if ct_present else np.where(mask, _HU_OFFSET, 0.0)
    hu = np.maximum(numbers - _HU_OFFSET, _AIR).astype(np.float32)
    grid = Grid((_SIDE,) * 3, spacing, (0.0, 0.0, 0.0))
    fractions = {name: part.astype(np.float32) for name, part in parts.items()}
    return _case(folder, folder.name, grid, hu, mask.astype(np.float32), fractions, dose * mask, ct_present)


def _sizes(path: Path) -> tuple[float, float, float]:
    try:
        words = path.read_text(encoding="utf-8-sig").replace(",", " ").split()
        x, y, z = (float(word) for word in words)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FileError(path, f"cannot be read as three voxel sizes x, y, z [mm] ({error})") from None
    return x, y, z


def _cube(path: Path) -> Volume:
    """Return a csv of flat indices and values, or of indices alone (then 1), as (128, 128, 128) in [z, y, x]."""
    try:
        with path.open(encoding="utf-8-sig") as stream:
            next(stream, None)
            rows = [line.rstrip("\r\n").split(",") for line in stream if line.strip()]
        index = np.asarray([int(float(row[0])) for row in rows], dtype=np.int64)
        values = np.asarray([float(row[1]) if len(row) > 1 and row[1].strip() else 1.0 for row in rows], np.float32)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise FileError(path, f"cannot be read as rows of index and value ({error})") from None
    if index.size and not (index.min() >= 0 and index.max() < _SIDE**3):
        raise FileError(path, f"has indices {index.min()} to {index.max()}; {_SIDE}^3 voxels have 0 to {_SIDE**3 - 1}")
    if not np.isfinite(values).all():
        raise FileError(path, "holds values that are no finite numbers")
    cube = np.zeros(_SIDE**3, dtype=np.float32)
    cube[index] = values
    return np.ascontiguousarray(cube.reshape((_SIDE,) * 3).transpose(2, 0, 1)[::-1])


def _read_npz(path: Path) -> OpenKBPCase:
    held = read_npz(path)
    missing = [key for key in ("spacing", "corner", "dose_mask", "hu", "dose") if key not in held]
    missing += [] if "roi_bits" in held or {"roi", "roi_index"} <= set(held) else ["roi_bits or roi and roi_index"]
    if missing:
        raise FileError(path, f"is no compact OpenKBP patient: it lacks {', '.join(missing)}")
    shape = held["dose"].shape
    if len(shape) != 3 or held["hu"].shape != shape or held["spacing"].shape != (3,) or held["corner"].shape != (3,):
        raise FileError(path, f"dose and hu must be one volume (z, y, x), got {shape} and {held['hu'].shape}")
    try:
        mask, fractions = _bits(held, shape) if "roi_bits" in held else _eighths(held, shape)
    except (ValueError, IndexError) as error:
        raise FileError(path, f"its structures do not fit the volume {shape} ({error})") from None
    spacing = np.asarray(held["spacing"], dtype=np.float64)
    # Why: lengths are stored as float32, but were typed with few digits; 2.5 mm is meant where 2.4999998 stands.
    x, y, z = (float(np.round(size, 4)) for size in spacing)
    corner = np.asarray(held["corner"], dtype=np.float64)
    # Why: voxel k of the halved grid holds voxels 2k and 2k + 1, so that its centre lies a quarter of it further on.
    corner += 0.0 if "roi_bits" in held else 0.25
    grid = Grid(shape, (x, y, z), (corner[2] * x, corner[1] * y, corner[0] * z))
    hu = np.maximum(held["hu"].astype(np.float32), _AIR)
    dose = held["dose"].astype(np.float32) / np.float32(100.0) * (mask > 0)
    ct_present = bool(held.get("ct_present", np.asarray(True)))
    return _case(path, path.stem, grid, hu, mask, fractions, dose, ct_present)


def _bits(held: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Volume, dict[str, Volume]]:
    size = int(np.prod(shape))
    mask = np.unpackbits(held["dose_mask"])[:size].reshape(shape).astype(np.float32)
    bits = held["roi_bits"].reshape(shape)
    return mask, {name: ((bits >> k) & 1).astype(np.float32) for k, name in enumerate(_NAMES)}


def _eighths(held: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[Volume, dict[str, Volume]]:
    parts = held["roi"].reshape((-1, *shape)).astype(np.float32) / np.float32(8.0)
    names = [_NAMES[int(k)] for k in held["roi_index"]]
    return held["dose_mask"].reshape(shape).astype(np.float32) / np.float32(8.0), dict(zip(names, parts, strict=True))


def _case(
    path: Path,
    name: str,
    grid: Grid,
    hu: Volume,
    mask: Volume,
    fractions: Mapping[str, Volume],
    dose: npt.NDArray[Any],
    ct_present: bool,
) -> OpenKBPCase:
    ct = CT(grid, hu)
    drawn = [_structure(key, grid, part) for key, part in fractions.items() if part.any()]
    prescription = max((LEVELS[s.name] for s in drawn if s.role == "target"), default=None)
    if prescription is None:
        raise FileError(path, f"has none of the targets {', '.join(LEVELS)}: without them nothing says what to plan")
    body = find_external(ct).mask()
    for structure in drawn:
        body.reshape(-1)[structure.voxels] = True
    drawn.append(Structure.from_mask("External", grid, body, role="external", priority=5))
    drawn.append(_structure(DOSE_MASK, grid, mask))
    patient = Patient(name, ct, Structures(drawn), fractions=FRACTIONS, prescription=prescription)
    return OpenKBPCase(patient, np.ascontiguousarray(dose, dtype=np.float32), ct_present)


def _structure(name: str, grid: Grid, part: Volume) -> Structure:
    flat = part.reshape(-1)
    voxels = np.flatnonzero(flat)
    fraction = None if (flat[voxels] >= 1).all() else np.minimum(flat[voxels].astype(np.float64), 1.0)
    if name == DOSE_MASK:
        return Structure(name, grid, voxels, fraction, "ignored", 6)
    role: Role = "target" if name in LEVELS else "oar"
    return Structure(name, grid, voxels, fraction, role, _PRIORITIES.get(name, 4))
