"""Figure of a refinement: what each plan of an automatic search scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

_COLOURS = {"scorecard_initial": "#7f8c8d", "dvh_margins": "#2471a3", "ascent": "#b03a2e"}
_DELIVERED = "#d68910"


def draw_refinement(
    totals: Sequence[float],
    policies: Sequence[str],
    maximum: float,
    ax: Any = None,
    delivered: Sequence[float] = (),
) -> Any:
    """Draw the score of each iterate, and the best so far as a line.

    Parameters
    ----------
    totals : sequence of float
        Score of each plan, in order.
    policies : sequence of str
        What asked for it.
    maximum : float
        The best score that the card can give.
    ax : matplotlib axes, optional
        Where to draw; a new figure otherwise.
    delivered : sequence of float
        Score of each plan that a linac delivers, made of the best of the others; drawn after them, with their own line.

    Returns
    -------
    matplotlib axes
    """
    if ax is None:
        from matplotlib.figure import Figure

        ax = Figure(figsize=(6.4, 3.6), layout="constrained").subplots()
    rounds = np.arange(1, len(totals) + 1)
    ax.step(rounds, np.maximum.accumulate(totals), where="post", color="0.75", lw=2.0, label="best so far")
    for policy in dict.fromkeys(policies):
        here = [k for k, name in enumerate(policies) if name == policy]
        colour = _COLOURS.get(policy, "#1e8449")
        ax.plot(rounds[here], np.asarray(totals)[here], "o", color=colour, label=policy.replace("_", " "))
    if delivered:
        after = len(totals) + np.arange(1, len(delivered) + 1)
        ax.step(after, np.maximum.accumulate(delivered), where="post", color="0.75", lw=2.0)
        ax.plot(after, delivered, "s", color=_DELIVERED, label="delivered")
        rounds = np.concatenate([rounds, after])
    ax.set(xlabel="plan", ylabel=f"score, at most {maximum:.0f}", xticks=rounds)
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8)
    return ax


def save_refinement_figure(
    totals: Sequence[float],
    policies: Sequence[str],
    maximum: float,
    path: str | Path,
    delivered: Sequence[float] = (),
) -> Path:
    """Write the figure of a refinement as PNG."""
    ax = draw_refinement(totals, policies, maximum, delivered=delivered)
    ax.figure.savefig(path, dpi=150)
    return Path(path)
