"""Typical sizes of variables, by which solvers measure their steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from radplan.arrays import Array, like, namespace, quantile
from radplan.influence import Dij, ForwardModel
from radplan.optim.terms import Term

_PROBES = 4
"""Random cotangents from which the scaling of a model is estimated that is no matrix."""
_LEAST_MOVE = 1e-3
"""Least effect of a variable that such a scaling reckons with, over the largest one."""


def typical_sizes(model: ForwardModel, image: str, terms: Sequence[Term], x: Array) -> Array:
    r"""Return the typical size of each variable, :math:`1/\sqrt{\mathrm{diag}(D^T C D)}` of one image's linear part.

    C holds the weight that the goals give to each voxel. No size is above ten times the median, so that variables
    that barely reach a goal do not run off. For a model that is no `Dij` the diagonal at `x` is estimated from
    pullbacks of random signs, which cost one adjoint each; of moves by the typical size, `Variables.scale`, none counts
    for less than a thousandth of the one that matters most, because a leaf that stands outside the target now may
    matter later.

    Parameters
    ----------
    model : ForwardModel
        Whose variables are scaled.
    image : str
        The image that is looked at.
    terms : sequence of Term
        The goals, bound to the model.
    x : array of shape (variables,)
        Where the model is looked at, on its device.

    Source of the estimate: Bekas, Kokiopoulou and Saad, Appl. Numer. Math. 57 (2007) 1214.
    """
    xp = namespace(x)
    importance = _voxel_importance(terms, len(model.voxels))
    if not isinstance(model, Dij):
        typical = x * 0.0 + like(model.variables.scale, x)
        moves = _estimated_diagonal(model, image, importance, x) * typical**2
        most = xp.max(moves)
        most = xp.where(most > 0.0, most, xp.ones_like(most))
        return typical / xp.sqrt(xp.maximum(moves, _LEAST_MOVE * most))
    norms = like(model.operators[image][0].column_norms(importance), x)
    even = xp.full_like(norms, 1.0 / norms.shape[0])
    middle = quantile(norms, even, 0.5)
    floor = xp.where(middle > 0.0, 0.1 * middle, xp.max(norms))
    return 1.0 / xp.maximum(norms, xp.where(floor > 0.0, floor, xp.ones_like(floor)))


def _estimated_diagonal(model: ForwardModel, image: str, importance: Array, x: Array) -> Array:
    """Return ``diag(J' C J)`` of an image at `x`, ``(variables,)``: a mean over random signs."""
    root = importance**0.5
    cases = len(model.scenarios)
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_PROBES, 1, root.shape[0]))
    signs = np.concatenate([signs, np.zeros((_PROBES, cases - 1, root.shape[0]))], axis=1)
    total = x * 0.0
    for probe in range(_PROBES):
        row = model.pullback(x, {image: like(signs[probe], root) * root})
        total = total + row**2 / _PROBES
    return total


def _voxel_importance(terms: Sequence[Term], count: int) -> Array:
    """Return what second derivative the goals put on each voxel, were all of them squared, ``(count,)``."""
    total: Any = None
    for term in terms:
        part = term.spread(2.0 * term.multiplier * term.weights, count, term.weight)
        total = part if total is None else total + part
    return total
