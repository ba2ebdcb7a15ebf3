"""Goals as rows of fields: structure, objective, level, what else it needs, weight and quantity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import panel as pn

from radplan.errors import InputError
from radplan.optim import OBJECTIVES
from radplan.quantities import QUANTITIES

PRESCRIBED = "as prescribed"
"""Stands for the quantity of the prescription."""

_OBJECTIVES = ("squared_deviation", "squared_overdosing", "squared_underdosing", "mean", "eud", "max_dvh", "min_dvh")
_MORE = {"eud": "exponent=8", "max_dvh": "volume=0.3", "min_dvh": "volume=0.95", "mean": "form=linear"}


class GoalRow:
    """The fields of one goal.

    Parameters
    ----------
    structures : sequence of str
        Names to choose from.
    spec : mapping
        The goal as a plan file states it.
    """

    def __init__(self, structures: Sequence[str], spec: Mapping[str, Any]) -> None:
        parameters = dict(spec.get("parameters") or {})
        level = parameters.pop("reference", 0.0)
        objective = str(spec["objective"])
        known = [*_OBJECTIVES, *([] if objective in _OBJECTIVES else [objective])]
        quantity = spec.get("quantity") or PRESCRIBED
        self.rest = {key: spec[key] for key in ("robust", "tail") if key in spec}
        names = [*structures, *([] if spec["structure"] in structures else [spec["structure"]])]
        self.structure = pn.widgets.Select(name="structure", options=names, value=spec["structure"], width=150)
        self.objective = pn.widgets.Select(name="objective", options=known, value=objective, width=170)
        self.level = pn.widgets.FloatInput(name="level", value=float(level), start=0.0, width=90)
        self.more = pn.widgets.TextInput(name="more", value=_said(parameters), width=130, placeholder="volume=0.95")
        self.weight = pn.widgets.FloatInput(name="weight", value=float(spec.get("weight", 1.0)), start=0.0, width=90)
        options = [PRESCRIBED, *QUANTITIES.names()]
        self.quantity = pn.widgets.Select(
            name="quantity", options=options, value=quantity if quantity in options else PRESCRIBED, width=140
        )
        self.remove = pn.widgets.Button(name="remove", width=70, align="end")
        self.objective.param.watch(self._chosen, "value")
        self.layout = pn.Row(
            self.structure, self.objective, self.level, self.more, self.weight, self.quantity, self.remove
        )

    def spec(self) -> dict[str, Any]:
        """Return the goal as a plan file states it.

        Raises
        ------
        InputError
            When "more" is not written as ``name=value``.
        """
        given = {"reference": float(self.level.value), **_read(str(self.more.value))}
        known = OBJECTIVES.get(str(self.objective.value)).__dataclass_fields__  # type: ignore[attr-defined]
        parameters = {key: value for key, value in given.items() if key != "reference" or key in known}
        quantity = None if self.quantity.value == PRESCRIBED else self.quantity.value
        return {
            "structure": self.structure.value,
            "objective": self.objective.value,
            "parameters": parameters,
            "weight": float(self.weight.value),
            **({} if quantity is None else {"quantity": quantity}),
            **self.rest,
        }

    def _chosen(self, event: Any) -> None:
        self.more.value = _MORE.get(str(event.new), "")


class GoalRows:
    """All goals, with a button for one more."""

    def __init__(self) -> None:
        self.rows: list[GoalRow] = []
        self.structures: list[str] = []
        self.add = pn.widgets.Button(name="add a goal", width=120)
        self.add.on_click(lambda event: self.append())
        self.box = pn.Column(sizing_mode="stretch_width")
        note = pn.pane.Markdown(
            "Levels are course totals in the quantity's unit. *Plan* takes the goals as they stand here."
        )
        self.layout = pn.Column(note, self.box, self.add, sizing_mode="stretch_width")

    def fill(self, structures: Sequence[str], specs: Sequence[Mapping[str, Any]]) -> None:
        """Show goals of a case."""
        self.structures = list(structures)
        self.rows = [GoalRow(self.structures, spec) for spec in specs]
        self._lay_out()

    def append(self) -> None:
        """Add a goal to change.

        Raises
        ------
        InputError
            When no case is open.
        """
        if self.structures:
            plain = {
                "structure": self.structures[0],
                "objective": "squared_overdosing",
                "parameters": {"reference": 20.0},
            }
            self.rows.append(GoalRow(self.structures, plain))
            self._lay_out()

    def specs(self) -> list[dict[str, Any]]:
        """Return all goals as a plan file states them.

        Raises
        ------
        InputError
            When there is none, or one cannot be read.
        """
        if not self.rows:
            raise InputError("a plan needs a goal: add one")
        return [row.spec() for row in self.rows]

    def _lay_out(self) -> None:
        for row in self.rows:
            row.remove.on_click(lambda event, row=row: self._drop(row))
        self.box[:] = [row.layout for row in self.rows]

    def _drop(self, row: GoalRow) -> None:
        self.rows = [other for other in self.rows if other is not row]
        self.box[:] = [other.layout for other in self.rows]


def _said(parameters: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in parameters.items()
    )


def _read(text: str) -> dict[str, Any]:
    """Return what ``volume=0.95, form=linear`` says.

    >>> _read("volume=0.95, form=linear")
    {'volume': 0.95, 'form': 'linear'}
    """
    found: dict[str, Any] = {}
    for part in filter(None, (word.strip() for word in text.split(","))):
        key, sign, value = part.partition("=")
        if not sign or not value.strip():
            raise InputError(f"write what else an objective needs as volume=0.95, got {part!r}")
        try:
            found[key.strip()] = float(value)
        except ValueError:
            found[key.strip()] = value.strip()
    return found
