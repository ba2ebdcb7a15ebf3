"""Reference arcs of generated patients: drawn by number, planned once, kept on disk."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import radplan
from radplan.ai.arc_case import ArcCase, arc_case
from radplan.ai.arc_reference import reference_fluence
from radplan.ai.spec import ArcPatients
from radplan.autoplan.cohort.generate import GENERATORS, draw
from radplan.autoplan.protocol import load_protocol, understand
from radplan.errors import FileError, InputError
from radplan.io import load_machine
from radplan.io.staging import staged_file
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]


def drawn_case(spec: ArcPatients, number: int) -> ArcCase:
    """Return a patient of a specification's generator as a planner of arcs sees it."""
    patient, _ = draw(GENERATORS.get(spec.generator)(**spec.options), spec.draw, number)
    return named_case(spec, patient)


def named_case(spec: ArcPatients, patient: Patient) -> ArcCase:
    """Return a patient as a planner of arcs sees it, under any names that the specification's protocol understands.

    Raises
    ------
    InputError
        When target or organs are missing.
    """
    protocol = load_protocol(spec.protocol)
    return arc_case(understand(patient, protocol).patient, protocol, arc_machine(spec), spec.arc, spec.organs)


def arc_machine(spec: ArcPatients) -> PhotonMachine:
    """Return the linac of a specification.

    Raises
    ------
    InputError
        When it is no photon machine.
    """
    machine = load_machine(spec.machine)
    if not isinstance(machine, PhotonMachine):
        raise InputError(f"{spec.machine} is no photon machine: arcs are planned with photons")
    return machine


def reference_arcs(spec: ArcPatients, numbers: tuple[int, int], folder: Path) -> list[tuple[ArcCase, Floats]]:
    """Return cases and their reference fluence, from a first to a last number; what is in `folder` is read.

    Raises
    ------
    FileError
        When a file is damaged or the folder cannot be written.
    """
    stated = spec.model_dump(mode="json", include=_STATED)
    known = []
    for number in range(numbers[0], numbers[1] + 1):
        case = drawn_case(spec, number)
        text = json.dumps([radplan.__version__, number, stated], sort_keys=True)
        path = folder / f"arc-{number:06d}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.npz"
        if not path.exists():
            _write(path, reference_fluence(case))
        known.append((case, _read(path, case.shape)))
    return known


def data_facts(spec: ArcPatients) -> dict[str, Any]:
    """Return what the card of a model says of its reference arcs: source, licence, numbers of each part."""
    return {
        "source": f"synthetic patients of radplan {radplan.__version__}, planned by radplan.ai.arc_reference",
        "licence": "generated data: Apache-2.0",
        **{part: list(getattr(spec.data, part)) for part in ("train", "choose", "test")},
    }


_STATED = {"arc", "generator", "options", "draw", "protocol", "machine", "organs"}
"""Entries of a specification that decide a reference plan."""


def _write(path: Path, fluence: Floats) -> None:
    with staged_file(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.savez_compressed(stream, fluence=fluence.astype(np.float32))


def _read(path: Path, shape: tuple[int, int, int]) -> Floats:
    try:
        with np.load(path, allow_pickle=False) as data:
            fluence = np.asarray(data["fluence"], dtype=np.float64)
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise FileError(path, f"is no reference fluence ({error}): remove it, and it is made again") from None
    if fluence.shape != shape:
        raise FileError(path, f"has shape {fluence.shape}, expected {shape}")
    return fluence
