"""The parts of a plan file: each a frozen section that refuses keys it does not know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator


def _no_truth(value: Any) -> Any:
    """Refuse true and false where a number is meant, which would become 1 and 0."""
    if isinstance(value, bool):
        msg = "expected a number"
        raise ValueError(msg)
    return value


_Given = BeforeValidator(_no_truth)
Number = Annotated[float, Field(allow_inf_nan=False), _Given]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), _Given]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), _Given]
Count = Annotated[int, Field(gt=0), _Given]
Point = tuple[Number, Number, Number]


class Section(BaseModel):
    """One part of a plan file: immutable, unknown keys refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DicomSpec(Section):
    """Which files of a DICOM folder make the patient, where there is a choice, by UID.

    `resample` allows slices at uneven distances, interpolated to even ones.

    >>> DicomSpec().allow_other_frame
    False
    """

    series: str | None = None
    structure_set: str | None = None
    allow_other_frame: bool = False
    resample: bool = False


class ExternalSpec(Section):
    """The external contour found by threshold [HU]: the largest connected region above it, its holes filled.

    >>> ExternalSpec().name
    'BODY'
    """

    threshold: Number = -400.0
    name: str = "BODY"


class StructureSpec(Section):
    """A helper structure, written as a structure expression; a text alone is its shape.

    Helpers serve goals like organs at risk (priority 2) and are neither judged nor drawn, unless a role is given.

    >>> StructureSpec.model_validate("PTV - (LUNGS + 5 mm)").role
    'ignored'
    """

    shape: str
    role: Literal["target", "oar", "external", "ignored"] = "ignored"
    priority: Annotated[int, Field(ge=1), _Given] | None = None

    @model_validator(mode="before")
    @classmethod
    def _shape_alone(cls, data: Any) -> Any:
        return {"shape": data} if isinstance(data, str) else data


class DensitySpec(Section):
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


class TissueSpec(Section):
    """Radiosensitivity of structures to photons [1/Gy, 1/Gy^2]; `structure` is a name or a pattern.

    >>> TissueSpec(structure="LUNG_*", alpha_x=0.15, beta_x=0.05).beta_x
    0.05
    """

    structure: str
    alpha_x: NotNegative
    beta_x: NotNegative


class BiologySpec(Section):
    """An RBE model by name with coefficients of its own; a text alone is its name.

    >>> BiologySpec.model_validate("wedenberg").name
    'wedenberg'
    """

    name: str
    parameters: dict[str, Number] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, data: Any) -> Any:
        return {"name": data} if isinstance(data, str) else data


class RangeShifterSpec(Section):
    """A slab of PMMA in all beams: its water equivalent, and its distance from the isocentre [mm].

    >>> RangeShifterSpec(thickness=40, isocenter_distance=200).thickness
    40.0
    """

    thickness: Positive
    isocenter_distance: Number


class BeamsSpec(Section):
    """Where beams come from [degree, IEC 61217] and how finely they are divided [mm].

    `spot_spacing` is what particles call `bixel_width`; `layer_spacing` (in water), `range_shifter` and `range_margin`
    (share of the depth, and mm) are theirs alone. Without `gantry`, photons come from nine directions, particles from
    both sides. With `select`, the angles are candidates, of which so many are chosen.

    >>> BeamsSpec(gantry=[0, 90]).gantry
    (0.0, 90.0)
    """

    gantry: Annotated[tuple[Number, ...], Field(min_length=1)] = tuple(float(a) for a in range(0, 360, 40))
    couch: Number | tuple[Number, ...] = 0.0
    collimator: Number | tuple[Number, ...] = 0.0
    bixel_width: Positive = 5.0
    spot_spacing: Positive | None = None
    layer_spacing: Positive | None = None
    range_shifter: RangeShifterSpec | None = None
    isocenter: Point | None = None
    margin: NotNegative | None = None
    setup_margin: NotNegative = 0.0
    range_margin: tuple[NotNegative, NotNegative] = (0.0, 0.0)
    targets: tuple[str, ...] | None = None
    select: Count | None = None

    @field_validator("gantry", mode="before")
    @classmethod
    def _one_angle(cls, given: Any) -> Any:
        return (given,) if isinstance(given, int | float) and not isinstance(given, bool) else given

    @model_validator(mode="after")
    def _one_width(self) -> BeamsSpec:
        if self.spot_spacing is not None and "bixel_width" in self.model_fields_set:
            msg = "spot_spacing and bixel_width are the same length: give one"
            raise ValueError(msg)
        return self


class GridSpec(Section):
    """A dose grid of its own: voxels along (z, y, x), their size and the centre of the first along (x, y, z) [mm].

    >>> GridSpec(shape=(2, 3, 4), spacing=(5, 5, 5), origin=(0, 0, 0)).shape
    (2, 3, 4)
    """

    shape: tuple[Count, Count, Count]
    spacing: tuple[Positive, Positive, Positive]
    origin: Point


class EngineSpec(Section):
    """The dose engine, its options by name, the dose grid's spacing [mm], and whether its matrix is stored.

    >>> EngineSpec().grid
    5.0
    """

    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    grid: Positive | tuple[Positive, Positive, Positive] | GridSpec = 5.0
    stored: bool = True
    device: str = "numpy"
    dtype: Literal["float32", "float64"] = "float32"


class QuantitySpec(Section):
    """A quantity whose options are not the default ones.

    >>> QuantitySpec(name="let_x_dose", parameters={"c": 0.05}).name
    'let_x_dose'
    """

    name: str
    parameters: dict[str, Any] = Field(default_factory=dict)


class GoalSpec(Section):
    """One wish: an objective on a quantity in a structure, course totals in the quantity's unit.

    `structure` is a name, or a pattern such as ``LUNG_*`` that means each structure it fits. Without a `quantity` it is
    the one that the plan is prescribed in.

    >>> GoalSpec(structure="PTV", objective="squared_deviation", parameters={"reference": 50}).weight
    1.0
    """

    structure: str
    objective: str
    parameters: dict[str, Any] = Field(default_factory=dict)
    weight: NotNegative = 1.0
    quantity: str | QuantitySpec | None = None
    robust: str = "nominal"
    tail: Annotated[float, Field(gt=0, le=1), _Given] | None = None


class ConstraintSpec(Section):
    """One bound that must hold: lower <= metric or objective <= upper; `structure` as in a goal.

    A bound is a number in the unit of the metric, or a text that says it: ``15 Gy``, ``29 %``. `robust` says where it
    must hold: nominal, expected, worst.

    >>> ConstraintSpec(structure="Cord", metric="Dmax", upper=20).lower is None
    True
    """

    structure: str
    metric: str | None = None
    objective: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)
    lower: Number | str | None = None
    upper: Number | str | None = None
    quantity: str | QuantitySpec | None = None
    robust: str = "nominal"

    @model_validator(mode="after")
    def _bounded(self) -> ConstraintSpec:
        if self.lower is None and self.upper is None:
            msg = "a constraint needs lower or upper"
            raise ValueError(msg)
        if (self.metric is None) == (self.objective is None):
            msg = "a constraint states either a metric such as D10, or an objective"
            raise ValueError(msg)
        return self


class RobustSpec(Section):
    """Scenarios of setup shifts [mm] and range errors, relative or (relative, absolute [mm]), and how goals see them.

    `kind`, `points`, `deviations`, `count` and `seed` are those of `Scenarios.setup_and_range`. `reduction` is what
    goals do that do not say how they are robust themselves: ``composite`` (the sum of all goals in its worst scenario)
    or one of a goal's own, such as ``voxelwise_worst``.

    >>> RobustSpec(setup=5, range=0.035).kind
    'axes'
    """

    setup: NotNegative | tuple[NotNegative, NotNegative, NotNegative] = 0.0
    range: NotNegative | tuple[NotNegative, NotNegative] = 0.0
    kind: Literal["axes", "shifts", "grid", "random"] = "axes"
    points: Annotated[int, Field(ge=3)] = 3
    deviations: Positive = 1.0
    count: Count = 10
    seed: int = 0
    reduction: str = "composite"

    @model_validator(mode="after")
    def _errs(self) -> RobustSpec:
        errors = (self.setup, self.range)
        if not any(any(error) if isinstance(error, tuple) else error for error in errors):
            msg = "states no error, and so the nominal case alone: give setup or range, as in {setup: 5, range: 0.035}"
            raise ValueError(msg)
        return self


class ParetoSpec(Section):
    """A Pareto front about the goals' weights, and the wishes by which a plan is chosen from it.

    `levels` powers of `step` multiply the weight of every goal but the first. `wishes` are largest values of goals'
    objectives, by structure where it has one goal or by the goal's label; without them the middle is taken.

    >>> ParetoSpec(levels=3).step
    3.0
    """

    levels: Count = 5
    step: Annotated[float, Field(gt=1, allow_inf_nan=False), _Given] = 3.0
    wishes: dict[str, Number] = Field(default_factory=dict)


class PrioritiesSpec(Section):
    """Goals served in the order of the file, each then held at `slack` times what it reached, or at what is sufficient.

    >>> PrioritiesSpec().slack
    1.03
    """

    slack: Annotated[float, Field(ge=1, allow_inf_nan=False), _Given] = 1.03
    sufficient: tuple[NotNegative, ...] | None = None


class SolverSpec(Section):
    """The solver and its options by name.

    >>> SolverSpec(name="lbfgs", options={"max_iterations": 200}).options
    {'max_iterations': 200}
    """

    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)


class NormalizeSpec(Section):
    """What the finished plan is scaled to, written ``{structure: PTV, D95: 50.0}``.

    >>> NormalizeSpec.model_validate({"structure": "PTV", "D95": 50}).metric
    'D95'
    """

    structure: str
    metric: str
    level: Positive
    quantity: str | None = None

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


class BesideSpec(Section):
    """A DVH table to draw beside the plan's: a file beside the case, or the one in the folder of an earlier plan.

    `names` says what the table calls the plan's structures; without it they are called the same.

    >>> BesideSpec(table="clinic.csv", names={"LUNGS": "common lung"}).label
    'table'
    """

    table: str | None = None
    plan: str | None = None
    names: dict[str, str] = Field(default_factory=dict)
    label: str = "table"

    @model_validator(mode="after")
    def _one_source(self) -> BesideSpec:
        if (self.table is None) == (self.plan is None):
            msg = "give either table or plan"
            raise ValueError(msg)
        return self


class OutputsSpec(Section):
    """What is written beside the plan: figures, an RTDOSE file (by default for patients that came from DICOM).

    `quantities` are saved beside dose, and those of the goals anyway. Left out, particle plans save RBE-weighted dose,
    LET and RBE where they have them.

    >>> OutputsSpec().figures
    True
    """

    figures: bool = True
    dicom: bool | None = None
    quantities: tuple[str, ...] | None = None
    beside: BesideSpec | None = None


class DeliverySpec(Section):
    """What a linac delivers of a photon plan, and how: the technique, its limits, and what is known of the arcs.

    `beam_time` [s], `spacing` [degree], `collimators`, `couches`, `start`, `stop`, `avoid` (sectors without beam, as
    ``[[80, 100]]`` degrees), `effort` and `seed` (of the search) are for ``vmat``, `method` and `levels` for
    ``step_and_shoot``. `intermediate_doses` is how often the delivered dose of sequenced fields is calculated and the
    fluence optimised on with what leaves add to it, see `radplan.resequence`. `refine` optimises leaves and monitor
    units of sequenced shapes. `grid` is the spacing of the dose that is recalculated from the exported file [mm].
    `machine` is the linac as the planning system knows it.

    >>> DeliverySpec(technique="vmat", arcs=2).limits
    'TrueBeam'
    """

    technique: Literal["fluence", "step_and_shoot", "sliding_window", "vmat"] = "fluence"
    limits: str = "TrueBeam"
    method: Literal["siochi", "xia", "engel"] = "siochi"
    levels: Annotated[int, Field(ge=1)] = 7
    intermediate_doses: Annotated[int, Field(ge=0)] = 0
    refine: bool = True
    arcs: Count = 1
    collimators: tuple[Number, ...] | None = None
    couches: tuple[Number, ...] | None = None
    start: Number = 181.0
    stop: Number = 179.0
    avoid: tuple[tuple[Number, Number], ...] = ()
    spacing: Positive = 4.0
    beam_time: Positive | None = None
    effort: Positive = 1.0
    seed: Annotated[int, Field(ge=0)] = 0
    grid: Positive = 3.0
    compare: bool = True
    machine: Annotated[str, Field(max_length=16)] = ""

    @model_validator(mode="after")
    def _arcs_alone(self) -> DeliverySpec:
        of_arcs = ("arcs", "collimators", "couches", "avoid", "beam_time", "spacing", "effort", "seed")
        # Why values: a saved plan states every default.
        given = [name for name in of_arcs if self.__dict__[name] != type(self).model_fields[name].default]
        if given and self.technique != "vmat":
            msg = f"{', '.join(sorted(given))} belong to technique: vmat, not to {self.technique}"
            raise ValueError(msg)
        if self.intermediate_doses and self.technique not in ("step_and_shoot", "sliding_window"):
            msg = f"intermediate_doses belong to step_and_shoot and sliding_window, not to {self.technique}"
            raise ValueError(msg)
        return self
