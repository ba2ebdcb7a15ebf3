"""Recipes: helper structures of a site, made from text in the structure algebra.

A helper is left out where what it is made of is not drawn, and where too little of it is left. What is taken away
(``- (PTV_High + 6 mm)``) or added (``| PTV_Low``) may be missing; what a helper starts from may not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, get_args

from radplan.errors import InputError, UnknownNameError
from radplan.patient import Patient
from radplan.patient.expressions import Combined, Expression, Moved, Named, Ring, parse_expression
from radplan.patient.structures import Role

LEAST_VOLUME = 0.3
"""A helper below this volume is left out [cm3]."""
LEAST_SHARE = 0.05
"""So is what is left of an organ outside the targets below this share of it [1]."""


@dataclass(frozen=True)
class Helper:
    """One helper structure.

    Parameters
    ----------
    name : str
        Its name; a leading z marks what serves planning alone (TG-263).
    expression : str
        What it is made of, see `radplan.patient.expressions`.
    role : str
        ``"oar"`` or ``"target"``.
    priority : int
        Rank in overlaps: helpers of organs as organs (2), never below the external contour, which would swallow them.

    >>> Helper("zRing", "ring(PTV, 2 mm, 30 mm) & External").names
    ('PTV', 'External')
    """

    name: str
    expression: str
    role: Role = "oar"
    priority: int = 2

    def __post_init__(self) -> None:
        if self.role not in get_args(Role):
            raise UnknownNameError("role of a helper structure", self.role, get_args(Role))
        if self.role == "oar" and not 2 <= self.priority < 3:
            raise InputError(f"helper {self.name!r}: organs have priority 2, got {self.priority}")
        parse_expression(self.expression)

    @property
    def names(self) -> tuple[str, ...]:
        """The structures it is made of."""
        return parse_expression(self.expression).names

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> tuple[Helper, ...]:
        """Return the helpers of an entry: one, or one for each organ of ``each``, whose name replaces ``{organ}``."""
        known = ("name", "expression", "role", "priority", "each")
        for key in spec:
            if key not in known:
                raise UnknownNameError("key of a helper structure", str(key), known)
        rest = {key: spec[key] for key in ("role", "priority") if key in spec}
        organs = spec.get("each") or [""]
        return tuple(
            cls(spec["name"].replace("{organ}", organ), spec["expression"].replace("{organ}", organ), **rest)
            for organ in organs
        )


@dataclass(frozen=True)
class Prepared:
    """A patient with helpers.

    Parameters
    ----------
    patient : Patient
        With the helpers that could be made.
    made : tuple of str
        Their names.
    left_out : mapping of str to str
        Helpers that were not made, and why.
    """

    patient: Patient
    made: tuple[str, ...]
    left_out: Mapping[str, str]


def with_helpers(patient: Patient, helpers: Sequence[Helper]) -> Prepared:
    """Return the patient with helper structures, made in order; later ones may be made of earlier ones.

    Parameters
    ----------
    patient : Patient
        With canonical names.
    helpers : sequence of Helper
        The recipe.

    >>> from radplan.patient.phantoms import phantom
    >>> found = with_helpers(phantom("box"), [Helper("zRing", "ring(OuterTarget, 3 mm, 9 mm) - (Rectum + 2 mm)")])
    >>> found.made
    ('zRing',)
    """
    made: list[str] = []
    left_out: dict[str, str] = {}
    for helper in helpers:
        if helper.name in patient.structures:
            left_out[helper.name] = "the patient has a structure of that name"
            continue
        drawn = {name for name, structure in patient.structures.items() if structure.voxels.size}
        kept = _without_missing(parse_expression(helper.expression), drawn | {patient.external.name})
        if kept is None:
            left_out[helper.name] = f"{', '.join(n for n in helper.names if n not in drawn)} not drawn"
            continue
        structures = {**patient.structures, patient.external.name: patient.external}
        shape = replace(kept.evaluate(structures), name=helper.name)
        volume = shape.volume / 1000.0
        whole = structures[kept.names[0]].volume / 1000.0
        if volume < LEAST_VOLUME or (isinstance(kept, Combined) and kept.sign == "-" and volume < LEAST_SHARE * whole):
            left_out[helper.name] = f"{volume:.2f} cm3 are left"
            continue
        patient = patient.with_structure(helper.name, shape, role=helper.role, priority=helper.priority)
        made.append(helper.name)
    return Prepared(patient, tuple(made), left_out)


def _without_missing(expression: Expression, drawn: set[str]) -> Expression | None:
    """Return an expression without the parts that are not drawn, None where nothing is left to start from."""
    if isinstance(expression, Named):
        return expression if expression.name in drawn else None
    if isinstance(expression, Moved | Ring):
        inner = _without_missing(expression.inner, drawn)
        return None if inner is None else replace(expression, inner=inner)
    if not isinstance(expression, Combined):
        raise InputError(f"a recipe cannot hold {expression!r}")
    left, right = _without_missing(expression.left, drawn), _without_missing(expression.right, drawn)
    if left is not None and right is not None:
        return replace(expression, left=left, right=right)
    if expression.sign == "-":
        return left
    return (left or right) if expression.sign in "|^" else None
