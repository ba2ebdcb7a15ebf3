"""Goals: what a plan should reach, one objective on one quantity in one structure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from numbers import Real
from typing import Any, Self

from radplan.errors import InputError, UnknownNameError
from radplan.optim.objectives import OBJECTIVES, Objective
from radplan.optim.robust import REDUCTIONS
from radplan.quantities.base import QUANTITIES, Quantity, voxel_fields
from radplan.registry import checked_options

_GOAL_KEYS = ("structure", "objective", "parameters", "weight", "quantity", "robust", "tail")


@dataclass(frozen=True)
class Goal:
    r"""One term ``weight * objective(quantity in structure)`` of the cost.

    Parameters
    ----------
    structure : str
        Name of the structure, seen after overlap by priority among all structures that have goals.
    objective : Objective
        The penalty; its parameters are course totals in the quantity's unit.
    weight : float
        Importance, >= 0.
    quantity : str or Quantity
        Name of a registered quantity or image, or a quantity with options of its own.
    robust : str
        How the scenarios of the model are reduced: ``"nominal"`` (the first one alone), ``"expected"``, ``"worst"``
        (the objective's smooth maximum), ``"voxelwise_worst"`` or ``"voxelwise_best"`` (the objective of the worst or
        best value in each voxel), ``"cvar"`` (mean of the objective over the worst scenarios, of probability `tail`) or
        ``"variance"`` (the objective of expected values, and the variance of voxels); see `radplan.optim.robust`.
    tail : float
        Probability in (0, 1] that ``"cvar"`` averages over.

    Raises
    ------
    InputError
        When a value is of the wrong kind or outside its range.
    UnknownNameError
        When `robust` is no known reduction.

    >>> from radplan.optim.objectives import SquaredOverdosing
    >>> Goal("Core", SquaredOverdosing(25.0), weight=300).quantity
    'physical_dose'
    """

    structure: str
    objective: Objective
    weight: float = 1.0
    quantity: str | Quantity = "physical_dose"
    robust: str = "nominal"
    tail: float = 0.1

    def __post_init__(self) -> None:
        check_term(self, self.structure, self.objective, self.quantity)
        if not is_number(self.weight) or not 0 <= self.weight < math.inf:
            raise InputError(
                f"weight of the goal on {self.structure!r} must be a number >= 0 and finite, got {self.weight!r}"
            )
        object.__setattr__(self, "weight", float(self.weight))
        if self.robust not in REDUCTIONS:
            raise UnknownNameError("robust reduction", self.robust, REDUCTIONS)
        if not is_number(self.tail) or not 0.0 < self.tail <= 1.0:
            raise InputError(f"tail of the goal on {self.structure!r} must lie in (0, 1], got {self.tail!r}")
        object.__setattr__(self, "tail", float(self.tail))

    @property
    def label(self) -> str:
        """A short name for messages and reports, such as ``"Core: squared_overdosing of physical_dose"``."""
        return term_label(self.structure, self.objective, self.quantity)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Self:
        """Return the goal that plain data describes, as in a plan file.

        Parameters
        ----------
        spec : mapping
            ``structure``, ``objective`` (its registered name) and, where needed, ``parameters`` (a mapping),
            ``weight``, ``quantity`` (a name, or a mapping with ``name`` and ``parameters``), ``robust``, ``tail``.

        Raises
        ------
        UnknownNameError
            When a key, an objective, a parameter or a quantity is misspelt; names the nearest.
        InputError
            When something is missing or of the wrong kind.

        >>> Goal.from_spec({"structure": "Core", "objective": "mean", "weight": 2.0}).objective
        Mean(reference=0.0, form='linear')
        """
        where = f"goal on {spec.get('structure', '(no structure)')!r}"
        for key in spec:
            if key not in _GOAL_KEYS:
                raise UnknownNameError(f"key of the {where}", str(key), _GOAL_KEYS)
        for key in ("structure", "objective"):
            if key not in spec:
                raise InputError(f"the {where} lacks {key!r}: a goal states at least a structure and an objective")
        objective = objective_from_spec(spec["objective"], spec.get("parameters") or {})
        rest = {key: spec[key] for key in ("weight", "robust", "tail") if spec.get(key) is not None}
        if spec.get("quantity") is not None:
            rest["quantity"] = quantity_from_spec(spec["quantity"])
        return cls(spec["structure"], objective, **rest)

    def to_spec(self) -> dict[str, Any]:
        """Return plain data from which `from_spec` makes the goal again.

        An array-valued parameter is described by its shape, which `from_spec` refuses: a plan file cannot hold it.
        """
        spec: dict[str, Any] = {
            "structure": self.structure,
            "objective": self.objective.name,
            "parameters": self.objective.parameters(),
            "weight": self.weight,
            "quantity": quantity_to_spec(self.quantity),
        }
        if self.robust != "nominal":
            spec["robust"] = self.robust
        if self.robust == "cvar":
            spec["tail"] = self.tail
        return spec


def objective_from_spec(name: str, parameters: Mapping[str, Any]) -> Objective:
    """Return the registered objective `name` with its parameters, refusing those it does not have.

    >>> objective_from_spec("max_dvh", {"reference": 20.0, "volume": 0.3})
    MaxDVH(reference=20.0, volume=0.3)
    """
    if not isinstance(name, str):
        raise InputError(f"an objective is named by a word such as 'squared_deviation', got {name!r}")
    if not isinstance(parameters, Mapping):
        raise InputError(f"parameters of {name!r} must be a mapping such as {{'reference': 50.0}}, got {parameters!r}")
    cls = OBJECTIVES.get(name)
    return _made(cls, f"objective {name!r}", parameters, skip=())  # type: ignore[no-any-return]


def quantity_from_spec(spec: Any) -> str | Quantity:
    """Return the quantity a plan file asks for: its name, or an instance where options are given.

    >>> quantity_from_spec("physical_dose")
    'physical_dose'
    """
    if isinstance(spec, str | Quantity):
        return spec
    if not isinstance(spec, Mapping) or "name" not in spec:
        raise InputError(f"a quantity is a name, or a mapping with 'name' and 'parameters'; got {spec!r}")
    for key in spec:
        if key not in ("name", "parameters"):
            raise UnknownNameError("key of the quantity", str(key), ("name", "parameters"))
    cls = QUANTITIES.get(spec["name"])
    quantity: Quantity = _made(cls, f"quantity {spec['name']!r}", spec.get("parameters") or {}, skip=voxel_fields(cls))
    return quantity


def quantity_to_spec(quantity: str | Quantity) -> Any:
    """Return a name, or name and options, from which `quantity_from_spec` makes the quantity again."""
    if isinstance(quantity, str):
        return quantity
    held = voxel_fields(type(quantity))
    names = [field.name for field in _fields_of(type(quantity)) if field.name not in held]
    options = {name: quantity.__dict__[name] for name in names}
    return {"name": quantity.name, "parameters": options} if options else quantity.name


def is_number(value: object) -> bool:
    """Return whether something is a real number of any kind (a NumPy scalar, a fraction), and not true or false.

    >>> is_number(5), is_number(True), is_number("5")
    (True, False, False)
    """
    return isinstance(value, Real) and not isinstance(value, bool)


def check_term(owner: object, structure: object, objective: object, quantity: object) -> None:
    """Raise `InputError` unless the parts of a goal or constraint are of the right kinds."""
    kind = type(owner).__name__
    if not isinstance(structure, str) or not structure:
        raise InputError(f"{kind}: structure must be the name of a structure, got {structure!r}")
    if isinstance(objective, type):
        raise InputError(f"{kind} on {structure!r}: give an objective with its parameters, not the class {objective!r}")
    if not isinstance(objective, Objective):
        raise InputError(
            f"{kind} on {structure!r}: objective must be an Objective such as SquaredDeviation(50.0), got {objective!r}"
        )
    if not isinstance(quantity, str | Quantity) or not quantity:
        raise InputError(f"{kind} on {structure!r}: quantity must be a name or a Quantity instance, got {quantity!r}")


def term_label(structure: str, objective: Objective | str, quantity: str | Quantity) -> str:
    """Return how messages call a goal or a constraint, whose objective may be the name of a metric."""
    function = objective if isinstance(objective, str) else objective.name
    return f"{structure}: {function} of {quantity if isinstance(quantity, str) else quantity.name}"


def _made(cls: Any, what: str, parameters: Mapping[str, Any], skip: tuple[str, ...]) -> Any:
    known = {field.name: field for field in _fields_of(cls) if field.name not in skip}
    for key in parameters:
        if key not in known:
            raise UnknownNameError(f"parameter of the {what}", str(key), known)
    missing = [
        key
        for key, field in known.items()
        if key not in parameters and field.default is MISSING and field.default_factory is MISSING
    ]
    if missing:
        raise InputError(f"the {what} needs {', '.join(map(repr, missing))}; given: {dict(parameters)!r}")
    return cls(**dict.fromkeys(skip), **checked_options(cls, f"parameter of the {what}", parameters))


def _fields_of(cls: Any) -> Any:
    return fields(cls)
