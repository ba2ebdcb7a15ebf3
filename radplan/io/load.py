"""Load a patient or a machine from whatever names it: a built-in name or a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from radplan.errors import FileError, InputError, UnknownNameError
from radplan.optim.goals import Goal, objective_from_spec
from radplan.patient.patient import Patient
from radplan.patient.phantoms import GOALS, PHANTOMS, phantom
from radplan.progress import Choice, listening

if TYPE_CHECKING:
    from radplan.machines import ParticleMachine, PhotonMachine


def load_patient(case: str | Path, progress: Choice = None) -> Patient:
    """Return the patient that `case` names.

    Parameters
    ----------
    case : str or path-like
        A built-in phantom (``"tg119"``, ``"box"``), a folder of DICOM files, a folder of images (``ct.nii.gz``
        and masks; `radplan.io.images`), a matRad ``.mat`` file, or a patient of
        OpenKBP (a folder of csv files or a compact ``.npz``; `radplan.io.openkbp.read_openkbp` gives its dose too) or
        of GDP-HMM (``.npz``; `radplan.io.gdp_hmm.read_gdp_hmm`), or a patient's folder of a cohort.
    progress : bool or callable, optional
        True shows a bar with the time left, False nothing, a callable is told each `radplan.progress.Report`; left
        out, a bar is shown in a terminal or a notebook.

    Raises
    ------
    UnknownNameError
        When there is neither a phantom nor a file of that name.
    InputError
        When it is a kind of file that cannot be read as a patient.
    FileError
        When the file cannot be read; says why.

    >>> load_patient("box").name
    'box'
    """
    if str(case) in PHANTOMS:
        goals = [
            Goal(name, objective_from_spec(kind, {"reference": level}), weight)
            for name, kind, level, weight in GOALS[str(case)]
        ]
        return replace(phantom(str(case)), goals=tuple(goals))
    path = Path(case)
    if _is_bare_name(path):
        raise UnknownNameError("patient file or built-in phantom", str(case), PHANTOMS)
    expected = (
        "expected a DICOM folder, a matRad .mat file, an OpenKBP folder or .npz, or a built-in phantom "
        f"({', '.join(PHANTOMS)})"
    )
    if not path.exists():
        raise FileError(path, f"no such file; {expected}")
    from radplan.io.openkbp import is_openkbp, read_openkbp

    if is_openkbp(path):
        return read_openkbp(path).patient
    from radplan.io.gdp_hmm import is_gdp_hmm, read_gdp_hmm

    if is_gdp_hmm(path):
        return read_gdp_hmm(path).patient
    from radplan.io.cohort_patient import is_cohort_patient, read_cohort_patient

    if is_cohort_patient(path):
        return read_cohort_patient(path)
    if path.is_dir():
        from radplan.io.images import is_image_folder, read_image_folder

        if is_image_folder(path):
            return read_image_folder(path)
        from radplan.io import dicom

        with listening(progress):
            return dicom.read_patient(path)
    if path.suffix.lower() != ".mat":
        raise InputError(f"cannot read a patient from {path}: {expected}")
    from radplan.io.matrad.patient import read_patient

    return read_patient(path)


def load_machine(machine: str | Path) -> PhotonMachine | ParticleMachine:
    """Return the machine that `machine` names.

    Parameters
    ----------
    machine : str or path-like
        A built-in machine such as ``"generic_photon_6mv"`` or ``"generic_proton"``, a matRad ``.mat`` machine or a
        radplan ``.npz`` machine.

    Raises
    ------
    UnknownNameError
        When there is neither a built-in machine nor a file of that name.
    FileError
        When the file cannot be read; says why.
    """
    from radplan.machines import library_machine, read_radplan_machine

    path = Path(machine)
    if _is_bare_name(path):
        return library_machine(str(machine))
    if not path.exists():
        raise FileError(path, "no such file; expected a .mat or .npz machine or the name of a built-in machine")
    if path.suffix.lower() == ".npz" and path.is_file():
        return read_radplan_machine(path)
    if path.is_dir() or path.suffix.lower() != ".mat":
        raise InputError(f"cannot read a machine from {path}: expected a .mat or .npz file or a built-in name")
    from radplan.io.matrad.machine import read_machine

    return read_machine(path)


def _is_bare_name(path: Path) -> bool:
    return not path.suffix and len(path.parts) == 1 and not path.exists()
