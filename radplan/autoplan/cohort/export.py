"""Cohorts as data sets: a file for each patient or plan, split by patient, with a data card; no file holds a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import radplan
from radplan.autoplan.cohort.spec import CohortSpec
from radplan.autoplan.cohort.task import finished, task_folder, task_hash
from radplan.autoplan.plates import angle_plate, beam_plate
from radplan.autoplan.protocol import load_protocol
from radplan.beams import place_beams
from radplan.errors import InputError, UnknownNameError
from radplan.io import load_machine
from radplan.io.cohort_patient import read_cohort_patient
from radplan.io.gdp_hmm import write_gdp_hmm
from radplan.io.openkbp import write_openkbp_layout
from radplan.io.staging import staged

Arrays = dict[str, npt.NDArray[Any]]

SPLITS = ("train", "validation", "test")
_PREFIX = "structure_"
_OF_ARCS = (
    "fluence", "opened", "columns", "pairs", "leaf_boundaries", "field", "collimator", "meterset", "leaves", "mu",
    "segment_field", "jaws_x", "jaws_y",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class FinishedPatient:
    """A finished patient of a cohort, as it stands on disk.

    Parameters
    ----------
    index : int
        Its number in the cohort.
    folder : Path
        Where its files are.
    arrays : dict of str to array
        Of ``patient.npz``.
    plans : dict of int to dict of str to array
        Arrays of the plans that were not rejected, by the number of the variant.
    rejected : int
        How many were.
    """

    index: int
    folder: Path
    arrays: Arrays
    plans: dict[int, Arrays]
    rejected: int

    @property
    def structures(self) -> Arrays:
        """Parts of voxels in eighths (nz, ny, nx) by structure."""
        return {key.removeprefix(_PREFIX): cube for key, cube in self.arrays.items() if key.startswith(_PREFIX)}

    @property
    def gantry(self) -> npt.NDArray[Any]:
        """Gantry angles of the fields, or of the control points of arcs [degree]."""
        return self.arrays["gantry"] if "gantry" in self.arrays else next(iter(self.plans.values()))["gantry"]

    @property
    def isocenter(self) -> npt.NDArray[Any]:
        """World position (3,) [mm]."""
        return self.arrays["isocenter"] if "isocenter" in self.arrays else next(iter(self.plans.values()))["isocenter"]


def export_cohort(
    spec: CohortSpec,
    folder: str | Path,
    layout: str = "arrays",
    split: tuple[int, int, int] | None = None,
    rejected: bool = False,
) -> Path:
    """Write the finished patients of a cohort as a data set to a new folder; returns its data card.

    Parameters
    ----------
    spec : CohortSpec
        Which cohort.
    folder : path-like
        A new folder; it appears whole.
    layout : {"arrays", "gdp_hmm", "openkbp"}
        ``arrays``: one npz for each patient with CT numbers, structures and all doses over the prescription, and for
        arcs fluence, leaves and monitor units. ``gdp_hmm``: one npz for each plan with the keys of GDP-HMM.
        ``openkbp``: a folder of csv for each patient, with its first plan.
    split : three int, optional
        Patients to train, validate and test, in the order of their numbers; 70, 10 and 20 % when left out.
    rejected : bool
        Whether plans that the cohort rejected come along.

    Raises
    ------
    UnknownNameError
        When the layout is none of those.
    InputError
        When no patient is finished, the split asks for more than there are, or an entry is negative.
    """
    if layout not in LAYOUTS:
        raise UnknownNameError("layout of a cohort's export", layout, LAYOUTS)
    indices = [k for k in range(spec.size) if finished(task_folder(spec, k)) == task_hash(spec, k)]
    if not indices:
        raise InputError(f"no patient of {spec.name!r} in {spec.out} is finished: run the cohort first")
    parts = _split(indices, split)
    with staged(Path(folder)) as partial:
        files: dict[str, list[str]] = {}
        counts = {"plans": 0, "rejected_plans": 0}
        for part, chosen in parts.items():
            files[part] = []
            for index in chosen:
                patient = _read(spec, index, rejected)
                counts["plans"] += len(patient.plans)
                counts["rejected_plans"] += patient.rejected
                files[part] += [_path(partial, file) for file in LAYOUTS[layout](spec, patient, partial / part)]
        card = {
            "format": "radplan-data-card", "version": 1, "radplan": radplan.__version__, "layout": layout,
            "cohort": spec.model_dump(mode="json", exclude={"out"}), "fingerprint": spec.fingerprint(), **counts,
            "split_by": "patient", "patients": parts, "files": files, "keys": _KEYS[layout],
            "sha256": {name: _sha256(partial / name) for names in files.values() for name in names},
            "licence": "generated data: Apache-2.0" if spec.generator else "that of the cases",
        }  # fmt: skip
        (partial / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return Path(folder) / "card.json"


def _split(indices: list[int], split: tuple[int, int, int] | None) -> dict[str, list[int]]:
    count = len(indices)
    if split is None:
        test, validation = round(0.2 * count), round(0.1 * count)
        split = count - validation - test, validation, test
    if min(split) < 0 or sum(split) > count:
        raise InputError(f"the split {'/'.join(map(str, split))} does not fit: {count} patients are finished")
    ends = np.cumsum((0, *split))
    return {name: indices[ends[k] : ends[k + 1]] for k, name in enumerate(SPLITS)}


def _read(spec: CohortSpec, index: int, rejected: bool) -> FinishedPatient:
    folder = task_folder(spec, index)
    told = json.loads((folder / "done.json").read_text())["variants"]
    kept = [number for number, variant in enumerate(told) if rejected or not variant["rejected"]]
    stem = "arcs.npz" if spec.arcs is not None else "variant_{:03d}.npz"
    plans = {number: _arrays(folder / stem.format(number)) for number in kept}
    return FinishedPatient(index, folder, _arrays(folder / "patient.npz"), plans, len(told) - len(kept))


def _arrays(path: Path) -> Arrays:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _path(root: Path, file: Path) -> str:
    return file.relative_to(root).as_posix()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _as_arrays(spec: CohortSpec, patient: FinishedPatient, folder: Path) -> Iterator[Path]:
    """Write one npz with everything of a patient."""
    if not patient.plans:
        return
    protocol = load_protocol(spec.protocol)
    doses = np.stack([plan["dose"] for plan in patient.plans.values()])
    arrays: Arrays = {
        "hu": patient.arrays["hu"],
        "names": np.asarray(list(patient.structures)),
        "structures": np.stack(list(patient.structures.values())),
        "doses": (doses / protocol.prescription).astype(np.float16),
        "prescription": np.asarray(protocol.prescription),
        "variants": np.asarray(list(patient.plans)),
        "spacing": patient.arrays["spacing"],
        "origin": patient.arrays["origin"],
        "gantry": patient.gantry,
        "isocenter": patient.isocenter,
    }
    if spec.arcs is None:
        arrays["factors"] = np.stack([plan["factors"] for plan in patient.plans.values()])
    else:
        plan = next(iter(patient.plans.values()))
        arrays |= {name: plan[name] for name in _OF_ARCS if name in plan}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / f"{patient.index:06d}.npz", **arrays)  # type: ignore[arg-type]
    yield folder / f"{patient.index:06d}.npz"


def _as_gdp_hmm(spec: CohortSpec, patient: FinishedPatient, folder: Path) -> Iterator[Path]:
    """Write one npz for each plan."""
    if not patient.plans:
        return
    protocol = load_protocol(spec.protocol)
    drawn = read_cohort_patient(patient.folder)
    machine = load_machine(spec.machine or protocol.machine)
    beams = place_beams(drawn, machine, gantry=patient.gantry.tolist(), isocenter=patient.isocenter)
    plates: Arrays = {
        "angle_plate": angle_plate(drawn.ct.grid, patient.isocenter, patient.gantry.tolist()).astype(np.uint8),
        "beam_plate": beam_plate(drawn, beams, drawn.ct.grid).astype(np.float32),
    }
    masks = {name: cube >= 4 for name, cube in patient.structures.items()}
    for number, plan in patient.plans.items():
        file = folder / f"{patient.index:06d}_{number:03d}.npz"
        write_gdp_hmm(
            file, drawn.ct, plan["dose"], masks, patient.gantry, patient.isocenter, arc=spec.arcs is not None,
            plates=plates,
        )  # fmt: skip
        yield file


def _as_openkbp(spec: CohortSpec, patient: FinishedPatient, folder: Path) -> Iterator[Path]:
    """Write a folder of csv with the first plan."""
    if not patient.plans:
        return
    ct = read_cohort_patient(patient.folder).ct
    at_corner = replace(ct, grid=replace(ct.grid, origin=(0.0, 0.0, 0.0)))
    masks = {name: cube >= 4 for name, cube in patient.structures.items()}
    inside = masks.pop("External")
    case = folder / f"pt_{patient.index + 1}"
    write_openkbp_layout(case, at_corner, next(iter(patient.plans.values()))["dose"], inside, masks)
    yield from sorted(case.iterdir())


LAYOUTS: dict[str, Callable[[CohortSpec, FinishedPatient, Path], Iterator[Path]]] = {
    "arrays": _as_arrays,
    "gdp_hmm": _as_gdp_hmm,
    "openkbp": _as_openkbp,
}
"""How a cohort is written."""

_KEYS = {
    "arrays": {
        "hu": "CT numbers (z, y, x) [HU]",
        "structures": "parts of voxels in eighths (structures, z, y, x), named by names",
        "doses": "course totals over prescription (plans, z, y, x) [1]",
        "variants": "number of each plan in the cohort (plans,)",
        "factors": "on the weight of each group of organs (plans, groups)",
        "prescription": "[Gy]",
        "spacing, origin, isocenter": "(x, y, z) [mm]",
        "gantry": "of the fields, or of the control points of arcs [degree]",
        "fluence, opened": "arcs: free optimum and what leaves let through (segments, rows, columns) [MU]",
        "leaves, jaws_x, jaws_y": "arcs: by control point (points, pairs, 2), (points, 2) [mm]",
        "mu, meterset": "arcs: by segment and by control point [MU]",
    },
    "gdp_hmm": {
        "as in GDP-HMM": "img, dose, dose_scale, masks by name, isVMAT, angle_list, isocenter, plates, geometry"
    },
    "openkbp": {"as in OpenKBP": "csv of flat indices into 128^3 voxels; structures under this cohort's own names"},
}
