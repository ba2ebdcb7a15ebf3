"""Fluence maps of fields, as a film in the isocentre plane would show them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from radplan.delivery.fluence import FieldFluence, field_fluence
from radplan.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from radplan.recalc.recalculate import Recalculation


def draw_fluences(
    fluences: Mapping[str, FieldFluence] | Sequence[tuple[str, FieldFluence]], columns: int = 4
) -> Figure:
    """Return a figure with a panel per field: its fluence in monitor units of the open field.

    Parameters
    ----------
    fluences : mapping or sequence of (str, FieldFluence)
        Title of each panel, and its map.
    columns : int
        Panels beside each other.

    Raises
    ------
    InputError
        When there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = list(fluences.items()) if isinstance(fluences, Mapping) else list(fluences)
    if not shown:
        raise InputError("there is no fluence to draw")
    across = min(columns, len(shown))
    down = math.ceil(len(shown) / across)
    figure = Figure(figsize=(3.4 * across, 3.3 * down), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (title, fluence) in enumerate(shown):
        axes = figure.add_subplot(down, across, index + 1)
        half = 0.5 * fluence.pixel
        extent = (
            float(fluence.x[0] - half), float(fluence.x[-1] + half), float(fluence.y[0] - half),
            float(fluence.y[-1] + half),
        )  # fmt: skip
        image = axes.imshow(fluence.values, origin="lower", extent=extent, cmap="gray", vmin=0.0)
        axes.set_title(title, fontsize=9)
        axes.plot(0.0, 0.0, "+", color="tab:orange", markersize=8)
        axes.set_xlabel("collimator x [mm]", fontsize=8)
        axes.set_ylabel("collimator y [mm]", fontsize=8)
        axes.tick_params(labelsize=7)
        figure.colorbar(image, ax=axes, shrink=0.8).set_label("fluence [MU]", fontsize=8)
    return figure


def save_fluences(recalculation: Recalculation, folder: str | Path) -> Path:
    """Draw the fluence of every field of a recalculated plan into ``fluence.png`` in a folder that is there."""
    path = Path(folder, "fluence.png")
    shown = [
        (f"{field.number} {field.name}: {field.mu:.1f} MU", field_fluence(field, mlc))
        for field, mlc in zip(recalculation.delivery, recalculation.mlcs, strict=True)
    ]
    draw_fluences(shown).savefig(path, dpi=110)
    return path
