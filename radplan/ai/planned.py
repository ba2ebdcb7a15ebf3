"""Patients of a cohort with all their plans: channels, doses and DVH codes, kept in a cache that is mapped in."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.ai.channels import network_channels
from radplan.ai.dvh import LEVELS, dvh_curve, dvh_levels
from radplan.ai.features import Anatomy, Layout
from radplan.ai.spec import DvhSpec
from radplan.errors import FileError, InputError
from radplan.io.cohort_patient import read_cohort_patient

Floats = npt.NDArray[np.float64]

_VERSION = 1
_ARRAYS = ("voxels", "channels", "parts", "doses", "codes")


@dataclass(frozen=True, eq=False)
class PlannedPatient:
    """An anatomy and its plans.

    Parameters
    ----------
    name : str
        The patient's.
    shape : (int, int, int)
        Of the dose grid, (nz, ny, nx).
    spacing : (float, float, float)
        Of the dose grid, x, y, z [mm].
    level : float
        Mean course dose of the target in all plans [Gy], the unit of dose.
    voxels : array of shape (n,)
        Flat indices of the voxels where dose counts.
    channels : array of shape (channels, n)
        Features there, float16.
    parts : array of shape (structures, n)
        Part of each voxel in each structure that steers.
    doses : array of shape (plans, n)
        In units of the target's mean dose.
    codes : array of shape (plans, structures * levels)
        DVHs of the plans.
    """

    name: str
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    level: float
    voxels: npt.NDArray[np.int32]
    channels: npt.NDArray[np.float16]
    parts: npt.NDArray[np.float16]
    doses: npt.NDArray[np.float16]
    codes: npt.NDArray[np.float32]


def dvh_code(dose: npt.ArrayLike, parts: npt.ArrayLike) -> Floats:
    """Return the DVHs (structures * levels,) of a dose (n,) in units of the target's mean, one structure after another.

    >>> dvh_code([1.0, 0.0], [[1.0, 0.0]])[[0, 28, 29]].tolist()
    [1.0, 1.0, 0.0]
    """
    shares = np.asarray(parts, dtype=np.float64)
    totals = shares.sum(axis=1, keepdims=True)
    levels = dvh_levels()
    return np.concatenate([dvh_curve(dose, row, levels) for row in shares / np.maximum(totals, 1e-12)])


def cohort_layout(spec: DvhSpec, cohort: Path, number: int) -> Layout:
    """Return the channels of a cohort: its target to half a voxel, organs, and the beams of one of its patients."""
    file = patient_folder(cohort, number) / "patient.npz"
    try:
        with np.load(file, allow_pickle=False) as data:
            angles = tuple(float(angle) for angle in data["gantry"])
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FileError(file, f"is no patient of a cohort ({error})") from None
    pairs = {name: f"{name[:-1]}{'R' if name.endswith('L') else 'L'}" for name in spec.organs if name[-2:] in _SIDES}
    mirrored = {a: b for a, b in pairs.items() if b in spec.organs}
    return Layout({spec.target: 1.0}, spec.organs, angles, mirrored, half_voxels=True)


_SIDES = ("_L", "_R")


def patient_folder(cohort: Path, number: int) -> Path:
    """Return where a cohort keeps a patient."""
    return cohort / "case" / f"{number:06d}"


def planned_patients(
    cohort: Path, numbers: tuple[int, int], spec: DvhSpec, layout: Layout, cache: Path | None = None
) -> list[PlannedPatient]:
    """Return the patients of a cohort from a first to a last number; those without a good plan are left out.

    Raises
    ------
    FileError
        When a patient is missing or cannot be read, or the cache cannot be written.
    InputError
        When none has a good plan.
    """
    known = []
    for number in range(numbers[0], numbers[1] + 1):
        folder = patient_folder(cohort, number)
        patient = _read(folder, spec, layout) if cache is None else _cached(folder, spec, layout, cache)
        if len(patient.doses):
            known.append(patient)
    if not known:
        raise InputError(f"no patient {numbers[0]} to {numbers[1]} of {cohort} has a plan that was not rejected")
    return known


def mirrored_patient(patient: PlannedPatient, layout: Layout) -> PlannedPatient:
    """Return the patient with left and right exchanged, paired organs renamed; DVHs are the same."""
    z, y, x = np.unravel_index(patient.voxels, patient.shape)
    voxels = np.ravel_multi_index((z, y, patient.shape[2] - 1 - x), patient.shape).astype(np.int32)
    return replace(patient, voxels=voxels, channels=patient.channels[list(layout.swaps)])


def _read(folder: Path, spec: DvhSpec, layout: Layout) -> PlannedPatient:
    patient = read_cohort_patient(folder)
    names = dict.fromkeys([*layout.structures, *spec.structures])
    missing = [name for name in spec.structures if name not in patient.structures]
    if missing:
        raise InputError(f"{folder} has no {' and no '.join(missing)}, whose DVHs steer")
    anatomy = Anatomy.from_patient(patient, list(names))
    voxels = np.flatnonzero(anatomy.inside).astype(np.int32)
    parts = np.stack([anatomy.parts[name].reshape(-1)[voxels] for name in spec.structures])
    target = parts[spec.structures.index(spec.target)].astype(np.float64)
    doses, codes, levels = [], [], []
    for number, variant in enumerate(_variants(folder)):
        if variant["rejected"]:
            continue
        dose = _dose(folder / f"variant_{number:03d}.npz", patient.ct.grid.shape)[voxels]
        level = float(np.average(dose, weights=target))
        doses.append((dose / level).astype(np.float16))
        codes.append(dvh_code(dose / level, parts))
        levels.append(level)
    return PlannedPatient(
        patient.name,
        patient.ct.grid.shape,
        patient.ct.grid.spacing,
        float(np.mean(levels)) if levels else 0.0,
        voxels,
        network_channels(anatomy, layout),
        parts.astype(np.float16),
        np.asarray(doses, dtype=np.float16).reshape(len(doses), voxels.size),
        np.asarray(codes, dtype=np.float32).reshape(len(codes), len(parts) * LEVELS),
    )


def _variants(folder: Path) -> Sequence[dict[str, list[str]]]:
    try:
        variants: list[dict[str, list[str]]] = json.loads((folder / "done.json").read_text())["variants"]
    except (OSError, ValueError, KeyError) as error:
        raise FileError(folder / "done.json", f"is no finished patient of a cohort ({error})") from None
    return variants


def _dose(file: Path, shape: tuple[int, int, int]) -> Floats:
    try:
        with np.load(file, allow_pickle=False) as data:
            dose = np.asarray(data["dose"], dtype=np.float64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FileError(file, f"is no plan of a cohort ({error})") from None
    if dose.shape != shape:
        raise FileError(file, f"has a dose of shape {dose.shape}, the patient's grid has {shape}")
    return dose.reshape(-1)


def _cached(folder: Path, spec: DvhSpec, layout: Layout, cache: Path) -> PlannedPatient:
    told = json.dumps([_VERSION, layout.as_dict(), spec.structures, str(folder.resolve())]).encode()
    stamp = (folder / "done.json").read_bytes() if (folder / "done.json").is_file() else b""
    kept = cache / f"{folder.name}-{hashlib.sha256(told + stamp).hexdigest()[:16]}"
    if not kept.is_dir():
        patient = _read(folder, spec, layout)
        draft = cache / f".{kept.name}-{os.getpid()}"
        try:
            draft.mkdir(parents=True, exist_ok=True)
            for name in _ARRAYS:
                np.save(draft / f"{name}.npy", getattr(patient, name), allow_pickle=False)
            facts = {key: getattr(patient, key) for key in ("name", "shape", "spacing", "level")}
            (draft / "facts.json").write_text(json.dumps(facts))
            if not kept.is_dir():
                draft.rename(kept)
        except OSError as error:
            raise FileError(cache, f"cannot be written: {error.strerror or error}") from None
    facts = json.loads((kept / "facts.json").read_text())
    arrays = {name: np.load(kept / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in _ARRAYS}
    return PlannedPatient(facts["name"], tuple(facts["shape"]), tuple(facts["spacing"]), facts["level"], **arrays)
