"""A plan file written for a patient: its structures, a prescription guessed from target names, goals to begin with."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from radplan.errors import InputError
from radplan.patient.patient import Patient
from radplan.patient.structures import Structure

_DOSE = re.compile(r"(\d+(?:[.,]\d+)?)\s*(c?gy)?", re.IGNORECASE)
_USUAL_FRACTION = 2.0
_LEVELS = (
    (r"cord|myel|medull|spinal", "SpinalCord", "squared_overdosing", 30.0, 300.0),
    (r"brain.?stem|hirnstamm", "Brainstem", "squared_overdosing", 45.0, 200.0),
    (r"lens|linse", "Lens", "squared_overdosing", 5.0, 50.0),
    (r"optic|chiasm", "OpticNrv", "squared_overdosing", 45.0, 200.0),
    (r"parotis|parotid", "Parotid", "mean", 20.0, 20.0),
    (r"lung|pulmo", "Lung", "mean", 10.0, 20.0),
    (r"heart|cor\b|herz", "Heart", "mean", 10.0, 20.0),
    (r"liver|hepar|leber", "Liver", "mean", 15.0, 10.0),
    (r"kidney|ren\b|niere", "Kidney", "mean", 10.0, 20.0),
    (r"bladder|blase", "Bladder", "squared_overdosing", 45.0, 50.0),
    (r"rect", "Rectum", "squared_overdosing", 40.0, 100.0),
    (r"bowel|darm", "Bowel", "squared_overdosing", 40.0, 50.0),
)
"""Name in a structure set -> its TG-263 name, and a goal: objective, level [Gy], weight; no tolerance table."""


@dataclass(frozen=True)
class Prescribed:
    """A target with the dose that its name says, or that of the patient.

    >>> guessed_dose("PTV_6000cGy"), guessed_dose("PTVp 50.4Gy"), guessed_dose("PTV4140"), guessed_dose("GTV1")
    (60.0, 50.4, 41.4, None)
    """

    name: str
    dose: float
    guessed: str


def guessed_dose(name: str) -> float | None:
    """Return the course dose [Gy] that a target's name states, in Gy or in cGy; None where it states none.

    Numbers of three digits and more are cGy unless they say Gy; a number without unit below 20 is a count.
    """
    for number, unit in _DOSE.findall(name):
        value = float(number.replace(",", "."))
        if unit.lower() == "cgy" or (not unit and value >= 1000.0):
            value /= 100.0
        if 10.0 <= value <= 100.0 and (unit or value >= 20.0):
            return value
    return None


def plan_text(case: str, patient: Patient) -> str:
    """Return a commented plan file (YAML) for a patient; it can be planned as it is printed.

    The goals that travel with the patient are taken; of others the targets get their guessed dose, a ring keeps dose
    from piling up about them, and the organs whose names are known get a goal to begin with.

    Parameters
    ----------
    case : str
        What `radplan.load_patient` took.
    patient : Patient
        As it gave it.

    Raises
    ------
    InputError
        When there is no target.
    """
    targets = _prescribed(patient)
    first = max(targets, key=lambda target: target.dose)
    fractions = patient.fractions or max(1, round(first.dose / _USUAL_FRACTION))
    lines = [
        f"# A plan for {_quoted(patient.name)}, to begin with: look at every line before you believe the plan.",
        "# Research software, not for clinical use.",
        f"#   radplan plan --plan plan.yaml --out out   (structures and goals: {_DOCUMENTS})",
        f"case: {_quoted(case)}",
        "machine: generic_photon_6mv # or generic_proton, generic_carbon, ... or a machine file",
        f"fractions: {fractions} # {_said(patient.fractions is not None)}",
        f"prescription: {first.dose:g} # Gy of the whole course, {first.guessed}",
    ]
    if not any(structure.role == "external" for structure in patient.structures.values()):
        lines.append("external: { threshold: -400 } # no external contour was drawn: found by threshold [HU]")
    lines += ["", "# Structures found (role, volume):"]
    lines += [f"#   {_described(structure)}" for structure in patient.structures.values()]
    lines += ["", *_helpers(patient, targets), *_beams(), "", "goals:", *_goals(patient, targets), ""]
    lines.append(f"normalize: {{ structure: {_quoted(first.name)}, D95: {first.dose:g} }}")
    lines.append("outputs: { dicom: true } # an RTDOSE beside plan.json, dose.npz, DVHs and figures")
    return "\n".join(lines) + "\n"


_DOCUMENTS = "docs/structures.md and docs/guide.md"


def _said(stated: bool) -> str:
    return "as the patient's file says" if stated else "a guess: 2 Gy a fraction"


def _prescribed(patient: Patient) -> list[Prescribed]:
    """Return targets with their doses: planning targets where there are any, else all that are aimed at."""
    names = list(patient.target_names)
    if not names:
        known = ", ".join(patient.structures) or "none"
        raise InputError(f"{patient.name!r} has no target to plan for (structures: {known}): give one the role target")
    planning = [name for name in names if re.match(r"ptv", name, re.IGNORECASE)] or names
    targets = []
    for name in planning:
        dose = guessed_dose(name)
        if patient.prescription is not None:
            targets.append(Prescribed(name, patient.prescription, "as the patient's file says"))
        elif dose is not None:
            targets.append(Prescribed(name, dose, f"guessed from the name {name}"))
    if targets:
        return targets
    return [Prescribed(name, 60.0, "a guess: no target's name says a dose") for name in planning]


def _helpers(patient: Patient, targets: Sequence[Prescribed]) -> list[str]:
    """Write a ring about the targets, unless goals travel with the patient."""
    if patient.goals:
        return []
    union = " | ".join(_expression(target.name) for target in targets)
    shape = union if len(targets) == 1 else f"({union})"
    return [
        "structures: # helpers for goals, written as structure expressions; neither judged nor drawn",
        f"  {_free(patient, 'Ring')}: {_quoted(f'ring({shape}, 0 mm, 20 mm)')}",
        "",
    ]


def _beams() -> list[str]:
    return [
        "beams:",
        "  gantry: [0, 40, 80, 120, 160, 200, 240, 280, 320] # degrees, IEC 61217",
        "  bixel_width: 5 # mm",
        "engine: { grid: 5, stored: true } # dose grid [mm]; stored: false calculates on the fly, in less memory",
    ]


def _goals(patient: Patient, targets: Sequence[Prescribed]) -> list[str]:
    """Write goals that travel with the patient, else some to begin with."""
    if patient.goals:
        return [_goal_line(goal.to_spec()) for goal in patient.goals]
    highest = max(target.dose for target in targets)
    lines = [_line(target.name, "squared_deviation", target.dose, 1000.0, "") for target in targets]
    lines.append(_line(_free(patient, "Ring"), "squared_overdosing", 0.8 * min(t.dose for t in targets), 500.0, ""))
    for structure in patient.structures.values():
        if structure.role != "oar":
            continue
        for pattern, name, objective, level, weight in _LEVELS:
            if re.search(pattern, structure.name, re.IGNORECASE):
                lines.append(_line(structure.name, objective, min(level, 0.9 * highest), weight, f"as {name}"))
                break
    body = next((s.name for s in patient.structures.values() if s.role == "external"), "BODY")
    lines.append(_line(body, "squared_overdosing", round(0.6 * highest, 1), 100.0, "everything else"))
    return lines


def _goal_line(spec: dict[str, object]) -> str:
    parameters = spec["parameters"]
    assert isinstance(parameters, dict)
    inner = ", ".join(f"{key}: {value}" for key, value in parameters.items())
    return (
        f"  - {{ structure: {_quoted(str(spec['structure']))}, objective: {spec['objective']}, "
        f"parameters: {{ {inner} }}, weight: {spec['weight']:g} }}"
    )


def _line(structure: str, objective: str, level: float, weight: float, note: str) -> str:
    return (
        f"  - {{ structure: {_quoted(structure)}, objective: {objective}, parameters: {{ reference: {level:g} }}, "
        f"weight: {weight:g} }}" + (f" # {note}" if note else "")
    )


def _described(structure: Structure) -> str:
    return f"{_quoted(structure.name)} ({structure.role}, {structure.volume / 1000.0:.1f} cm3)"


def _quoted(text: str) -> str:
    """Return a text as YAML takes it, quoted where it must be."""
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", text) and text.lower() not in ("null", "true", "false", "yes", "no"):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _expression(name: str) -> str:
    """Return a name as structure expressions take it."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else f"'{name}'"


def _free(patient: Patient, name: str) -> str:
    while name in patient.structures:
        name += "_new"
    return name
