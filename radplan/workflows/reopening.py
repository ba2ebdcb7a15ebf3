"""A saved plan reopened: its dose, metrics, curves and figures as they were, more only when it is asked for."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from radplan.beams.beam import Beams
from radplan.errors import FileError, InputError
from radplan.influence import ForwardModel
from radplan.io.load import load_machine, load_patient
from radplan.io.plan_file.reading import PlanSpec, read_plan_file
from radplan.io.saved_images import read_beams, read_images
from radplan.io.staging import FORMAT, changed, recovered
from radplan.patient.patient import Patient
from radplan.patient.phantoms import PHANTOMS
from radplan.plan import Plan
from radplan.workflows.planning import influence_of
from radplan.workflows.setup import named_patient, prepare_patient, task

logger = logging.getLogger(__name__)

_NEEDED = ("plan.json", "weights.npz", "images.npz")


def load_plan(folder: str | Path, patient: str | Path | Patient | None = None) -> Plan:
    """Return the plan that `save_plan` or ``radplan plan`` wrote into a folder.

    Metrics, DVHs, figures, dose and every quantity of the images come from the files. What needs the dose influence
    (other weights, cubes per beam, going on from here with `optimize`) calculates it then, as ``plan.json`` says.

    Parameters
    ----------
    folder : path-like
        Where the plan lies.
    patient : Patient or path-like, optional
        Whose plan it is, where the folder does not say or the images have moved; without helper structures, which are
        made again.

    Raises
    ------
    FileError
        When the folder holds no whole plan, or one of a later version of the format.
    InputError
        When the patient is not known: give `patient`.

    >>> import tempfile
    >>> from radplan import Dij, evaluate, save_plan
    >>> box = load_patient("box")
    >>> dij = Dij.from_matrices({"physical_dose": np.full((box.ct.grid.size, 1), 0.5)}, box.ct.grid)
    >>> with tempfile.TemporaryDirectory() as place:
    ...     _ = save_plan(evaluate(dij, [2.0], box, fractions=30), place)
    ...     float(load_plan(place)["physical_dose"].max())
    30.0
    """
    folder = recovered(folder)
    data = _described(folder)
    spec = read_plan_file(folder / "plan.json")
    subject = prepare_patient(spec, _patient(folder, spec, data, patient))
    work = task(spec, subject)
    x, fractions, background = _weights(folder / "weights.npz")
    build = _Calculation(folder, spec, subject, read_beams(folder / "images.npz"))
    model = read_images(folder / "images.npz", x, build)
    return Plan(
        x=x,
        model=model,
        patient=subject,
        fractions=fractions,
        goals=work.goals,
        constraints=work.constraints,
        given_beams=build.beams,
        normalization=data.get("normalization"),
        background=background,
        solver=work.solver,
    )


@dataclass(frozen=True, eq=False)
class _Calculation:
    """The dose influence of a saved plan, calculated when it is called."""

    folder: Path
    spec: PlanSpec
    patient: Patient
    beams: Beams | None

    def __call__(self) -> ForwardModel:
        if self.spec.machine is None:
            raise InputError(
                f"the plan in {self.folder} does not say how its dose was calculated: only what was saved is known"
            )
        return influence_of(self.spec, self.patient, load_machine(self.spec.machine), self.beams)


def _described(folder: Path) -> dict[str, Any]:
    """Return what ``plan.json`` says, after a check that the folder is one whole plan of a known format."""
    missing = [name for name in _NEEDED if not (folder / name).is_file()]
    if missing:
        raise FileError(folder, f"holds no saved plan: {' and '.join(missing)} missing; save_plan writes it")
    try:
        data = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileError(folder / "plan.json", f"cannot be read ({error})") from None
    number = data.get("format") if isinstance(data, dict) else None
    if not isinstance(number, int) or number < 1:
        raise FileError(folder / "plan.json", "is no plan.json of save_plan: it states no format")
    if number > FORMAT:
        raise FileError(folder / "plan.json", f"is of format {number}; this radplan reads up to {FORMAT}: upgrade it")
    altered = changed(folder)
    strange = [name for name in altered if name in ("weights.npz", "images.npz")]
    if strange:
        raise FileError(folder, f"does not hold one whole plan: {', '.join(strange)} changed since it was saved")
    if altered:
        logger.warning("%s: changed since the plan was saved: %s", folder, ", ".join(altered))
    return dict(data)


def _weights(path: Path) -> tuple[Any, int, Any]:
    try:
        with np.load(path, allow_pickle=False) as file:
            background = file["background"] if "background" in file.files else None
            return file["x"], int(file["fractions"]), background
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise FileError(path, f"holds no weights of a saved plan ({error})") from None


def _patient(folder: Path, spec: PlanSpec, data: dict[str, Any], given: str | Path | Patient | None) -> Patient:
    if isinstance(given, Patient):
        return given
    if given is not None:
        return load_patient(given)
    name = data.get("provenance", {}).get("patient")
    if spec.case is None and name in PHANTOMS:
        return load_patient(name)
    if spec.case is None:
        raise InputError(f"the plan in {folder} does not say where its patient {name!r} lies: give patient=")
    if spec.case not in PHANTOMS and not Path(spec.case).exists():
        raise InputError(f"the patient of the plan in {folder} is no longer at {spec.case}: give patient=")
    return named_patient(spec)[0]
