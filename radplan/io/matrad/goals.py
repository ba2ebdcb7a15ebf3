"""matRad's objectives as radplan's goals: ``cst{:,6}``, in today's form and in that of matRad 2."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from radplan.errors import FileError
from radplan.io.matrad.struct import Fields, cells, fields, number, text

logger = logging.getLogger(__name__)

_OBJECTIVES: dict[str, tuple[str, tuple[tuple[str, float], ...]]] = {
    "SquaredDeviation": ("squared_deviation", (("reference", 60.0),)),
    "SquaredOverdosing": ("squared_overdosing", (("reference", 30.0),)),
    "SquaredUnderdosing": ("squared_underdosing", (("reference", 60.0),)),
    "MeanDose": ("mean", (("reference", 0.0), ("form", 1.0))),
    "EUD": ("eud", (("reference", 0.0), ("exponent", 3.5))),
    "MaxDVH": ("max_dvh", (("reference", 30.0), ("volume", 95.0))),
    "MinDVH": ("min_dvh", (("reference", 60.0), ("volume", 95.0))),
}
"""matRad's class -> our objective and its parameters in matRad's order, with matRad's defaults."""

_BEFORE_MATRAD_3: dict[str, tuple[str, tuple[str, ...]]] = {
    "square deviation": ("SquaredDeviation", ("dose",)),
    "square overdosing": ("SquaredOverdosing", ("dose",)),
    "square underdosing": ("SquaredUnderdosing", ("dose",)),
    "mean": ("MeanDose", ()),
    "EUD": ("EUD", ("dose", "EUD")),
    "max DVH objective": ("MaxDVH", ("dose", "volume")),
    "min DVH objective": ("MinDVH", ("dose", "volume")),
}
"""`type` of an objective of matRad 2 -> class of today, and the fields that hold its parameters."""


def read_goals(path: Path, structure: str, entry: Any) -> list[dict[str, Any]]:
    """Return the goals in one ``cst{i,6}`` as plain data, doses as course totals [Gy].

    Volumes become fractions of 1, matRad's ``f_diff`` the form of a mean. A constraint or a robustness setting is left
    out with a warning: a plan file states them.

    Raises
    ------
    FileError
        When an objective is of an unknown kind, or a parameter or penalty is no number.
    """
    goals: list[dict[str, Any]] = []
    for item in cells(entry):
        if isinstance(item, np.ndarray) and item.dtype == object:
            goals += read_goals(path, structure, item)
            continue
        if isinstance(item, np.ndarray) and item.size == 0:
            continue
        goal = _read_goal(path, structure, fields(path, f"an objective of {structure}", item))
        if goal is not None:
            goals.append(goal)
    return goals


def _read_goal(path: Path, structure: str, objective: Fields) -> dict[str, Any] | None:
    if "className" in objective.names:
        written = text(objective["className"])
        kind = written.rpartition(".")[2].removeprefix("matRad_")
        values: Sequence[Any] = cells(objective["parameters"]) if "parameters" in objective.names else []
        is_constraint = "Constraints" in written
    else:
        written = text(objective["type"])
        kind, sources = _BEFORE_MATRAD_3.get(written, (written, ()))
        values = [objective[source] for source in sources]
        is_constraint = "constraint" in written
    if is_constraint:
        logger.warning("the constraint %s on %s is left out: state it in a plan file", written, structure)
        return None
    if kind not in _OBJECTIVES:
        expected = ", ".join([*_OBJECTIVES, *_BEFORE_MATRAD_3])
        logger.warning(
            "an objective on %s is of the unknown kind %r and is left out; known are %s", structure, written, expected
        )
        return None
    if "robustness" in objective.names and text(objective["robustness"]) not in ("", "none"):
        logger.warning(
            "the goal %s on %s asks for robustness %s, which is left out: state it in a plan file",
            written,
            structure,
            text(objective["robustness"]),
        )
    name, parameters = _OBJECTIVES[kind]
    return {
        "structure": structure,
        "objective": name,
        "parameters": _parameters(path, f"{written} of {structure}", parameters, values),
        "weight": number(path, f"the penalty of {written} of {structure}", objective["penalty"]),
        "quantity": "physical_dose",
    }


def _parameters(
    path: Path, where: str, expected: tuple[tuple[str, float], ...], values: Sequence[Any]
) -> dict[str, float | str]:
    parameters: dict[str, float | str] = {}
    for position, (key, default) in enumerate(expected):
        value = values[position] if position < len(values) else default
        if key == "form":
            parameters[key] = _form(path, where, value)
            continue
        given = default if _is_blank(value) else number(path, f"{key} in {where}", value)
        parameters[key] = given / 100.0 if key == "volume" else given
    return parameters


def _is_blank(value: Any) -> bool:
    """Return whether matRad 2 left the field open: empty or NaN."""
    array = np.asarray(value)
    return array.size == 0 or (array.dtype.kind == "f" and bool(np.isnan(array).all()))


def _form(path: Path, where: str, value: Any) -> str:
    word = text(value).lower()
    if word in ("linear", "quadratic"):
        return word
    choice = number(path, f"f_diff in {where}", value)
    if choice not in (1.0, 2.0):
        raise FileError(path, f"f_diff in {where} must be 1 (linear) or 2 (quadratic), got {choice:g}")
    return "linear" if choice == 1.0 else "quadratic"
