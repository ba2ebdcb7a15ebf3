"""Figures of a plan, drawn off screen; the only place that knows matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from radplan.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from radplan.analysis.dvh import DVH
    from radplan.plan import Plan


def figures_available() -> bool:
    """Whether matplotlib is installed, so that figures can be drawn.

    >>> figures_available() in (True, False)
    True
    """
    return find_spec("matplotlib") is not None


def save_figures(
    plan: Plan,
    folder: str | Path,
    quantity: str | None = None,
    beside: Mapping[str, DVH] | None = None,
    label: str = "beside",
) -> tuple[Path, ...]:
    """Draw ``dvh.png`` and ``slices.png`` of a plan into a folder, made if need be; a file appears only when whole.

    Plans of particles also get ``maps.png`` (dose, LET, RBE), ``profiles.png`` (along the beams) and ``spots.png``.

    Parameters
    ----------
    plan : Plan
        What to draw.
    folder : path-like
        Where the figures go.
    quantity : str, optional
        What DVHs and slices show; the prescribed quantity otherwise.
    beside : mapping of str to DVH, optional
        Curves of another plan by structure, dashed in the DVH figure.
    label : str
        What they are called.

    Returns
    -------
    tuple of Path
        The files, in that order.

    Raises
    ------
    InputError
        matplotlib is not installed.

    >>> save_figures(plan, "out")  # doctest: +SKIP
    (PosixPath('out/dvh.png'), PosixPath('out/slices.png'))
    """
    if not figures_available():
        raise InputError("figures need matplotlib, which is not installed: pip install 'radplan[viz]'")
    from radplan.io.staging import staged
    from radplan.viz.canvas import save_png
    from radplan.viz.dvh import draw_dvh
    from radplan.viz.slices import draw_slices

    drawn: dict[str, Callable[[], Figure]] = {
        "dvh.png": lambda: draw_dvh(plan, quantity, beside=beside, label=label),
        "slices.png": lambda: draw_slices(plan, quantity),
    }
    if plan.beams is not None and plan.beams[0].energies is not None:
        from radplan.viz.maps import draw_maps
        from radplan.viz.profiles import draw_profiles
        from radplan.viz.spots import draw_spots

        drawn |= {
            "maps.png": lambda: draw_maps(plan),
            "profiles.png": lambda: draw_profiles(plan),
            "spots.png": lambda: draw_spots(plan),
        }
    with staged(folder, whole=False) as partial:
        for name, draw in drawn.items():
            save_png(draw(), partial / name)
    return tuple(Path(folder, name) for name in drawn)
