"""How a plan is delivered, as figures: leaves over the arc, monitor units and gantry speed over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.delivery.timing import segment_times
from radplan.errors import InputError
from radplan.io.staging import staged
from radplan.machines.limits import MachineLimits
from radplan.viz.apertures import draw_apertures
from radplan.viz.canvas import save_png

Floats = npt.NDArray[np.float64]

_FIRST, _SECOND, _OPEN = "#2b5c8a", "#b5532a", "#fff3d6"


def draw_leaf_motion(plan: DeliveryPlan | Sequence[TreatmentField], rows: int = 4) -> Figure:
    """Draw both ends of some leaf pairs over the control points of each field: what is open lies between them.

    Pairs shown are spread evenly over those that open anywhere; arcs are drawn over the gantry angle turned.

    Parameters
    ----------
    plan : DeliveryPlan or sequence of TreatmentField
        What to draw; fields without leaves are left out.
    rows : int
        Leaf pairs of a field, >= 1.

    Raises
    ------
    InputError
        When no field has leaves.
    """
    fields = [field for field in plan if field.leaf_boundaries is not None]
    if not fields:
        raise InputError("there are no leaves to draw")
    figure = Figure(figsize=(5.2 * len(fields) + 0.6, 1.7 * rows + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, len(fields), squeeze=False, sharex="col", sharey=True)
    for column, field in enumerate(fields):
        leaves = np.stack([point.leaves for point in field.points if point.leaves is not None])
        place, word = _along(field)
        chosen = _spread(leaves, rows)
        for row in range(rows):
            here = axes[row, column]
            if row >= chosen.size:
                here.axis("off")
                continue
            first, second = leaves[:, chosen[row], 0], leaves[:, chosen[row], 1]
            here.fill_between(place, first, second, color=_OPEN, linewidth=0)
            here.plot(place, first, color=_FIRST, linewidth=1.2, label="first bank")
            here.plot(place, second, color=_SECOND, linewidth=1.2, label="second bank")
            here.set_title(f"{field.name}, pair {chosen[row] + 1}", fontsize=9)
            here.grid(alpha=0.25)
            if column == 0:
                here.set_ylabel("position [mm]")
        axes[rows - 1, column].set_xlabel(word)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=8, loc="outside lower center", ncols=2)
    return figure


def draw_timing(plan: DeliveryPlan | Sequence[TreatmentField], limits: MachineLimits) -> Figure:
    """Draw dose rate, gantry speed and the fastest leaf of every segment over the time of delivery.

    Dashed lines are the limits of the machine.

    Parameters
    ----------
    plan : DeliveryPlan or sequence of TreatmentField
        What to draw.
    limits : MachineLimits
        Of the linac.
    """
    fields = tuple(plan)
    figure = Figure(figsize=(9.0, 7.0), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(3, 1, sharex=True)
    begin = 0.0
    rates = []
    for number, field in enumerate(fields):
        times = segment_times(field, limits)
        edges = begin + np.concatenate([[0.0], np.cumsum(times.seconds)])
        rate = 60.0 * np.divide(times.mu, times.seconds, out=np.zeros_like(times.mu), where=times.seconds > 0)
        color = (_FIRST, _SECOND)[number % 2]
        for here, values in zip(axes, (rate, times.gantry_speed, times.leaf_speed), strict=True):
            here.stairs(values, edges, color=color, linewidth=1.2, label=field.name)
        rates.append(limits.dose_rate(field.energy, field.fluence_mode))
        begin = float(edges[-1])
    labels = ("dose rate [MU/min]", "gantry speed [degree/s]", "fastest leaf [mm/s]")
    for here, label, limit in zip(axes, labels, (max(rates), limits.gantry_speed, limits.leaf_speed), strict=True):
        _limited(here, label, limit)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, fontsize=8, ncols=min(len(fields), 6), loc="outside lower center")
    axes[-1].set_xlabel("time [s]")
    total = sum(field.mu for field in fields)
    axes[0].set_title(f"{limits.name}: {total:.0f} MU in {begin:.0f} s", fontsize=10)
    return figure


def save_delivery_figures(plan: DeliveryPlan, limits: MachineLimits, folder: str | Path) -> tuple[Path, ...]:
    """Draw ``apertures.png``, ``leaf_motion.png`` and ``timing.png`` into a folder, made if need be.

    Parameters
    ----------
    plan : DeliveryPlan
        What to draw.
    limits : MachineLimits
        Of the linac.
    folder : path-like
        Where the figures go.
    """
    drawn: dict[str, Callable[[], Figure]] = {
        "apertures.png": lambda: draw_apertures(plan),
        "leaf_motion.png": lambda: draw_leaf_motion(plan),
        "timing.png": lambda: draw_timing(plan, limits),
    }
    with staged(folder, whole=False) as partial:
        for name, draw in drawn.items():
            save_png(draw(), partial / name)
    return tuple(Path(folder, name) for name in drawn)


def _limited(axes: Axes, label: str, limit: float) -> None:
    axes.axhline(limit, color="0.4", linestyle="--", linewidth=1.0)
    axes.set_ylim(0.0, 1.12 * limit)
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)


def _along(field: TreatmentField) -> tuple[Floats, str]:
    """Return where control points lie along the axis of a figure, and what the axis says."""
    turned = np.concatenate([[0.0], np.cumsum([segment.gantry_travel for segment in field.segments])])
    if field.technique == "arc":
        return np.abs(turned), f"gantry turned from {field.points[0].gantry:g} [degree]"
    return np.asarray([point.meterset for point in field.points]), "monitor units"


def _spread(leaves: Floats, count: int) -> npt.NDArray[np.int64]:
    """Return pairs spread evenly over those that open anywhere."""
    opened = np.flatnonzero((leaves[..., 1] - leaves[..., 0]).max(axis=0) > 2.0)
    if opened.size == 0:
        opened = np.arange(leaves.shape[1])
    places = np.unique(np.rint(np.linspace(0, opened.size - 1, count + 2)[1:-1]).astype(int))
    chosen: npt.NDArray[np.int64] = opened[places]
    return chosen
