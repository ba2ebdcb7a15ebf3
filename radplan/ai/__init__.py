"""Forward models and problems as layers of torch networks; torch itself is imported on first use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from radplan.errors import InputError
from radplan.influence import ForwardModel
from radplan.optim.problem import Problem

if TYPE_CHECKING:
    from radplan.ai.layers import CostLayer, ImageLayer

__all__ = ["as_torch"]


def as_torch(model: ForwardModel | Problem, images: str | Sequence[str] | None = None) -> ImageLayer | CostLayer:
    r"""Return a forward model, or a whole problem, as one differentiable torch function.

    ``f = as_torch(model)`` maps variables x to images, ``f = as_torch(problem)`` to the cost; the gradient is the
    model's own `pullback`, one adjoint whatever is behind it: a stored or an on-the-fly `Dij`, or leaves, jaws and
    monitor units of an aperture model. f is a `torch.nn.Module` without parameters, to be put behind a network.

    A model on torch wants its variables on its own device. For a model on another backend tensors cross by copies
    through the host, forward and backward, so that they must be on the CPU. Nothing is moved between devices in
    silence. Results have the dtype of x; the model calculates in its own. A second derivative is refused.

    Parameters
    ----------
    model : ForwardModel or Problem
        What gives images per fraction, or a cost. Bounds and projections are left to the caller.
    images : str or sequence of str, optional
        A name makes f return a tensor ``(scenarios, voxels)``, several names a dict of them. A model that has a single
        image needs none; of other models all are returned.

    Returns
    -------
    torch.nn.Module
        From x ``(variables,)`` or ``(batch, variables)``, float32 or float64; a batch is done one after the other and
        adds a leading axis to each result.

    Raises
    ------
    InputError
        When torch is not installed, or images are asked of a problem; on a call, when x is no floating tensor of the
        right shape and device.
    UnknownNameError
        When the model has no image of that name.

    >>> import numpy as np, torch
    >>> from radplan import Dij, Grid
    >>> dij = Dij.from_matrices({"physical_dose": np.asarray([[1.0, 2.0]])}, Grid((1, 1, 1), (1, 1, 1), (0, 0, 0)))
    >>> x = torch.tensor([1.0, 1.0], requires_grad=True)
    >>> dose = as_torch(dij)(x)
    >>> dose.sum().backward()
    >>> dose.tolist(), x.grad.tolist()
    ([[3.0]], [1.0, 2.0])
    """
    try:
        from radplan.ai import layers
    except ImportError as error:
        raise InputError(
            f"as_torch needs torch, which cannot be imported ({error}): pip install 'radplan[torch]'"
        ) from error
    if isinstance(model, Problem):
        if images is not None:
            raise InputError(f"a problem gives its cost, not images, but {images!r} was asked for: take its model")
        return layers.CostLayer(model)
    if images is None and len(model.images) == 1:
        return layers.ImageLayer(model, model.images[0])
    return layers.ImageLayer(model, tuple(model.images) if images is None else images)
