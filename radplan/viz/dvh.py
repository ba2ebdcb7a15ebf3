"""The dose-volume histogram as a figure."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from radplan.analysis.metrics import mean
from radplan.plan import Plan
from radplan.viz.palette import structure_colors

_WIDTHS = {"target": 2.4, "oar": 1.8, "external": 1.2}


def draw_dvh(plan: Plan, quantity: str = "physical_dose", structures: Sequence[str] | None = None) -> Figure:
    """Cumulative DVH of every structure: level on the course [unit] against volume [%], with the prescription.

    Parameters
    ----------
    plan : Plan
        What to draw.
    quantity : str
        What is on the level axis.
    structures : sequence of str, optional
        Which, in this order; all but ignored ones otherwise.

    >>> from radplan.testing import small_plan
    >>> draw_dvh(small_plan()).axes[0].get_ylabel()
    'Volume [%]'
    """
    curves = plan.dvh(quantity, structures)
    colors = structure_colors(plan.patient.structures)
    figure = Figure(figsize=(9.0, 5.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name, curve in curves.items():
        structure = plan.patient.structures[name]
        average = mean(*plan.structure_values(quantity, name))
        axes.plot(
            curve.levels,
            curve.percent,
            color=colors[name],
            linewidth=_WIDTHS.get(structure.role, 1.5),
            linestyle="--" if structure.role == "external" else "-",
            label=f"{name}  (mean {average:.1f} {curve.unit}, {curve.volume:.0f} cm³)",
        )
    unit = next(iter(curves.values())).unit
    prescription = plan.patient.prescription
    if prescription is not None and plan.is_dose(quantity):
        axes.axvline(prescription, color="black", linewidth=1.0, linestyle=":", label=f"prescription {prescription:g} Gy")
        axes.axhline(95.0, color="black", linewidth=0.6, linestyle=":")
        axes.annotate("95 %", (0, 95.0), xytext=(3, -10), textcoords="offset points", fontsize=8)
    top = max(float(curve.levels[-1]) for curve in curves.values())
    axes.set_xlim(0.0, top)
    axes.set_ylim(0.0, 102.0)
    axes.set_yticks(range(0, 101, 10))
    axes.set_xlabel(f"{plan.title(quantity)} of the course [{unit}]" if plan.is_additive(quantity) else f"{plan.title(quantity)} [{unit}]")
    axes.set_ylabel("Volume [%]")
    axes.grid(color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    axes.set_title(plan.caption(), fontsize=10)
    return figure
