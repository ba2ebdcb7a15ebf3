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
    normalize: {structure: PTV, D95: 50.0}
    metrics: [V20Gy]              # beside the usual ones
    outputs: {figures: true, dicom: true}
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from radplan.errors import FileError, InputError

Number = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Point = tuple[Number, Number, Number]

EXAMPLE = (
    "{goals: [{structure: PTV, objective: squared_deviation, parameters: {reference: 50.0}, weight: 1000}, "
    "{structure: BODY, objective: squared_overdosing, parameters: {reference: 30.0}, weight: 100}], "
    "fractions: 25, normalize: {structure: PTV, D95: 50.0}}"
)
"""The least a useful plan file says, in one line of YAML, for messages."""


class _Section(BaseModel):
    """One part of a plan file: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DicomSpec(_Section):
    """Which files of a DICOM folder make the patient, where there is a choice, by UID.

    >>> DicomSpec().allow_other_frame
    False
    """

    series: str | None = None
    structure_set: str | None = None
    allow_other_frame: bool = False


class ExternalSpec(_Section):
    """The external contour found by threshold [HU]: the largest connected region above it, its holes filled.

    >>> ExternalSpec().name
    'BODY'
    """

    threshold: Number = -400.0
    name: str = "BODY"


class StructureSpec(_Section):
    """A helper structure, written as a structure expression; a text alone is its shape.

    Helpers serve goals like organs at risk (priority 2) and are neither judged nor drawn, unless a role is given.

    >>> StructureSpec.model_validate("PTV - (LUNGS + 5 mm)").role
    'ignored'
    """

    shape: str
    role: Literal["target", "oar", "external", "ignored"] = "ignored"
    priority: Annotated[int, Field(ge=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _shape_alone(cls, data: Any) -> Any:
        return {"shape": data} if isinstance(data, str) else data


class DensitySpec(_Section):
    """A density that replaces the CT's: relative electron density [1], or a Hounsfield unit [HU].

    `structure` is a name or a structure expression; ``dosed: true`` asks for dose in it, as in bolus.

    >>> DensitySpec(structure="Bolus", density=1.0, dosed=True).hu is None
    True
    """

    structure: str
    density: NotNegative | None = None
    hu: Number | None = None
    dosed: bool = False

    @model_validator(mode="after")
    def _one_value(self) -> DensitySpec:
        if (self.density is None) == (self.hu is None):
            msg = "give either density or hu"
            raise ValueError(msg)
        return self


class BeamsSpec(_Section):
    """Where beams come from [degree, IEC 61217] and how finely they are divided [mm].

    >>> BeamsSpec(gantry=[0, 90]).gantry
    (0.0, 90.0)
    """

    gantry: Annotated[tuple[Number, ...], Field(min_length=1)] = tuple(float(a) for a in range(0, 360, 40))
    couch: Number | tuple[Number, ...] = 0.0
    collimator: Number | tuple[Number, ...] = 0.0
    bixel_width: Positive = 5.0
    isocenter: Point | None = None
    margin: NotNegative | None = None
    targets: tuple[str, ...] | None = None


class EngineSpec(_Section):
    """The dose engine, its options by name, the dose grid's spacing [mm], and whether its matrix is stored.

    >>> EngineSpec().grid
    5.0
    """

    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    grid: Positive | tuple[Positive, Positive, Positive] = 5.0
    stored: bool = True
    device: str = "numpy"
    dtype: Literal["float32", "float64"] = "float32"


class QuantitySpec(_Section):
    """A quantity whose options are not the default ones.

    >>> QuantitySpec(name="let_x_dose", parameters={"c": 0.05}).name
    'let_x_dose'
    """

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class GoalSpec(_Section):
    """One wish: an objective on a quantity in a structure, course totals in the quantity's unit.

    `structure` is a name, or a pattern such as ``LUNG_*`` that means each structure it fits.

    >>> GoalSpec(structure="PTV", objective="squared_deviation", parameters={"reference": 50}).quantity
    'physical_dose'
    """

    structure: str
    objective: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    weight: NotNegative = 1.0
    quantity: str | QuantitySpec = "physical_dose"
    robust: str = "nominal"
    tail: Annotated[float, Field(gt=0, le=1)] | None = None


class ConstraintSpec(_Section):
    """One bound that must hold: lower <= objective <= upper; `structure` as in a goal.

    >>> ConstraintSpec(structure="Cord", objective="mean", upper=20).lower is None
    True
    """

    structure: str
    objective: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    lower: Number | None = None
    upper: Number | None = None
    quantity: str | QuantitySpec = "physical_dose"

    @model_validator(mode="after")
    def _bounded(self) -> ConstraintSpec:
        if self.lower is None and self.upper is None:
            msg = "a constraint needs lower or upper"
            raise ValueError(msg)
        return self


class SolverSpec(_Section):
    """The solver and its options by name.

    >>> SolverSpec(name="lbfgs", options={"max_iterations": 200}).options
    {'max_iterations': 200}
    """

    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class NormalizeSpec(_Section):
    """What the finished plan is scaled to, written ``{structure: PTV, D95: 50.0}``.

    >>> NormalizeSpec.model_validate({"structure": "PTV", "D95": 50}).metric
    'D95'
    """

    structure: str
    metric: str
    level: Positive
    quantity: str = "physical_dose"

    @model_validator(mode="before")
    @classmethod
    def _one_metric(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or "metric" in data:
            return data
        free = [key for key in data if key not in cls.model_fields]
        if len(free) != 1:
            msg = f"expected one metric with its level, as in {{structure: PTV, D95: 50.0}}, got {sorted(data)}"
            raise ValueError(msg)
        rest = {key: value for key, value in data.items() if key != free[0]}
        return {**rest, "metric": free[0], "level": data[free[0]]}


class BesideSpec(_Section):
    """A DVH table to draw beside the plan's, and what it calls the plan's structures.

    >>> BesideSpec(table="clinic.csv", names={"LUNGS": "common lung"}).label
    'table'
    """

    table: str
    names: dict[str, str] = Field(default_factory=dict)
    label: str = "table"


class OutputsSpec(_Section):
    """What is written beside the plan: figures, an RTDOSE file (by default for patients that came from DICOM).

    >>> OutputsSpec().figures
    True
    """

    figures: bool = True
    dicom: bool | None = None
    beside: BesideSpec | None = None


class PlanSpec(_Section):
    """A whole plan file.

    `normalize` left out means: when there is a prescription, D95 of the target with the highest level is brought to
    it; ``false`` leaves the optimised weights as they are. `background` is the ``dose.npz`` or RTDOSE file of an
    earlier plan of the same patient, whose dose the goals see added.

    >>> PlanSpec(fractions=25).beams.gantry[1]
    40.0
    """

    case: str | None = None
    machine: str | None = None
    fractions: Annotated[int, Field(gt=0)] | None = None
    prescription: Positive | None = None
    hu_table: str | None = None
    dicom: DicomSpec | None = None
    external: ExternalSpec | None = None
    structures: dict[str, StructureSpec] = Field(default_factory=dict)
    densities: tuple[DensitySpec, ...] = ()
    beams: BeamsSpec = BeamsSpec()
    engine: EngineSpec = EngineSpec()
    goals: tuple[GoalSpec, ...] = ()
    constraints: tuple[ConstraintSpec, ...] = ()
    robust: Literal["composite"] | None = None
    solver: SolverSpec = SolverSpec()
    normalize: NormalizeSpec | Literal[False] | None = None
    background: str | None = None
    metrics: tuple[str, ...] = ()
    outputs: OutputsSpec = OutputsSpec()


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
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileError(path, "no such plan file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(path, f"cannot be read as text ({error})") from None
    data = _parse_json(path, text) if path.suffix.lower() == ".json" else _parse_yaml(path, text)
    if data is None:
        raise FileError(path, f"is empty; the least a plan file can say is {EXAMPLE}")
    if not isinstance(data, dict):
        raise FileError(path, f"holds a {type(data).__name__}, expected keys and values such as {EXAMPLE}")
    if "spec" in data and "provenance" in data:
        data = data["spec"]  # a plan.json as `save_plan` writes it
    try:
        return PlanSpec.model_validate(data)
    except ValidationError as error:
        raise FileError(path, "; ".join(_explain(fault) for fault in error.errors())) from None


def plan_spec(data: Mapping[str, Any]) -> PlanSpec:
    """Return the plan that nested plain data describe, the same as a file with that content.

    >>> plan_spec({"fractions": 25}).fractions
    25
    """
    try:
        return PlanSpec.model_validate(dict(data))
    except ValidationError as error:
        raise InputError("; ".join(_explain(fault) for fault in error.errors())) from None


def _parse_json(path: Path, text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in keys:
            if keys.count(key) > 1:
                raise FileError(path, f"the key {key!r} is written twice")
        return dict(pairs)

    try:
        return json.loads(text, object_pairs_hook=unique) if text.strip() else None
    except json.JSONDecodeError as error:
        raise FileError(path, f"is not JSON: {error}") from None


def _parse_yaml(path: Path, text: str) -> Any:
    import yaml

    class UniqueKeyLoader(yaml.SafeLoader):
        """Refuses a key that is written twice, where YAML would keep the last."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen = set()
            for key_node, _ in node.value:
                key = str(self.construct_object(key_node, deep=True))
                if key in seen:
                    line = key_node.start_mark.line + 1
                    raise FileError(path, f"line {line}: the key {key!r} is written twice")
                seen.add(key)
            return super().construct_mapping(node, deep)

    try:
        return yaml.load(text, Loader=UniqueKeyLoader)
    except yaml.YAMLError as error:
        raise FileError(path, f"is not YAML: {' '.join(str(error).split())}") from None


def _explain(fault: Any) -> str:
    """One validation fault as ``goals[0].wieght: unknown key; did you mean 'weight'?``."""
    # Unions name the branch they tried ("float", "NormalizeSpec"); a reader of the file knows only its keys.
    steps = [step for step in fault["loc"] if isinstance(step, int) or not _is_branch(step)]
    place = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    if fault["type"] == "extra_forbidden":
        known = _keys_at(steps[:-1])
        near = difflib.get_close_matches(str(steps[-1]).lower(), known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{place}: unknown key; {hint}(known: {', '.join(known)})"
    if fault["type"] == "missing":
        return f"{place}: is missing"
    message = fault["msg"].removeprefix("Value error, ")
    given = fault["input"]
    shown = f" (got {given!r})" if isinstance(given, str | int | float) else ""
    return f"{place or 'plan'}: {message[0].lower()}{message[1:]}{shown}"


def _is_branch(step: object) -> bool:
    text = str(step)
    return text in {"float", "str", "NormalizeSpec", "QuantitySpec"} or "[" in text


def _keys_at(steps: list[Any]) -> list[str]:
    """Keys a plan file knows at a place, following the sections by name."""
    sections: dict[Any, type[_Section]] = {
        "dicom": DicomSpec,
        "external": ExternalSpec,
        "structures": StructureSpec,
        "densities": DensitySpec,
        "beams": BeamsSpec,
        "engine": EngineSpec,
        "goals": GoalSpec,
        "constraints": ConstraintSpec,
        "quantity": QuantitySpec,
        "solver": SolverSpec,
        "normalize": NormalizeSpec,
        "outputs": OutputsSpec,
        "beside": BesideSpec,
    }
    inner = next((sections[step] for step in reversed(steps) if step in sections), PlanSpec)
    return list(inner.model_fields)
