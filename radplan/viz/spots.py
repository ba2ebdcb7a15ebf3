"""Where the spots of a particle plan lie and what they weigh, layer by layer, as each beam sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from radplan.beams.beam import Beam
from radplan.errors import InputError
from radplan.geometry.frames import isocentre_plane, world_to_beam
from radplan.plan import Plan

_LAYERS = 5
_PIXEL = 3.0


def draw_spots(plan: Plan) -> Figure:
    """Draw a row for each beam: particles of every layer, and the spots of some layers from deep to shallow.

    Spots are drawn in the isocentre plane as the source sees it (beam-limiting device x and y), their area and colour
    by their particles per fraction; a grey dot is a spot that is not used. The black line is the targets' outline.

    Parameters
    ----------
    plan : Plan
        What to draw, with beams that have energies.

    Raises
    ------
    InputError
        When the plan has no spots.

    >>> draw_spots(plan).savefig("spots.png")  # doctest: +SKIP
    """
    beams = [] if plan.beams is None else [beam for beam in plan.beams if beam.energies is not None]
    if plan.beams is None or not beams:
        raise InputError("the plan has no spots to draw: its beams have no energies")
    figure = Figure(figsize=(15.0, 2.75 * len(beams) + 0.9), layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.add_gridspec(len(beams), _LAYERS + 1, width_ratios=(1.25, *([1.0] * _LAYERS)))
    first = 0
    for row, beam in enumerate(plan.beams):
        weights, first = plan.x[first : first + beam.count], first + beam.count
        energies = np.asarray(beam.energies)
        _draw_layers(figure.add_subplot(parts[row, 0]), beam, energies, weights)
        norm = Normalize(0.0, max(float(np.quantile(weights[weights > 0.0], 0.99)), 1e-12) if weights.any() else 1.0)
        outline = _outline(plan, beam)
        panels, spots = [], None
        for column, energy in enumerate(_chosen(energies[weights > 0.0])):
            axes = figure.add_subplot(parts[row, column + 1])
            here = energies == energy
            spots = _draw_layer(axes, beam, here, weights, norm)
            axes.contour(*outline, [0.5], colors="black", linewidths=1.0)
            axes.set_title(f"{energy:.1f} MeV/u: {np.count_nonzero(weights[here])} of {here.sum()} spots", fontsize=9)
            panels.append(axes)
        if spots is None:
            continue
        bar = figure.colorbar(spots, ax=panels, location="right", aspect=18, pad=0.01, extend="max")
        bar.set_label("particles per spot\nand fraction [10⁶]", fontsize=8)
        bar.ax.tick_params(labelsize=7)
    figure.suptitle(f"Spots · {plan.caption()}", fontsize=11)
    return figure


def _chosen(energies: Any) -> list[float]:
    """Return the energies of at most five of the layers in use, evenly spread, deepest first."""
    layers = np.unique(energies)[::-1]
    if not layers.size:
        return []
    picks = np.unique(np.round(np.linspace(0, layers.size - 1, min(_LAYERS, layers.size))).astype(int))
    return [float(energy) for energy in layers[picks]]


def _draw_layers(axes: Axes, beam: Beam, energies: Any, weights: Any) -> None:
    """Bars of the particles of each layer against its energy."""
    layers, index = np.unique(energies, return_inverse=True)
    sums = np.bincount(index.reshape(-1), weights=weights, minlength=layers.size) / 1000.0
    width = 0.8 * float(np.min(np.diff(layers))) if layers.size > 1 else 1.0
    axes.bar(layers, sums, width=width, color="#1f5fd0")
    axes.set_xlabel("energy of the layer [MeV/u]", fontsize=8)
    axes.set_ylabel("particles per fraction [10⁹]", fontsize=8)
    axes.tick_params(labelsize=7)
    angle = f"gantry {beam.gantry:g}°" + (f", couch {beam.couch:g}°" if beam.couch else "")
    axes.set_title(f"{angle}: {np.count_nonzero(weights)} spots in {np.count_nonzero(sums)} layers", fontsize=9)


def _draw_layer(axes: Axes, beam: Beam, here: Any, weights: Any, norm: Normalize) -> Any:
    x, y = beam.bixels[here].T
    used = weights[here] > 0.0
    axes.plot(x[~used], y[~used], ".", color="0.8", markersize=2)
    share = np.clip(weights[here][used] / float(norm.vmax or 1.0), 0.02, 1.0)
    spots = axes.scatter(
        x[used], y[used], s=42.0 * share, c=weights[here][used], cmap="viridis_r", norm=norm, linewidths=0
    )
    low, high = beam.bixels.min(axis=0) - 12.0, beam.bixels.max(axis=0) + 12.0
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_aspect("equal")
    axes.set_xlabel("x [mm]", fontsize=8)
    axes.set_ylabel("y [mm]", fontsize=8)
    axes.tick_params(labelsize=7)
    return spots


def _outline(plan: Plan, beam: Beam) -> tuple[Any, Any, Any]:
    """Return x, y and a picture of the targets seen from the source, 1 where there is target."""
    names = list(plan.patient.target_names) or list(plan.patient.structures)
    held = [plan.patient.structures[name] for name in names]
    points = np.concatenate([part.grid.points(part.voxels) for part in held])
    x, y, _ = isocentre_plane(world_to_beam(points, beam.isocenter, beam.rotation), beam.sad)
    low = np.floor(np.asarray([x.min(), y.min()]) / _PIXEL) * _PIXEL - 2 * _PIXEL
    shape = [int((v.max() - m) / _PIXEL) + 4 for v, m in zip((x, y), low, strict=True)]
    picture = np.zeros(shape)
    picture[((x - low[0]) / _PIXEL).astype(int), ((y - low[1]) / _PIXEL).astype(int)] = 1.0
    axes = [m + (np.arange(n) + 0.5) * _PIXEL for m, n in zip(low, shape, strict=True)]
    return axes[0], axes[1], _closed(picture).T


def _closed(picture: Any) -> Any:
    from scipy.ndimage import binary_closing

    return binary_closing(picture > 0.0, np.ones((3, 3), dtype=bool)).astype(np.float64)
