"""The layers behind `radplan.ai.as_torch`: autograd functions whose backward is a pullback written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from radplan import arrays
from radplan.arrays import Array, Device
from radplan.errors import InputError, UnknownNameError
from radplan.influence import ForwardModel
from radplan.operators.base import LinearOperator
from radplan.optim.points import Point
from radplan.optim.problem import Problem

Tensor = Any


class ImageLayer(torch.nn.Module):  # type: ignore[misc]
    """A forward model as a layer: variables to images; make it with `radplan.ai.as_torch`.

    Parameters
    ----------
    model : ForwardModel
        What gives the images.
    images : str or sequence of str
        One name for a tensor, several for a dict of tensors.

    Raises
    ------
    UnknownNameError
        When the model has no such image.
    """

    def __init__(self, model: ForwardModel, images: str | Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.names = (images,) if isinstance(images, str) else tuple(images)
        self.single = isinstance(images, str)
        for name in self.names:
            if name not in model.images:
                raise UnknownNameError("image", name, model.images)

    def forward(self, x: Tensor) -> Tensor | dict[str, Tensor]:
        """Return the images ``(scenarios, voxels)`` at ``x (variables,)``, with a leading axis for a batch."""
        _check(x, self.model.variables.count, self.model.device)
        if x.ndim == 2:
            rows = [_Images.apply(row, self.model, self.names) for row in x]
            found = tuple(torch.stack(parts) for parts in zip(*rows, strict=True))
        else:
            found = _Images.apply(x, self.model, self.names)
        return found[0] if self.single else dict(zip(self.names, found, strict=True))

    def extra_repr(self) -> str:
        """Return what it maps, for printing a network."""
        return f"{self.model.variables.count} variables -> {', '.join(self.names)}"


class CostLayer(torch.nn.Module):  # type: ignore[misc]
    """A problem as a layer: variables to the cost of the plan; make it with `radplan.ai.as_torch`.

    Constraints of the problem are not part of the cost.

    Parameters
    ----------
    problem : Problem
        Goals on a forward model.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__()
        self.problem = problem

    def forward(self, x: Tensor) -> Tensor:
        """Return the cost, shape (), at ``x (variables,)``; ``(batch,)`` for a batch."""
        _check(x, self.problem.variables.count, self.problem.model.device)
        if x.ndim == 2:
            return torch.stack([_Cost.apply(row, self.problem) for row in x])
        return _Cost.apply(x, self.problem)

    def extra_repr(self) -> str:
        """Return what it maps, for printing a network."""
        return f"{self.problem.variables.count} variables -> cost of {len(self.problem.goals)} goals"


class OperatorLayer(torch.nn.Module):  # type: ignore[misc]
    """A linear operator as a layer, its transpose as the gradient.

    Parameters
    ----------
    operator : LinearOperator
        On torch, or on NumPy; then tensors cross by copies and must be on the CPU.
    shape : sequence of int
        Shape of what it returns, of as many elements as the operator has rows.

    Raises
    ------
    InputError
        When the operator is on another backend.
    """

    def __init__(self, operator: LinearOperator, shape: Sequence[int]) -> None:
        super().__init__()
        if operator.device.backend not in ("torch", "numpy"):
            raise InputError(f"a layer needs an operator on torch or NumPy, got one on {operator.device.name!r}")
        self.operator, self.shape = operator, tuple(shape)

    def forward(self, x: Tensor) -> Tensor:
        """Return the product with x of any shape with as many elements as the operator has columns."""
        if x.numel() != self.operator.shape[1]:
            raise InputError(f"x has {x.numel()} elements, the operator {self.operator.shape[1]} columns")
        return _Product.apply(x.reshape(-1), self.operator).reshape(self.shape)


class _Product(torch.autograd.Function):  # type: ignore[misc]
    """The product with a linear operator; backward is the product with its transpose."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, operator: LinearOperator) -> Tensor:
        ctx.operator = operator
        return _tensor(operator.apply(_native(x, operator.device)), x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        given = _native(cotangent.contiguous(), ctx.operator.device)
        return _tensor(ctx.operator.adjoint(given), cotangent), None


class _Images(torch.autograd.Function):  # type: ignore[misc]
    """Variables to images; backward is the pullback of the model."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, model: ForwardModel, names: tuple[str, ...]) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x)
        ctx.model, ctx.names = model, names
        images = model.forward(_native(x, model.device), names)
        ctx.dtypes = tuple(images[name].dtype for name in names)
        return tuple(_tensor(images[name], x) for name in names)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, None, None]:
        _refuse_second_derivatives()
        (x,), device = ctx.saved_tensors, ctx.model.device
        given = {
            name: device.xp.astype(_native(cotangent, device), dtype, copy=False)
            for name, cotangent, dtype in zip(ctx.names, cotangents, ctx.dtypes, strict=True)
            if cotangent is not None
        }
        if not given:
            return None, None, None
        return _tensor(ctx.model.pullback(_native(x, device), given), x), None, None


class _Cost(torch.autograd.Function):  # type: ignore[misc]
    """Variables to the cost of a problem; backward is its gradient times the cotangent."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, problem: Problem) -> Tensor:
        point = problem.at(_native(x, problem.model.device))
        ctx.save_for_backward(x)
        ctx.point = point
        return _tensor(point.value, x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        _refuse_second_derivatives()
        (x,) = ctx.saved_tensors
        point: Point = ctx.point
        return cotangent * _tensor(point.gradient, x), None


def _check(x: Tensor, count: int, device: Device) -> None:
    """Raise `InputError` unless x is a floating tensor of the right size where the model can take it."""
    if not isinstance(x, torch.Tensor):
        raise InputError(f"as_torch wants a torch tensor, got {type(x).__name__}: the model itself takes other arrays")
    if x.dtype not in (torch.float32, torch.float64):
        raise InputError(f"as_torch wants float32 or float64, got {x.dtype}")
    if x.ndim not in (1, 2) or x.shape[-1] != count:
        raise InputError(f"x must have shape ({count},) or (batch, {count}), got {tuple(x.shape)}")
    if x.ndim == 2 and x.shape[0] == 0:
        raise InputError("x is an empty batch")
    wanted = device.native if device.backend == "torch" else torch.device("cpu")
    if x.device != wanted:
        advice = f"x.to({str(wanted)!r})" + (
            "" if device.backend == "torch" else f", or make the model with device='torch:{x.device}'"
        )
        raise InputError(f"x is on {x.device}, but the model is on {device.name!r}: take {advice}")


def _refuse_second_derivatives() -> None:
    # Why: torch's own once_differentiable lets a gradient through that does not know how it depends on x.
    if torch.is_grad_enabled():
        raise InputError("a pullback has no derivative of its own: do without create_graph=True")


def _native(tensor: Tensor, device: Device) -> Array:
    """Return a tensor as an array of the model: itself on torch, a copy through the host elsewhere."""
    kept = tensor.detach()
    return kept if device.backend == "torch" else device.asarray(kept.numpy().copy(), arrays.dtype_name(kept))


def _tensor(array: Array, beside: Tensor) -> Tensor:
    """Return an array of the model as a tensor on the device and in the dtype of another one."""
    if arrays.backend_name(array) == "torch":
        return array.to(beside.dtype)
    return torch.tensor(arrays.to_numpy(array), dtype=beside.dtype)
