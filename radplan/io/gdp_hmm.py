"""Patients of the GDP-HMM data set: one pickled dict in an npz file, read by an unpickler that knows arrays alone.

Files of one's own have the same keys, but each is an array of its own and none is pickled.

Keys: ``img`` (z, y, x) [HU], ``dose`` integers times ``dose_scale`` [Gy], masks by name, ``origin`` and ``spacing``
(x, y, z) [mm], ``angle_list`` [degree], ``isocenter`` (z, y, x) [voxel], ``angle_plate``, ``beam_plate``.
Source: Gao et al. (2025).
"""

from __future__ import annotations

import io
import pickle
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
from radplan.patient import CT, Patient, Structure, Structures
from radplan.patient.patient import find_external

_LARGEST = 2 * 1024**3
"""Largest unpacked file that is read [byte]."""
_ALLOWED = {
    ("numpy", "ndarray"), ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
}  # fmt: skip
"""What a pickle may name; everything else is refused."""
_OTHERS = (
    "img", "dose", "dose_scale", "all_mask", "angle_plate", "beam_plate", "isVMAT", "angle_list", "isocenter", "origin",
    "spacing", "direction", "size",
)  # fmt: skip
_TARGETS = ("PTV",)
_NEEDED = ("img", "dose", "spacing", "origin")
_STEPS = 60000
"""Steps in which a dose is written; the highest is this many [1]."""


@dataclass(frozen=True, eq=False)
class GDPHMMCase:
    """A patient of GDP-HMM, and the dose of the plan that was made.

    Parameters
    ----------
    patient : Patient
        CT and structures.
    dose : array of shape (nz, ny, nx)
        Course total [Gy].
    gantry : tuple of float
        Gantry angles [degree]; none of an arc.
    arc : bool
        Whether it was an arc.
    plates : mapping of str to array of shape (nz, ny, nx)
        ``angle_plate`` and ``beam_plate``, where the file has them.
    """

    patient: Patient
    dose: npt.NDArray[np.float32]
    gantry: tuple[float, ...] = ()
    arc: bool = False
    plates: Mapping[str, npt.NDArray[Any]] | None = None


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes NumPy arrays and plain containers, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, which no file of data needs")
        return super().find_class(module, name)


def is_gdp_hmm(path: str | Path) -> bool:
    """Say whether a file is an npz with one pickled entry, ``arr_0``, or with the keys as arrays of their own."""
    file = Path(path)
    if file.suffix.lower() != ".npz" or not file.is_file():
        return False
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            return names == ["arr_0.npy"] or {f"{key}.npy" for key in _NEEDED} <= set(names)
    except (OSError, zipfile.BadZipFile):
        return False


def read_gdp_hmm(path: str | Path) -> GDPHMMCase:
    """Return the patient and the planned dose of a GDP-HMM file.

    Raises
    ------
    FileError
        When the file is damaged, holds something else, or its pickle asks for more than arrays.
    """
    file = Path(path)
    held = _unpickled(file)
    missing = [key for key in _NEEDED if key not in held]
    if missing:
        raise FileError(file, f"is no GDP-HMM patient: it lacks {', '.join(missing)}")
    hu, stored = np.asarray(held["img"], dtype=np.float32), np.asarray(held["dose"])
    if hu.ndim != 3 or stored.shape != hu.shape:
        raise FileError(file, f"img and dose must be one volume (z, y, x), got {hu.shape} and {stored.shape}")
    spacing = [float(size) for size in np.asarray(held["spacing"], dtype=float).reshape(-1)]
    origin = [float(place) for place in np.asarray(held["origin"], dtype=float).reshape(-1)]
    if len(spacing) != 3 or len(origin) != 3 or min(spacing) <= 0.0:
        raise FileError(file, f"spacing and origin must be three numbers each, got {spacing} and {origin}")
    nz, ny, nx = (int(size) for size in hu.shape)
    grid = Grid((nz, ny, nx), (spacing[0], spacing[1], spacing[2]), (origin[0], origin[1], origin[2]))
    masks = {
        name: np.asarray(mask) > 0
        for name, mask in held.items()
        if name not in _OTHERS and isinstance(mask, np.ndarray) and mask.shape == hu.shape
    }
    ct = CT(grid, np.maximum(hu, np.float32(-1024.0)))
    patient = Patient(file.stem, ct, _structures(masks, ct))
    dose = (stored * float(held.get("dose_scale", 1.0))).astype(np.float32)
    arc = bool(held.get("isVMAT", False))
    angles = () if arc else tuple(float(angle) for angle in np.asarray(held.get("angle_list", ())).reshape(-1))
    plates = {key: np.asarray(held[key]) for key in ("angle_plate", "beam_plate") if held.get(key) is not None}
    return GDPHMMCase(patient, dose, angles, arc, plates)


def write_gdp_hmm(
    path: str | Path,
    ct: CT,
    dose: npt.NDArray[Any],
    masks: Mapping[str, npt.NDArray[np.bool_]],
    gantry: npt.ArrayLike,
    isocenter: npt.ArrayLike,
    arc: bool = False,
    plates: Mapping[str, npt.NDArray[Any]] | None = None,
) -> None:
    """Write a patient and a dose with the keys of GDP-HMM, each an array of its own: the file holds no pickle.

    Parameters
    ----------
    path : path-like
        The npz file.
    ct : CT
        CT.
    dose : array of shape (nz, ny, nx)
        Course total [Gy]; written as integers, to 1/60000 of its maximum.
    masks : mapping of str to array of bool (nz, ny, nx)
        Structures; ``External`` is written as ``Body``.
    gantry : sequence of float
        Angles [degree].
    isocenter : array of shape (3,)
        World position (x, y, z) [mm].
    arc : bool
        Whether it is an arc.
    plates : mapping of str to array of shape (nz, ny, nx), optional
        ``angle_plate`` and ``beam_plate``.
    """
    grid, file = ct.grid, Path(path)
    scale = max(float(np.max(dose)), 1e-6) / _STEPS
    corner = np.asarray(grid.origin)
    arrays: dict[str, Any] = {
        "img": ct.hu.astype(np.int16),
        "dose": np.round(np.maximum(dose, 0.0) / scale).astype(np.uint16),
        "dose_scale": np.asarray(scale),
        "isVMAT": np.asarray(arc),
        "angle_list": np.asarray(gantry, dtype=np.float64),
        "isocenter": ((np.asarray(isocenter, dtype=np.float64) - corner) / np.asarray(grid.spacing))[::-1],
        "origin": corner,
        "spacing": np.asarray(grid.spacing),
        "direction": np.eye(3).reshape(-1),
        "size": np.asarray(grid.shape[::-1]),
        **(plates or {}),
    }
    arrays |= {"Body" if name == "External" else name: mask.astype(np.uint8) for name, mask in masks.items()}
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(file, **arrays)


def _structures(masks: Mapping[str, npt.NDArray[np.bool_]], ct: CT) -> Structures:
    bodies = [name for name in masks if name.casefold() in ("body", "external")]
    parts = [
        Structure.from_mask(name, ct.grid, mask, role="target" if name.upper().startswith(_TARGETS) else "oar")
        for name, mask in masks.items()
        if name not in bodies and mask.any()
    ]
    body = masks[bodies[0]] if bodies else find_external(ct).mask()
    return Structures([*parts, Structure.from_mask("External", ct.grid, body, role="external")])


def _unpickled(file: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(file) as archive:
            if "arr_0.npy" not in archive.namelist():
                return dict(read_npz(file))
            if archive.getinfo("arr_0.npy").file_size > _LARGEST:
                raise FileError(file, "unpacks to more than 2 GB")
            data = io.BytesIO(archive.read("arr_0.npy"))
        version = np.lib.format.read_magic(data)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = read(data)
        if dtype != np.dtype(object):
            raise FileError(file, "holds an array, not a GDP-HMM patient")
        held = _ArraysOnly(data).load()
    except (OSError, KeyError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise FileError(file, f"is no GDP-HMM patient ({error})") from None
    except (AttributeError, IndexError, TypeError, MemoryError) as error:
        raise FileError(file, f"is damaged ({type(error).__name__})") from None
    if isinstance(held, np.ndarray) and held.shape == ():
        held = held.item()
    if not isinstance(held, dict):
        raise FileError(file, f"holds a {type(held).__name__}, not a GDP-HMM patient")
    return held
