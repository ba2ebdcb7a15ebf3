"""The dose-volume histogram as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from radplan.analysis.dvh import DVH
from radplan.analysis.metrics import mean
from radplan.plan import Plan, dvh_bands
from radplan.quantities.base import Quantity
from radplan.viz.canvas import figure_of, own_axes
from radplan.viz.palette import structure_colors

_WIDTHS = {"target": 2.4, "oar": 1.8, "external": 1.2}


def draw_dvh(
    plan: Plan,
    quantity: str | None = None,
    structures: Sequence[str] | None = None,
    beside: Mapping[str, DVH] | None = None,
    label: str = "beside",
    ax: Axes | None = None,
) -> Figure:
    """Cumulative DVH of every structure: level on the course [unit] against volume [%], with the prescription.

    Parameters
    ----------
    plan : Plan
        What to draw.
    quantity : str, optional
        What is on the level axis; the prescribed quantity otherwise.
    structures : sequence of str, optional
        Which, in this order; all but ignored ones otherwise.
    beside : mapping of str to DVH, optional
        Curves of another plan by structure, drawn dashed in the structure's colour.
    label : str
        What they are called.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a figure of its own is made otherwise.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, that of `ax` where it was given.

    >>> draw_dvh(plan).savefig("dvh.png")  # doctest: +SKIP
    """
    quantity = plan.prescribed if quantity is None else quantity
    curves = plan.dvh(quantity, structures)
    colors = structure_colors(plan.patient.structures)
    axes = own_axes((9.0, 5.6)) if ax is None else ax
    for name, curve in curves.items():
        structure = plan.patient.structures[name]
        average = mean(*plan.structure_values(quantity, name))
        axes.plot(
            curve.levels,
            curve.percent,
            color=colors[name],
            linewidth=_WIDTHS.get(structure.role, 1.5),
            label=f"{name}  (mean {average:.1f} {curve.unit}, {curve.volume:.0f} cm³)",
        )
    if len(plan.model.scenarios) > 1:
        _draw_bands(axes, plan, quantity, list(curves), colors)
    unit = next(iter(curves.values())).unit
    for name, curve in (beside or {}).items():
        if name in curves:
            axes.plot(curve.levels, curve.percent, color=colors[name], linewidth=1.3, linestyle=(0, (4, 2)))
    if beside:
        axes.plot([], [], color="black", linewidth=1.3, linestyle=(0, (4, 2)), label=f"dashed: {label}")
    top = max(float(curve.levels[-1]) for curve in curves.values())
    prescription = plan.patient.prescription if plan.is_prescribed(quantity) else None
    if prescription is not None:
        _mark_prescription(axes, prescription, unit)
        top = max(top, 1.02 * prescription)
    axes.set_xlim(0.0, top)
    axes.set_ylim(0.0, 102.0)
    axes.set_yticks(range(0, 101, 10))
    course = " of the course" if plan.is_additive(quantity) else ""
    axes.set_xlabel(f"{plan.title(quantity)}{course} [{unit}]")
    axes.set_ylabel("Volume [%]")
    axes.grid(color="0.88", linewidth=0.7)
    axes.set_axisbelow(True)
    if ax is not None:
        axes.legend(fontsize=8, frameon=False)
        return figure_of(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False)
    figure = figure_of(axes)
    figure.suptitle(plan.caption(), fontsize=11)
    return figure


def _draw_bands(
    axes: Axes, plan: Plan, quantity: str | Quantity, names: Sequence[str], colors: Mapping[str, Any]
) -> None:
    """Fill between the smallest and the largest volume of any scenario at each level."""
    for name, band in dvh_bands(plan, quantity, names).items():
        axes.fill_between(band.nominal.levels, band.lower, band.upper, color=colors[name], alpha=0.2, linewidth=0.0)
    count = len(plan.model.scenarios)
    axes.fill_between([], [], [], color="black", alpha=0.2, linewidth=0.0, label=f"bands: {count} scenarios")


def _mark_prescription(axes: Axes, prescription: float, unit: str) -> None:
    """Add lines at the prescription and at 95 % of the volume, and a second axis in percent of the prescription."""
    style: dict[str, Any] = {"color": "black", "linestyle": ":"}
    axes.axvline(prescription, linewidth=1.2, label=f"prescription {prescription:g} {unit}", **style)
    axes.axhline(95.0, linewidth=0.7, **style)
    place = {"xytext": (0, -10), "textcoords": "offset points", "fontsize": 8, "ha": "right"}
    axes.annotate("95 % of the volume", (0.85 * prescription, 95.0), **place)  # type: ignore[arg-type]

    def to_percent(level: Any) -> Any:
        return level * (100.0 / prescription)

    def to_level(share: Any) -> Any:
        return share * (prescription / 100.0)

    percent = axes.secondary_xaxis("top", functions=(to_percent, to_level))
    percent.set_xlabel("[% of prescription]", fontsize=9)
    percent.tick_params(labelsize=8)
