"""Figure of a choice of beams: what each gained, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from radplan.plan.angles import BeamSelection

_COLOURS = ("#7f8c8d", "#b9770e", "#1e8449")


def draw_beam_gain(selection: BeamSelection, beside: Mapping[str, Mapping[int, float]] | None = None) -> Figure:
    """Draw the cost against the number of beams with the one added to each, and the directions of all in the end.

    Parameters
    ----------
    selection : BeamSelection
        As `radplan.select_beams` gives it.
    beside : mapping of str to mapping of int to float, optional
        Costs of other sets of beams by their number, such as of beams at equal distances, by what they are called.

    Returns
    -------
    matplotlib.figure.Figure

    >>> draw_beam_gain(selection).savefig("beams.png")  # doctest: +SKIP
    """
    figure = Figure(figsize=(10.0, 4.6), layout="constrained")
    left, right = figure.add_subplot(1, 2, 1), figure.add_subplot(1, 2, 2, projection="polar")
    _draw_costs(left, selection, beside or {})
    _draw_directions(right, selection)
    return figure


def _draw_costs(axes: Axes, selection: BeamSelection, beside: Mapping[str, Mapping[int, float]]) -> None:
    numbers = np.arange(1, len(selection.costs) + 1)
    axes.plot(numbers, selection.costs, "o-", color="#2471a3", label="chosen")
    for number, cost, angles in zip(numbers, selection.costs, selection.added, strict=True):
        axes.annotate(_told(angles), (number, cost), xytext=(6, 6), textcoords="offset points", fontsize=9)
    for (name, costs), colour in zip(beside.items(), _cycled(len(beside)), strict=True):
        axes.plot(list(costs), list(costs.values()), "s--", color=colour, markersize=5, label=name)
    axes.set_yscale("log")
    axes.set(xlabel="Number of beams", ylabel="Cost of the goals")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(color="0.88", linewidth=0.7, which="both")
    axes.set_axisbelow(True)
    axes.legend(frameon=False, fontsize=9)


def _draw_directions(axes: Axes, selection: BeamSelection) -> None:
    """Draw gantry angles as in a room seen from the foot of the couch: 0 above, clockwise."""
    axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
    axes.set_theta_direction(-1)  # type: ignore[attr-defined]
    first = selection.trials[0] if len(selection.trials[0]) > 1 else selection.trials[-1]
    axes.plot(
        [np.deg2rad(a[0]) for a in first], [1.0] * len(first), "o", color="0.75", markersize=5, label="candidates"
    )
    for number, angles in enumerate(selection.angles, start=1):
        around = np.deg2rad(angles[0])
        axes.plot([around, around], [0.0, 1.0], color="#2471a3", linewidth=2.0)
        axes.annotate(f"{number}", (around, 1.12), ha="center", va="center", fontsize=11, color="#2471a3")
    axes.set_ylim(0.0, 1.25)
    axes.set_yticks([])
    axes.set_title("Gantry angle [degree] of all beams", fontsize=10)


def _told(angles: Sequence[float]) -> str:
    return f"{angles[0]:g}°" + (f", couch {angles[1]:g}°" if angles[1] else "")


def _cycled(count: int) -> list[str]:
    return [_COLOURS[n % len(_COLOURS)] for n in range(count)]
