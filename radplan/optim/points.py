"""Where a problem was evaluated, and the line on from there: what solvers hold instead of caches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from radplan.arrays import Array, Device, namespace, weighted_sum
from radplan.geometry.grid import Grid
from radplan.influence import ForwardModel, Scenarios, Variables
from radplan.quantities.resolver import Evaluation

if TYPE_CHECKING:
    from radplan.optim.problem import Problem

Images = Mapping[str, Array]


@dataclass(frozen=True, eq=False)
class ImageSpace:
    """A model seen from its images: they are the variables, so evaluating quantities costs no forward.

    Its `forward` hands on the images it is given and its `pullback` returns the cotangents of the images as they are.
    """

    model: ForwardModel

    @property
    def grid(self) -> Grid:
        """The grid of the model."""
        return self.model.grid

    @property
    def voxels(self) -> Any:
        """The voxels of the model."""
        return self.model.voxels

    @property
    def images(self) -> tuple[str, ...]:
        """The images of the model."""
        return self.model.images

    @property
    def scenarios(self) -> Scenarios:
        """The scenarios of the model."""
        return self.model.scenarios

    @property
    def radiation(self) -> str:
        """The radiation of the model."""
        return self.model.radiation

    @property
    def linear(self) -> bool:
        """Always true: the images are the variables."""
        return True

    @property
    def variables(self) -> Variables:
        """The variables of the model, which solvers look at; the images have no bounds."""
        return self.model.variables

    @property
    def voxel_parameters(self) -> Mapping[str, Array]:
        """The voxel parameters of the model."""
        return self.model.voxel_parameters

    @property
    def device(self) -> Device:
        """Where the arrays of the model live."""
        return self.model.device

    def forward(self, x: Images, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for out of those given."""
        return {name: x[name] for name in (x if images is None else images)}

    def pullback(self, x: Images, cotangents: Mapping[str, Array]) -> Any:
        """Return the cotangents of the images as they are."""
        return cotangents

    def restrict(self, voxels: Array) -> ImageSpace:
        """Return the image space of some voxels."""
        return ImageSpace(self.model.restrict(voxels))

    def with_voxel_parameters(self, **parameters: Array) -> ImageSpace:
        """Return the image space with more voxel parameters."""
        return ImageSpace(self.model.with_voxel_parameters(**parameters))


@dataclass(frozen=True, eq=False)
class Point:
    """A problem evaluated at variables `x`: its value is known, its gradient costs one adjoint when it is asked for.

    Made by `Problem.at` and `Line.at`.

    Parameters
    ----------
    problem : Problem
        What was evaluated.
    x : array of shape (variables,)
        Where.
    images : mapping of str to array of shape (scenarios, voxels)
        What the model gave, per fraction.
    value : array of shape ()
        The cost.
    """

    problem: Problem
    x: Array
    images: Images
    value: Array
    _evaluation: Evaluation
    _cotangents: Mapping[Any, Array]

    @cached_property
    def image_cotangents(self) -> Images:
        """Derivative of the cost by each image, ``(scenarios, voxels)``."""
        found: Images = self._evaluation.pullback(self._cotangents)
        return found

    @cached_property
    def gradient(self) -> Array:
        """Derivative of the cost by the variables ``(variables,)``: one adjoint per image, on first use."""
        return self.problem.model.pullback(self.x, self.image_cotangents)

    def values_of(self, quantity: Any) -> Array:
        """Return the values ``(scenarios, voxels)`` of a quantity of the goals, per fraction."""
        return self._evaluation[quantity]


@dataclass(frozen=True, eq=False)
class Line:
    """A problem along ``x + t direction``: called with t it returns the cost and its slope by t.

    Where the model is linear, the images along the line are a combination of two, so that the whole line costs one
    forward, and each call vector work in voxels only. Made by `Problem.along`.
    """

    start: Point
    direction: Array
    _images: Images | None

    def __call__(self, t: float) -> tuple[Array, Array]:
        """Return cost and slope at `t`, both of shape ()."""
        point = self.at(t)
        return point.value, self.slope(point)

    def at(self, t: float) -> Point:
        """Return the problem evaluated at ``x + t direction``."""
        x = self.start.x + t * self.direction
        if self._images is None:
            return self.start.problem.at(x)
        images = {name: self.start.images[name] + t * change for name, change in self._images.items()}
        return self.start.problem.from_images(x, images)

    def slope(self, point: Point) -> Array:
        """Return the slope of the cost along this line at one of its points, shape ()."""
        if self._images is None:
            return weighted_sum(point.gradient, self.direction)
        parts = [_inner(cotangent, self._images[name]) for name, cotangent in point.image_cotangents.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total


def _inner(a: Array, b: Array) -> Array:
    xp = namespace(a)
    return weighted_sum(xp.reshape(a, (-1,)), xp.reshape(b, (-1,)))
