"""Figures and axes to draw on: of their own, off screen, or those that a caller brings."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from radplan import __version__
from radplan.io.staging import NOTICE


def own_axes(size: tuple[float, float]) -> Axes:
    """Return axes that fill a new figure of a size [inch], off screen."""
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def figure_of(axes: Axes) -> Figure:
    """Return the figure that axes belong to, also where they lie in a part of it."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    return figure


def save_png(figure: Figure, path: Path, dpi: int = 150) -> None:
    """Write a figure as a PNG file that says where it came from."""
    figure.savefig(path, dpi=dpi, metadata={"Software": f"radplan {__version__}", "Comment": NOTICE})
