"""Plan files: what to plan and how, as YAML or JSON that a plan can be made from again.

Everything has a default but the goals; unknown keys are refused with the nearest known one. A whole file:

.. code-block:: yaml

    machine: generic_photon_6mv
    fractions: 25
    prescription: 50.0            # Gy, of the whole course
    external: {threshold: -400}   # HU, where no external contour was drawn
    structures:                   # helpers, as structure expressions
      Ring: ring(PTV, 3 mm, 30 mm)
      Shoulder: {shape: PTV - (LUNGS + 5 mm), role: target}
    densities:
      - {structure: Couch, density: 0.2}
    beams: {gantry: [0, 72, 144, 216, 288], bixel_width: 5.0}
    engine: {grid: 5.0, stored: false}
    goals:
      - {structure: PTV, objective: squared_deviation, parameters: {reference: 50.0}, weight: 1000}
      - {structure: "LUNG_*", objective: mean, weight: 10}    # every structure of that pattern
    constraints:                  # what must hold; a bound is in the unit of its metric
      - {structure: Cord, metric: Dmax, upper: 45 Gy}
    robust: {setup: 5, range: 0.035, kind: axes}          # mm and share: nine scenarios
    pareto: {levels: 3, wishes: {"LUNG_L": 10}}           # or priorities: {slack: 1.03}, goals then in order
    normalize: {structure: PTV, D95: 50.0}
    metrics: [V20Gy]              # beside the usual ones
    outputs: {figures: true, dicom: true}

Of particles, a plan file says besides:

.. code-block:: yaml

    machine: generic_proton       # or radiation: protons, for the built-in machine
    biology: wedenberg            # or {name: mcnamara, parameters: {p0: 0.999064}}, or false
    quantity: rbe_x_dose          # what the prescription and goals without a quantity mean (the default of ions)
    tissues:
      - {structure: "LUNG_*", alpha_x: 0.15, beta_x: 0.05}
    beams: {gantry: [90, 270], spot_spacing: 6, layer_spacing: 5, margin: 5}
    engine: {grid: 4, options: {let_threshold: 2.5}}      # for dirty_dose
    goals:
      - {structure: Cord, objective: squared_overdosing, parameters: {reference: 3.0}, quantity: let}
    outputs: {quantities: [let, rbe, effect]}
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from radplan.errors import FileError, InputError
from radplan.io.plan_file import sections
from radplan.io.plan_file.parsing import parse_file
from radplan.io.plan_file.sections import Positive, Section

EXAMPLE = (
    "{goals: [{structure: PTV, objective: squared_deviation, parameters: {reference: 50.0}, weight: 1000}, "
    "{structure: BODY, objective: squared_overdosing, parameters: {reference: 30.0}, weight: 100}], "
    "fractions: 25, normalize: {structure: PTV, D95: 50.0}}"
)
"""The least a useful plan file says, in one line of YAML, for messages."""


class PlanSpec(Section):
    """A whole plan file.

    `normalize` left out means: when there is a prescription and no constraint, which scaling could break, D95 of the
    target with the highest level is brought to it; ``false`` leaves the optimised weights as they are. `background` is
    the ``dose.npz`` or RTDOSE file of an earlier plan of the same patient, whose dose the goals see added. `radiation`
    names a built-in machine where none is given, else what the machine must deliver. `deliverable` optimises plans of
    particles once more without spots below the machine's least monitor units. `delivery` says what a linac delivers of
    a photon plan.

    >>> PlanSpec(fractions=25).beams.gantry[1]
    40.0
    """

    case: str | None = None
    machine: str | None = None
    radiation: str | None = None
    biology: sections.BiologySpec | Literal[False] | None = None
    fractions: sections.Count | None = None
    prescription: Positive | None = None
    quantity: str | None = None
    hu_table: str | None = None
    dicom: sections.DicomSpec | None = None
    external: sections.ExternalSpec | None = None
    structures: dict[str, sections.StructureSpec] = Field(default_factory=dict)
    densities: tuple[sections.DensitySpec, ...] = ()
    tissues: tuple[sections.TissueSpec, ...] = ()
    beams: sections.BeamsSpec = sections.BeamsSpec()
    engine: sections.EngineSpec = sections.EngineSpec()
    goals: tuple[sections.GoalSpec, ...] = ()
    constraints: tuple[sections.ConstraintSpec, ...] = ()
    robust: sections.RobustSpec | Literal["composite"] | None = None
    solver: sections.SolverSpec = sections.SolverSpec()
    pareto: sections.ParetoSpec | None = None
    priorities: sections.PrioritiesSpec | None = None
    deliverable: bool = True
    delivery: sections.DeliverySpec = sections.DeliverySpec()
    normalize: sections.NormalizeSpec | Literal[False] | None = None
    background: str | None = None
    metrics: tuple[str, ...] = ()
    outputs: sections.OutputsSpec = sections.OutputsSpec()


def read_plan_file(path: str | Path) -> PlanSpec:
    """Read the plan that a YAML or JSON file describes.

    Parameters
    ----------
    path : path-like
        ``.json`` is read as JSON, anything else as YAML. The ``plan.json`` of a saved plan is one too.

    Raises
    ------
    FileError
        The file cannot be read, is not a mapping, repeats a key, or has a key or value that is not understood; the
        message lists every fault with its place.

    >>> import tempfile, pathlib
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "plan.yaml")
    ...     _ = file.write_text("fractions: 25")
    ...     read_plan_file(file).fractions
    25
    """
    path = Path(path)
    data = parse_file(path)
    if data is None:
        raise FileError(path, f"is empty; the least a plan file can say is {EXAMPLE}")
    if not isinstance(data, dict):
        raise FileError(path, f"holds a {type(data).__name__}, expected keys and values such as {EXAMPLE}")
    if "spec" in data and "provenance" in data:
        data = data["spec"]  # a plan.json as `save_plan` writes it
    try:
        return PlanSpec.model_validate(data)
    except ValidationError as error:
        raise FileError(path, _explained(error, data)) from None


def plan_spec(data: Mapping[str, Any]) -> PlanSpec:
    """Return the plan that nested plain data describe, the same as a file with that content.

    >>> plan_spec({"fractions": 25}).fractions
    25
    """
    try:
        return PlanSpec.model_validate(dict(data))
    except ValidationError as error:
        raise InputError(_explained(error, data)) from None


_EITHER = {
    "lower": "a number, or one with its unit such as 15 Gy",
    "upper": "a number, or one with its unit such as 15 Gy",
    "grid": "a spacing > 0 mm, three of them (x, y, z), or a grid of shape, spacing and origin",
    "couch": "a finite angle in degrees, or one per beam",
    "collimator": "a finite angle in degrees, or one per beam",
    "biology": "the name of an RBE model, name and parameters, or false for none",
    "normalize": "one metric with its level, as in {structure: PTV, D95: 50.0}, or false",
    "quantity": "the name of a quantity, or name and parameters",
}
"""What is expected at the keys that take one of several things."""


_MOST_FAULTS = 20
"""As many faults of a file are told."""


def _explained(error: ValidationError, data: Any) -> str:
    """All faults of a plan file in one line, one fault for each place."""
    faults = error.errors()
    told = dict.fromkeys(text for fault in faults if (text := _explain(fault, data)) is not None)
    # Why: a row with a wrong entry is reported as too short besides, where it lost it.
    short = [text for text in told if ": tuple should have at least" in text]
    lost = {text for text in short if any(other.startswith(f"{text.split(':')[0]}[") for other in told)}
    kept = [text for text in told if text not in lost]
    more = f"; and {len(kept) - _MOST_FAULTS} more" if len(kept) > _MOST_FAULTS else ""
    return "; ".join(kept[:_MOST_FAULTS]) + more


def _explain(fault: Any, data: Any) -> str | None:
    """One validation fault as ``goals[0].wieght: unknown key; did you mean 'weight'?``; None where another tells it."""
    # Unions name the branch they tried ("float", "NormalizeSpec"); a reader of the file knows only its keys.
    steps = [step for step in fault["loc"] if isinstance(step, int) or not _is_branch(step)]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{str(step)[:80]}" for step in steps).lstrip(".")
    # Why: below these two, keys are names that the file's author chose.
    named = steps[:1] in (["structures"], ["outputs"], ["pareto"])
    key = None if named else next((k for k, step in enumerate(steps) if step in _EITHER), None)
    if key is not None:
        value = data
        for step in steps[: key + 1]:
            value = value[step]
        if not isinstance(value, Mapping):
            top = "".join(f"[{s}]" if isinstance(s, int) else f".{s}" for s in steps[: key + 1]).lstrip(".")
            return f"{top}: expected {_EITHER[str(steps[key])]} (got {_shown(value)})"
        if len(steps) == key + 1 and fault["type"] != "value_error":
            return None
    if fault["type"] == "literal_error" and isinstance(fault["input"], Mapping):
        return None  # the word that could stand here instead of a section
    if fault["type"] == "extra_forbidden":
        known = _keys_at(steps[:-1])
        near = difflib.get_close_matches(str(steps[-1]).lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{place}: unknown key; {hint}(known: {', '.join(known)})"
    if fault["type"] == "missing":
        return f"{place}: is missing"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault["input"]
    shown = f" (got {_shown(given)})" if isinstance(given, str | int | float) else ""
    if fault["type"] == "string_type" and isinstance(given, bool | int | float):
        shown = f" (got {_shown(given)}; put a name that reads as a number, true or false into quotes)"
    return f"{place or 'plan'}: {message[0].lower()}{message[1:]}{shown}"


def _shown(value: Any) -> str:
    """Return a value for a message, cut where it is long."""
    text = repr(value) if isinstance(value, str | bool | float) else reprlib.repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_branch(step: object) -> bool:
    text = str(step)
    return (
        text in {"float", "str", "constrained-float", *(cls.__name__ for cls in Section.__subclasses__())}
        or "[" in text
    )


def _keys_at(steps: list[Any]) -> list[str]:
    """Keys a plan file knows at a place, following the sections by name."""
    known: dict[Any, type[Section]] = {
        "dicom": sections.DicomSpec,
        "external": sections.ExternalSpec,
        "structures": sections.StructureSpec,
        "densities": sections.DensitySpec,
        "tissues": sections.TissueSpec,
        "biology": sections.BiologySpec,
        "beams": sections.BeamsSpec,
        "range_shifter": sections.RangeShifterSpec,
        "engine": sections.EngineSpec,
        "grid": sections.GridSpec,
        "goals": sections.GoalSpec,
        "constraints": sections.ConstraintSpec,
        "robust": sections.RobustSpec,
        "delivery": sections.DeliverySpec,
        "quantity": sections.QuantitySpec,
        "solver": sections.SolverSpec,
        "pareto": sections.ParetoSpec,
        "priorities": sections.PrioritiesSpec,
        "normalize": sections.NormalizeSpec,
        "outputs": sections.OutputsSpec,
        "beside": sections.BesideSpec,
    }
    inner = next((known[step] for step in reversed(steps) if step in known), PlanSpec)
    return list(inner.model_fields)
