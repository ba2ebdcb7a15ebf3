"""What a beam sees: its weights in the isocentre plane, and the outlines of structures as the source sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.ndimage import binary_closing

from radplan.beams.beam import Beam
from radplan.errors import InputError
from radplan.geometry.frames import isocentre_plane, world_to_beam
from radplan.patient.structures import Structure
from radplan.plan import Plan
from radplan.viz.canvas import figure_of, own_axes
from radplan.viz.palette import structure_colors

_PIXEL = 2.0
_MARGIN = 15.0


def draw_beams_eye_view(
    plan: Plan, beam: int = 0, structures: Sequence[str] | None = None, ax: Axes | None = None
) -> Figure:
    """Draw the weights of a beam in the isocentre plane with the outlines of structures, as the source sees them.

    The axes are x and y of the beam-limiting device (IEC 61217) [mm]. Spots of one place are summed over their
    energies.

    Parameters
    ----------
    plan : Plan
        With beams and a weight for each of their bixels or spots.
    beam : int
        Which beam, counted from 0.
    structures : sequence of str, optional
        Whose outlines; targets and organs at risk that the field meets otherwise.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a figure of its own is made otherwise.

    Returns
    -------
    matplotlib.figure.Figure
        The figure, that of `ax` where it was given.

    Raises
    ------
    InputError
        When the plan has no such beam, or its variables are no weights of bixels.

    >>> draw_beams_eye_view(plan, beam=2).savefig("bev.png")  # doctest: +SKIP
    """
    field, weights = _weights(plan, beam)
    axes = own_axes((6.4, 5.6)) if ax is None else ax
    image, extent = _image(field, weights)
    drawn = axes.imshow(image, extent=extent, origin="lower", cmap="viridis", vmin=0.0, aspect="equal")
    unit = "spot weight [1e6 particles]" if field.energies is not None else "bixel weight"
    figure_of(axes).colorbar(drawn, ax=axes, label=f"{unit} per fraction")
    _outline(axes, plan, field, structures)
    axes.plot(0.0, 0.0, "+", color="white", markersize=10)
    low, high = field.bixels.min(axis=0) - _MARGIN, field.bixels.max(axis=0) + _MARGIN
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_facecolor("0.15")
    axes.set_xlabel("x of the beam-limiting device [mm]")
    axes.set_ylabel("y [mm]")
    turned = f", couch {field.couch:g}°" if field.couch else ""
    axes.set_title(f"beam {beam + 1}: gantry {field.gantry:g}°{turned}", fontsize=11)
    return figure_of(axes)


def _weights(plan: Plan, number: int) -> tuple[Beam, NDArray[np.float64]]:
    """Return a beam and its weights (n,)."""
    beams = [] if plan.beams is None else list(plan.beams)
    if not 0 <= number < len(beams):
        raise InputError(f"the plan has {len(beams)} beams, counted from 0; there is no beam {number}")
    if sum(beam.count for beam in beams) != plan.x.size:
        raise InputError("the variables of this plan are no weights of bixels: draw its apertures instead")
    first = sum(beam.count for beam in beams[:number])
    return beams[number], plan.x[first : first + beams[number].count]


def _image(field: Beam, weights: NDArray[np.float64]) -> tuple[Any, tuple[float, float, float, float]]:
    """Return weights on a raster of the bixels' width, NaN where there is none, and its edges [mm]."""
    step = field.bixel_width
    low = field.bixels.min(axis=0)
    columns, rows = np.round((field.bixels - low) / step).astype(int).T
    total = np.zeros((rows.max() + 1, columns.max() + 1))
    np.add.at(total, (rows, columns), weights)
    known = np.zeros_like(total, dtype=bool)
    known[rows, columns] = True
    image = np.where(known, total, np.nan)
    left, bottom = low - 0.5 * step
    return image, (left, left + step * image.shape[1], bottom, bottom + step * image.shape[0])


def _outline(axes: Axes, plan: Plan, field: Beam, structures: Sequence[str] | None) -> None:
    """Draw outlines and their legend."""
    known = plan.patient.structures
    names = [s.name for s in known.values() if s.role in ("target", "oar")] if structures is None else list(structures)
    colors = structure_colors(known)
    low, high = field.bixels.min(axis=0) - _MARGIN, field.bixels.max(axis=0) + _MARGIN
    x, y = (np.arange(low[k], high[k] + _PIXEL, _PIXEL) for k in (0, 1))
    keys = []
    for name in names:
        seen = _shadow(known[name], field, x, y)
        if seen.any() and not seen.all():
            middle = 0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1])
            axes.contour(*middle, seen.astype(float), [0.5], colors=[colors[name]], linewidths=1.8)
            keys.append(Line2D([], [], color=colors[name], label=name))
    if keys:
        axes.legend(handles=keys, fontsize=8, loc="upper right", framealpha=0.8)


def _shadow(structure: Structure, field: Beam, x: Any, y: Any) -> NDArray[np.bool_]:
    """Return which pixels a structure covers as the source sees it, (rows, columns)."""
    points = structure.grid.points(structure.voxels)
    across, up, _ = isocentre_plane(world_to_beam(points, field.isocenter, field.rotation), field.sad)
    counts, _, _ = np.histogram2d(np.asarray(up), np.asarray(across), bins=(y, x))
    # Why: voxels coarser than the pixels leave holes.
    reach = int(np.ceil(max(structure.grid.spacing) / _PIXEL)) + 1
    closed = binary_closing(np.pad(counts > 0, reach), np.ones((2 * reach + 1,) * 2, dtype=bool))
    return np.asarray(closed[reach:-reach, reach:-reach], dtype=bool)
