"""A plan of a course: what is delivered, and everything a physicist reads off it as course totals."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radplan.analysis.dvh import DVH, common_levels, cumulative_dvh
from radplan.analysis.metrics import ORGAN_METRICS, TARGET_METRICS, coverage, is_level, metric
from radplan.analysis.scaling import find_factor
from radplan.arrays import to_numpy
from radplan.beams.beam import Beams
from radplan.errors import CalculationError, InputError
from radplan.influence import Dij, ForwardModel
from radplan.influence.given import checked_variables, on_device, variable_bounds, variable_minimum
from radplan.influence.saved import SavedModel
from radplan.optim.constraints import Constraint
from radplan.optim.goals import Goal, is_number
from radplan.optim.solvers import Solution, Solver
from radplan.patient.patient import Patient
from radplan.patient.sampling import sample, structure_points
from radplan.plan.prescribed import dose_floor, floored, has_biology, prescribed_quantity
from radplan.quantities.base import Quantity
from radplan.quantities.resolver import BoundQuantity, QuantityResolver
from radplan.tables import MetricsTable

Floats = NDArray[np.float64]

_log = logging.getLogger(__name__)

RATIO_METRICS = ("mean", "D98", "D50", "D2", "max")
"""What is told of a quantity in which fractions do not add up, unless something else is asked for."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A plan: what is delivered, and what it gives; immutable. Values are course totals on the whole dose grid.

    Structures are seen whole, without overlap; the first scenario is the one reported. A quantity is asked for by
    name, or as an instance when its options are not the default ones; a name means the instance of the goals when
    they hold exactly one of that name.

    Parameters
    ----------
    x : array of shape (count,)
        Variables of the model; kept on the host in float64, read-only.
    model : ForwardModel
        The unrestricted model.
    patient : Patient
        Whose structures are judged.
    fractions : int
        Number of fractions, >= 1.
    goals : tuple of Goal
        What it was optimised for.
    constraints : tuple of Constraint
        What it had to keep.
    solution : Solution, optional
        How the solver ended.
    given_beams : Beams, optional
        Beams to show where the model does not know its own.
    normalization : str, optional
        What it was scaled to, in words.
    background : array of shape (nz, ny, nx), optional
        Dose that was there already when it was optimised, a course total on the dose grid [Gy]; see `total`.
    solver : Solver, optional
        What optimised it.
    robust : "composite", optional
        How it was optimised over scenarios, beside what its goals say.

    Raises
    ------
    InputError
        The number of variables is wrong, or one is NaN, infinite or out of bounds (a negative weight).

    >>> import numpy as np
    >>> from radplan import Dij, evaluate, load_patient
    >>> patient = load_patient("box")
    >>> dij = Dij.from_matrices({"physical_dose": np.full((patient.ct.grid.size, 1), 0.5)}, patient.ct.grid)
    >>> plan = evaluate(dij, [2.0], patient, fractions=30)
    >>> float(plan["physical_dose"].max())  # 30 fractions x 2 weights x 0.5 Gy
    30.0
    >>> plan = plan.scaled("OuterTarget", D95=60.0)
    >>> plan.x.tolist(), plan.metrics(names=["Dmean"])["OuterTarget"]
    ([4.0], {'Dmean': 60.0})
    """

    x: Floats
    model: ForwardModel
    patient: Patient
    fractions: int
    goals: tuple[Goal, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    solution: Solution | None = None
    given_beams: Beams | None = None
    normalization: str | None = None
    background: NDArray[Any] | None = None
    solver: Solver | None = None
    robust: str | None = None

    def __post_init__(self) -> None:
        if self.fractions < 1 or int(self.fractions) != self.fractions:
            raise InputError(f"fractions must be a whole number >= 1, got {self.fractions!r}")
        object.__setattr__(self, "x", checked_variables(self.x, self.model))
        object.__setattr__(self, "fractions", int(self.fractions))

    def __repr__(self) -> str:
        return f"Plan({self.caption()})"

    def _repr_html_(self) -> str:
        return self.metrics(self.prescribed)._repr_html_()

    @property
    def beams(self) -> Beams | None:
        """The beams, where they are known."""
        if self.given_beams is not None or not isinstance(self.model, Dij):
            return self.given_beams
        return self.model.beams

    @property
    def isocenter(self) -> Floats:
        """World position (x, y, z) [mm]: of the first beam, else the middle of the targets, else of the body."""
        if self.beams is not None:
            return np.asarray(self.beams[0].isocenter, dtype=np.float64)
        names = self.patient.target_names
        parts = [self.patient.structures[name] for name in names] or [self.patient.external]
        return np.asarray(np.concatenate([part.grid.points(part.voxels) for part in parts]).mean(axis=0))

    def __getitem__(self, quantity: str | Quantity) -> NDArray[Any]:
        """Return the course total of a quantity on the dose grid, (nz, ny, nx); 0 where nothing is calculated."""
        return self._cube(self._voxel_values(quantity))

    @property
    def total(self) -> NDArray[Any]:
        """Physical dose of this plan and of its background, (nz, ny, nx) [Gy]; all other members leave that out."""
        dose = self["physical_dose"]
        return dose if self.background is None else dose + self.background

    def per_beam(self, quantity: str | Quantity = "physical_dose") -> tuple[NDArray[Any], ...]:
        """Return the course total that each beam gives alone, one cube (nz, ny, nx) per beam.

        The sum over beams is the total for quantities that are linear in the weights, not for the others.

        Raises
        ------
        InputError
            The model does not know which variable belongs to which beam.
        """
        model = self.model.original if isinstance(self.model, SavedModel) else self.model
        if not isinstance(model, Dij) or model.beam_index is None:
            raise InputError("cubes per beam need a Dij with a beam_index: give one to Dij.from_matrices")
        index = np.asarray(model.beam_index)
        x = [np.where(index == beam, self.x, 0.0) for beam in range(int(index.max()) + 1)]
        bound = self.quantity(quantity)
        return tuple(self._cube(self._evaluated(bound, part)) for part in x)

    def quantity(self, quantity: str | Quantity) -> BoundQuantity:
        """Return what a name or an instance stands for in this plan, bound to its model."""
        if isinstance(quantity, Quantity):
            return self._resolver.get(quantity)
        terms: tuple[Goal | Constraint, ...] = (*self.goals, *self.constraints)
        held = {t.quantity for t in terms if isinstance(t.quantity, Quantity) and t.quantity.name == quantity}
        if len(held) > 1:
            raise InputError(
                f"the goals hold {len(held)} instances of {quantity!r}; ask for one of them, not for the name"
            )
        return self._resolver.get(held.pop() if held else floored(quantity, self._floor, self.model.images))

    @cached_property
    def prescribed(self) -> str:
        """Name of the quantity that the patient's prescription means: see `prescribed_quantity`."""
        return prescribed_quantity(self.goals, self.patient.target_names, self.model)

    def is_prescribed(self, quantity: str | Quantity) -> bool:
        """Whether it can be compared with the prescription."""
        name = self.quantity(quantity).name
        return name == self.prescribed or (self.model.radiation == "photons" and name == "physical_dose")

    def told(self, more: Sequence[str] | None = None) -> tuple[Quantity, ...]:
        """Return the quantities that tables and files tell of: the prescribed one first, each once.

        They are physical dose, those of the goals, and those asked for; where nothing is asked for, a plan of ions also
        has RBE-weighted dose, LET, and RBE where that differs between voxels.

        Parameters
        ----------
        more : sequence of str, optional
            Names asked for.

        Raises
        ------
        InputError
            Two quantities of one name with different options.
        """
        own: list[str] = []
        if self.model.radiation != "photons":
            own += ["rbe_x_dose"] * has_biology(self.model) + ["let"] * ("let_dose" in self.model.images)
            own += ["rbe"] * ("alpha_dose" in self.model.images)
        wished = [self.prescribed, "physical_dose", *(goal.quantity for goal in self.goals)]
        found = dict.fromkeys(self.quantity(entry).quantity for entry in (*wished, *(own if more is None else more)))
        names = [quantity.name for quantity in found]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise InputError(
                f"{' and '.join(map(repr, twice))} is asked for with different options, which tables and files cannot "
                "tell apart: use one instance, or register the other under a name of its own"
            )
        return tuple(found)

    def is_additive(self, quantity: str | Quantity) -> bool:
        """Whether fractions add up in it."""
        return self.quantity(quantity).additive

    def unit(self, quantity: str | Quantity) -> str:
        """Return the unit of its values."""
        return self.quantity(quantity).unit

    def structure_values(self, quantity: str | Quantity, structure: str) -> tuple[Floats, Floats]:
        """Return course totals and weights, (m,) each, at the points where a whole structure is judged.

        These are the voxels it is drawn on, which are finer than dose voxels: see `structure_points`; values between
        dose voxels are trilinear among those where the quantity is defined. The external contour, and every structure
        of a patient with ``membership="nearest"``, is judged at the dose voxels themselves.

        Of ratios to dose (LET, RBE), points below the dose they are defined from (their floor) are left out.
        """
        key = self.quantity(quantity).quantity, structure
        if key not in self._sampled:
            self._sampled[key] = self._points_of(quantity, structure)
        return self._sampled[key]

    def _ranked(self, quantity: str | Quantity, structure: str) -> tuple[Floats, Floats]:
        """Return `structure_values`, ascending: sorted once, so that the sorts of metrics and curves cost nothing."""
        key = self.quantity(quantity).quantity, structure
        if key not in self._sorted:
            values, weights = self.structure_values(quantity, structure)
            order = np.argsort(values, kind="stable")
            self._sorted[key] = values[order], weights[order]
        return self._sorted[key]

    def _points_of(self, quantity: str | Quantity, structure: str) -> tuple[Floats, Floats]:
        grid, judged = self.model.grid, self.patient.structures[structure]
        voxels, shares = self.patient.structure_weights(structure, grid)
        fine = self.patient.membership == "volume" and judged.role != "external"
        index, weights = structure_points(judged, grid) if fine else (np.zeros((0, 3)), np.asarray(shares))

        def read(cube: Floats, known: NDArray[np.bool_]) -> Floats:
            return sample(cube, index, known) if fine else cube.ravel()[voxels].astype(np.float64)

        known = self._cube(np.ones(np.size(self.model.voxels), dtype=bool))
        meant = self.quantity(quantity).quantity
        if not meant.ratio:
            return read(self[quantity], known), weights / weights.sum()
        dose, floor = self["physical_dose"], vars(meant)["floor"] * self.fractions
        held = read(dose, known) >= floor
        return read(self[quantity], known & (dose >= floor))[held], weights[held]

    def metrics(
        self,
        quantity: str | Quantity = "physical_dose",
        structures: Sequence[str] | None = None,
        names: Sequence[str] | None = None,
    ) -> MetricsTable:
        """Return structure -> metric -> value: a dict that a notebook shows as a table, `to_frame` with pandas.

        Parameters
        ----------
        quantity : str or Quantity
            What is judged.
        structures : sequence of str, optional
            Which; all that have voxels on the dose grid and are not ignored otherwise.
        names : sequence of str, optional
            Metrics as `radplan.analysis.metrics.metric` reads them; a usual choice for targets and organs otherwise,
            where targets of a patient with a prescription also get coverage and the Paddick index.
        """
        table: dict[str, dict[str, float]] = {}
        for name in self._judged(structures):
            values, weights = self._ranked(quantity, name)
            if values.size == 0:
                continue
            structure = self.patient.structures[name]
            usual: Sequence[str] = TARGET_METRICS if structure.role == "target" else ORGAN_METRICS
            usual = usual if self.is_additive(quantity) else RATIO_METRICS
            volume = structure.volume / 1000.0
            table[name] = {m: metric(m, values, weights, volume) for m in (usual if names is None else names)}
            level = self.patient.prescription
            if names is None and structure.role == "target" and level is not None and self.is_prescribed(quantity):
                hot = np.count_nonzero(self._voxel_values(quantity) >= level) * self.model.grid.voxel_volume / 1000.0
                table[name] |= coverage(values, weights, volume, level, hot)
        return MetricsTable(table, f"{self.title(quantity)} [{self.unit(quantity)}], {self.caption()}")

    def dvh(
        self, quantity: str | Quantity = "physical_dose", structures: Sequence[str] | None = None
    ) -> dict[str, DVH]:
        """Return the cumulative DVH of each structure, all read at the same levels."""
        values = {name: self._ranked(quantity, name) for name in self._judged(structures)}
        values = {name: pair for name, pair in values.items() if pair[0].size}
        if not values:
            raise InputError(f"no structure of {self.patient.name!r} has voxels to draw a DVH from")
        levels = common_levels({name: pair[0] for name, pair in values.items()})
        kind = self.quantity(quantity)
        return {
            name: DVH(
                structure=name,
                quantity=kind.name,
                unit=kind.unit,
                levels=levels,
                percent=cumulative_dvh(*pair, levels),
                volume=self.patient.structures[name].volume / 1000.0,
            )
            for name, pair in values.items()
        }

    def scaled(self, structure: str, quantity: str | Quantity = "physical_dose", **level: float) -> Plan:
        """Return the plan with all variables multiplied so that one metric of a structure takes a level.

        Weights that end above zero and below the least that the machine delivers are told as a warning;
        `radplan.plan.deliverable_at` takes a plan to a level without such.

        Parameters
        ----------
        structure : str
            Where.
        quantity : str or Quantity
            What is judged. For images of a linear model one division does it; for others (RBE-weighted dose) the
            factor is searched for, to 1e-6.
        **level : float
            Exactly one metric in the quantity's unit, as in ``D95=50.0``, ``Dmean=60.0``, ``D0_1cc=45.0``.

        Raises
        ------
        InputError
            Not one metric, a share of volume (V20Gy, HI), a level that is not positive, or a model that is not linear.
        CalculationError
            The metric is zero, or the scaled variables would leave their bounds.
        """
        name, wanted = self._one_level(level)
        factor = self.factor(structure, quantity, **level)
        x = self.x * factor
        lower, upper = variable_bounds(self.model)
        if np.any(x > upper) or np.any(x < lower):
            raise CalculationError(
                f"scaling by {factor:.4g} to bring {name} of {structure!r} to {wanted:g} takes variables out of their "
                "bounds; optimise again with a higher reference"
            )
        few = np.count_nonzero((x > 0.0) & (x < variable_minimum(self.model) * (1.0 - 1e-9)))
        if few:
            _log.warning(
                "%d of %d weights, scaled by %.4g, lie below the least that the machine delivers: "
                "radplan.plan.deliverable_at brings %s of %r to %g without such",
                few, x.size, factor, name, structure, wanted,
            )  # fmt: skip
        return replace(
            self, x=x, normalization=f"{structure} {name.replace('_', '.')} = {wanted:g} {self.unit(quantity)}"
        )

    def factor(self, structure: str, quantity: str | Quantity = "physical_dose", **level: float) -> float:
        """Return the factor on all variables that brings one metric of a structure to a level; see `scaled`."""
        name, wanted = self._one_level(level)
        kind = self.quantity(quantity)
        if not kind.additive:
            raise InputError(f"{kind.name} does not grow with the weights; scale a dose instead")
        now = self._at(structure, quantity, name, 1.0)
        if not now > 0:
            raise CalculationError(f"{name} of {structure!r} is {now:g}: no factor brings it to {wanted:g}")
        if kind.direct:
            return wanted / now
        return find_factor(lambda f: self._at(structure, quantity, name, f), wanted, now, f"{name} of {structure!r}")

    def title(self, quantity: str | Quantity) -> str:
        """Return what axes and tables call a quantity."""
        return self.quantity(quantity).quantity.title

    def caption(self) -> str:
        """Return one line that says what plan this is: case, machine, beams, fractions, normalisation."""
        machine = self.model.machine if isinstance(self.model, Dij | SavedModel) else None
        parts = [self.patient.name, machine or self.model.radiation]
        if self.beams is not None:
            parts.append(f"{len(self.beams)} beam{'s' if len(self.beams) > 1 else ''}")
        parts.append(f"{self.fractions} fraction{'s' if self.fractions > 1 else ''}")
        parts.append(self.normalization or "as optimised")
        return " · ".join(parts)

    @cached_property
    def _floor(self) -> float | None:
        return dose_floor(self.patient, self.fractions)

    @cached_property
    def _resolver(self) -> QuantityResolver:
        return QuantityResolver(self.model)

    @cached_property
    def _values(self) -> dict[Quantity, NDArray[Any]]:
        """Course totals on the model's voxels, kept per quantity for as long as the plan lives."""
        return {}

    @cached_property
    def _sorted(self) -> dict[tuple[Quantity, str], tuple[Floats, Floats]]:
        """What `_ranked` has sorted."""
        return {}

    @cached_property
    def _sampled(self) -> dict[tuple[Quantity, str], tuple[Floats, Floats]]:
        """Values and weights of the structures, kept for as long as the plan lives."""
        return {}

    def _voxel_values(self, quantity: str | Quantity) -> NDArray[Any]:
        bound = self.quantity(quantity)
        if bound.quantity not in self._values:
            self._values[bound.quantity] = self._evaluated(bound, self.x)
        return self._values[bound.quantity]

    def _evaluated(self, bound: BoundQuantity, x: Floats) -> NDArray[Any]:
        """Course totals (n,) of a quantity on the model's voxels in the first scenario."""
        values: NDArray[Any] = to_numpy(bound(on_device(x, self.model)))[0]
        return values * self.fractions if bound.additive else values

    def _cube(self, values: NDArray[Any]) -> NDArray[Any]:
        cube = np.zeros(self.model.grid.size, dtype=values.dtype)
        cube[np.asarray(self.model.voxels)] = values
        return cube.reshape(self.model.grid.shape)

    def _at(self, structure: str, quantity: str | Quantity, name: str, factor: float) -> float:
        """One metric of a structure with all variables multiplied by a factor."""
        if factor == 1.0:
            values, weights = self.structure_values(quantity, structure)
        else:
            values, weights = replace(self, x=self.x * factor).structure_values(quantity, structure)
        return metric(name, values, weights, self.patient.structures[structure].volume / 1000.0)

    def _one_level(self, level: Mapping[str, float]) -> tuple[str, float]:
        if len(level) != 1:
            raise InputError(f"scale to exactly one metric, as in scaled('PTV', D95=50.0); got {sorted(level)}")
        ((name, wanted),) = level.items()
        if not is_level(name):
            raise InputError(f"{name} does not grow with the dose; scale to one in its unit, such as D95 or Dmean")
        if not (is_number(wanted) and np.isfinite(wanted) and wanted > 0):
            raise InputError(f"the level of {name} must be positive and finite, got {wanted!r}")
        if not self.model.linear:
            raise InputError("only a plan of a linear model can be scaled; scale the monitor units of this one instead")
        return name, float(wanted)

    def _judged(self, structures: Sequence[str] | None) -> list[str]:
        """Names asked for, checked; or all that are not ignored and meet the dose grid."""
        if structures is not None:
            return [self.patient.structures[name].name for name in structures]
        return list(self._on_grid)

    @cached_property
    def _on_grid(self) -> tuple[str, ...]:
        """Names of the structures that are not ignored and meet the dose grid; the others are told."""
        known = [s for s in self.patient.structures.values() if s.role != "ignored" and s.voxels.size]
        met = tuple(s.name for s in known if np.any(self.model.grid.nearest(s.grid.points(s.voxels)) >= 0))
        for name in (s.name for s in known if s.name not in met):
            _log.warning("structure %r lies outside the dose grid and is not judged", name)
        return met
