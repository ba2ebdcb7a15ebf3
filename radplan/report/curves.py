"""Dose-volume histograms that one can hover, as Bokeh figures: of one plan, or of several beside each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bokeh.models import ColumnDataSource, HoverTool, Legend, LegendItem, Range1d, Span
from bokeh.plotting import figure

from radplan.analysis.dvh import DVH
from radplan.errors import InputError
from radplan.plan import Plan
from radplan.quantities.base import Quantity
from radplan.viz.palette import structure_colors

DASHES = ("solid", "dashed", "dotted", "dashdot", "dotdash")
"""Line of the first, second, ... plan."""

_POINTS = 251


def dvh_figure(
    plans: Plan | Mapping[str, Plan],
    quantity: str | Quantity | None = None,
    structures: Sequence[str] | None = None,
    width: int = 900,
    height: int = 460,
) -> Any:
    """Return cumulative DVHs as a Bokeh figure: hover reads them, a click on the legend hides a structure.

    Parameters
    ----------
    plans : Plan or mapping of str to Plan
        One plan, or several by name; structures of one name have one colour, plans differ by their dashes.
    quantity : str or Quantity, optional
        What is on the level axis; the prescribed quantity of the first plan otherwise.
    structures : sequence of str, optional
        Which; all but ignored ones otherwise.
    width, height : int
        Size [pixel]; the width follows the page.

    Raises
    ------
    InputError
        When there is no plan, or more than there are kinds of lines.

    >>> dvh_figure(plan)  # doctest: +SKIP
    """
    named = {"": plans} if isinstance(plans, Plan) else dict(plans)
    if not 1 <= len(named) <= len(DASHES):
        raise InputError(f"one to {len(DASHES)} plans can be drawn beside each other, got {len(named)}")
    first = next(iter(named.values()))
    quantity = first.prescribed if quantity is None else quantity
    curves = {label: plan.dvh(quantity, structures) for label, plan in named.items()}
    unit = first.unit(quantity)
    top = max(float(curve.levels[-1]) for table in curves.values() for curve in table.values())
    course = " of the course" if first.is_additive(quantity) else ""
    drawn = figure(
        height=height,
        width=width,
        sizing_mode="stretch_width",
        x_range=Range1d(0.0, top),
        y_range=Range1d(0.0, 102.0),
        x_axis_label=f"{first.title(quantity)}{course} [{unit}]",
        y_axis_label="Volume [%]",
        tools="pan,box_zoom,wheel_zoom,reset,save",
        toolbar_location="above",
    )
    drawn.toolbar.logo = None
    lines = _draw(drawn, named, curves)
    drawn.add_layout(Legend(items=lines, click_policy="hide", label_text_font_size="9pt"), "right")
    drawn.add_tools(
        HoverTool(
            tooltips=[("", "@name"), (unit, "@level{0.00}"), ("volume", "@percent{0.0} %  (@cc{0.0} cm³)")],
            line_policy="nearest",
            renderers=[line.renderers[0] for line in lines],
        )
    )
    prescription = first.patient.prescription if first.is_prescribed(quantity) else None
    if prescription is not None:
        drawn.add_layout(Span(location=prescription, dimension="height", line_color="black", line_dash="dotted"))
    return drawn


def curve_data(curve: DVH, name: str) -> dict[str, Any]:
    """Return the columns of one curve, (251,) each: level, volume in % and in cm3, and what it is called."""
    step = max(1, (curve.levels.size - 1) // (_POINTS - 1))
    kept = np.arange(0, curve.levels.size, step)
    return {
        "level": curve.levels[kept].astype(np.float32),
        "percent": curve.percent[kept].astype(np.float32),
        "cc": curve.cc[kept].astype(np.float32),
        "name": [name] * kept.size,
    }


def _draw(drawn: Any, plans: Mapping[str, Plan], curves: Mapping[str, Mapping[str, DVH]]) -> list[LegendItem]:
    lines = []
    for dash, (label, table) in zip(DASHES, curves.items(), strict=False):
        structures = plans[label].patient.structures
        colors = structure_colors(structures)
        for name, curve in table.items():
            said = f"{name} · {label}" if label else name
            line = drawn.line(
                "level",
                "percent",
                source=ColumnDataSource(curve_data(curve, said)),
                color="#" + "".join(f"{round(255 * v):02x}" for v in colors[name]),
                line_width=2.6 if structures[name].role == "target" else 1.8,
                line_dash=dash,
            )
            lines.append(LegendItem(label=said, renderers=[line]))
    return lines
