"""Figure of a commissioned linac: every measured curve with the calculated one, and their differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from radplan.commissioning.agreement import CurveFit
from radplan.commissioning.photon_fit import Commissioning
from radplan.viz.canvas import save_png

_COLORS = ("#1f5fa8", "#c0392b", "#2e8b57", "#8e44ad", "#d68910", "#117a8b", "#7f8c8d", "#5d4037")
_TITLES = {"depth dose": "Depth dose", "crossplane": "Crossplane (x)", "inplane": "Inplane (y)"}


def draw_commissioning(fitted: Commissioning) -> Figure:
    """Draw measured points, calculated lines and their differences, a column for each kind of curve."""
    kinds = [kind for kind in _TITLES if any(fit.scan.curve == kind for fit in fitted.curves)]
    figure = Figure(figsize=(5.2 * len(kinds), 6.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, len(kinds), sharex="col", squeeze=False, height_ratios=(2.0, 1.0))
    for column, kind in enumerate(kinds):
        _draw_kind(list(axes[:, column]), [fit for fit in fitted.curves if fit.scan.curve == kind], kind)
    axes[0, 0].set_ylabel("relative dose [%]")
    axes[1, 0].set_ylabel("calculated − measured [%]")
    factors = [f"{f.factor.label.split(' at')[0]} {f.percent:+.2f} %" for f in fitted.factors]
    caption = f"{fitted.machine.name}, {fitted.data.energy:g} MV: points measured, lines calculated"
    figure.suptitle("; ".join([caption, *factors]), fontsize=11)
    return figure


def save_commissioning_figure(fitted: Commissioning, folder: str | Path) -> Path:
    """Write ``curves.png`` into a folder."""
    path = Path(folder, "curves.png")
    save_png(draw_commissioning(fitted), path)
    return path


def _draw_kind(pair: Sequence[Axes], fits: list[CurveFit], kind: str) -> None:
    above, below = pair
    for fit, color in zip(fits, _COLORS * 4, strict=False):
        x, scan = fit.scan.position, fit.scan
        where = "" if scan.depth is None else f", {scan.depth:g} mm"
        label = f"{scan.field[0] / 10:g}x{scan.field[1] / 10:g}{where}"
        every = max(1, x.size // 90)
        above.plot(x[::every], 100 * fit.measured[::every], ".", color=color, ms=4, label=label)
        above.plot(x, 100 * fit.calculated, color=color, lw=1.3)
        below.plot(x, 100 * (fit.calculated - fit.measured), color=color, lw=1.2)
    bar = 0.7 if kind == "depth dose" else 1.0
    below.axhspan(-bar, bar, color="#d9ead3", zorder=0)
    limit = max(2.0, min(8.0, 1.1 * max(100 * float(np.abs(f.calculated - f.measured).max()) for f in fits)))
    below.set_ylim(-limit, limit)
    above.set_title(_TITLES[kind])
    above.legend(fontsize=8)
    below.set_xlabel("depth [mm]" if kind == "depth dose" else "distance from the axis [mm]")
    for plot in pair:
        plot.grid(color="0.9", linewidth=0.6)
