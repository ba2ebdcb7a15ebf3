"""Cost functions, where they were evaluated, and the line on from there: what solvers see and hold."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from radplan.arrays import Array, namespace, weighted_sum
from radplan.influence import ForwardModel, Variables
from radplan.operators import BlockDiagonal
from radplan.optim.constraints import Constraint
from radplan.quantities.resolver import Evaluation

Images = Mapping[str, Array]


class CostFunction(ABC):
    """A cost of the variables of a model, within their bounds: what solvers minimise.

    `Problem` is one; so is a problem that leans on its constraints.
    """

    @property
    @abstractmethod
    def model(self) -> ForwardModel:
        """What gives the images, restricted to the voxels that the cost looks at."""

    @property
    @abstractmethod
    def variables(self) -> Variables:
        """The variables and their bounds."""

    @property
    @abstractmethod
    def images(self) -> tuple[str, ...]:
        """Names of the images that the cost needs."""

    @property
    @abstractmethod
    def start(self) -> Array:
        """Where a search begins when nobody says, ``(variables,)``."""

    @property
    @abstractmethod
    def scale(self) -> Array:
        """Typical size of each variable, ``(variables,)``."""

    @property
    def constraints(self) -> tuple[Constraint, ...]:
        """What must hold besides the bounds of the variables."""
        return ()

    @property
    def linear(self) -> bool:
        """Whether the images are linear in the variables."""
        return self.model.linear

    @abstractmethod
    def from_images(self, x: Array, images: Images) -> Point:
        """Return the cost evaluated at `x` where the images are known already: no forward."""

    @abstractmethod
    def check_finite(self, x: Array | Point) -> None:
        """Raise `CalculationError` naming the goals whose value at `x` is NaN or infinite."""

    def curvature(self, point: Point) -> BlockDiagonal | None:
        """Return second derivatives between the variables of each group, or None where they are not known."""
        return None

    def dose_volume_points(self, point: Point) -> Array | None:
        """Return what a physicist reads of the plan there, ``(points,)``, or None where that is not known.

        See `radplan.optim.settling.dose_volume_points`.
        """
        return None

    def at(self, x: Array) -> Point:
        """Return the cost evaluated at `x`: one forward."""
        return self.from_images(x, self.model.forward(x, self.images))

    def value_and_gradient(self, x: Array) -> tuple[Array, Array]:
        """Return the cost, shape (), and its gradient ``(variables,)`` at `x`: one forward and one adjoint.

        Parameters
        ----------
        x : array of shape (variables,)
            Variables on the device of the model, float64 where it has that.
        """
        point = self.at(x)
        return point.value, point.gradient

    def along(self, x: Array | Point, direction: Array) -> Line:
        """Return the cost on the line ``x + t direction``.

        Parameters
        ----------
        x : Point or array of shape (variables,)
            Where the line starts; a `Point` saves the forward there, so that the line costs one forward in all when the
            model is linear.
        direction : array of shape (variables,)
            Where it goes.
        """
        start = x if isinstance(x, Point) else self.at(x)
        return Line(start, direction, self.model.forward(direction, self.images) if self.linear else None)


@dataclass(frozen=True, eq=False)
class Point:
    """A cost function evaluated at variables `x`: its value is known, its gradient costs one adjoint when asked for.

    Made by `CostFunction.at` and `Line.at`.

    Parameters
    ----------
    problem : CostFunction
        What was evaluated.
    x : array of shape (variables,)
        Where.
    images : mapping of str to array of shape (scenarios, voxels)
        What the model gave, per fraction.
    value : array of shape ()
        The cost.
    """

    problem: CostFunction
    x: Array
    images: Images
    value: Array
    _evaluation: Evaluation
    _cotangents: Mapping[Any, Array]

    @cached_property
    def image_cotangents(self) -> Images:
        """Derivative of the cost by each image, ``(scenarios, voxels)``."""
        return self._evaluation.image_cotangents(self._cotangents)

    @cached_property
    def gradient(self) -> Array:
        """Derivative of the cost by the variables ``(variables,)``: one adjoint per image, on first use."""
        return self.problem.model.pullback(self.x, self.image_cotangents)

    @property
    def evaluation(self) -> Evaluation:
        """The quantities there."""
        return self._evaluation

    def values_of(self, quantity: Any) -> Array:
        """Return the values ``(scenarios, voxels)`` of a quantity of the goals, per fraction."""
        return self._evaluation[quantity]


@dataclass(frozen=True, eq=False)
class Line:
    """A cost function along ``x + t direction``: called with t it returns the cost and its slope by t.

    Where the model is linear, the images along the line are a combination of two, so that the whole line costs one
    forward, and each call vector work in voxels only. Made by `CostFunction.along`.
    """

    start: Point
    direction: Array
    _images: Images | None

    def __call__(self, t: float) -> tuple[Array, Array]:
        """Return cost and slope at `t`, both of shape ()."""
        point = self.at(t)
        return point.value, self.slope(point)

    def at(self, t: float) -> Point:
        """Return the cost evaluated at ``x + t direction``."""
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
