"""How quantities are worked out from what a forward model gives: resolution, evaluation and the pullback to variables.

A name is *direct* when the model has an image of that name, and *indirect* when it is calculated from what it needs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import Any

from radplan.arrays import Array, all_finite
from radplan.errors import InputError, UnknownNameError
from radplan.influence import ForwardModel
from radplan.quantities.base import QUANTITIES, Quantity, unbound, voxel_fields


@dataclass(frozen=True, eq=False)
class _Node:
    """One value in the chain: an image of the model (no quantity), or a quantity filled in, and what it needs."""

    name: str
    quantity: Quantity | None
    inputs: tuple[_Node, ...]


class QuantityResolver:
    """Quantities bound to one forward model; everything is per fraction.

    Parameters
    ----------
    model : ForwardModel
        What gives the images and the voxel parameters.
    quantities : iterable of Quantity
        Instances that their names shall stand for here: registered ones with other options, or new ones.

    Raises
    ------
    InputError
        When two instances share a name, or one takes the name of another registered quantity.

    >>> import numpy as np
    >>> from radplan.geometry.grid import Grid
    >>> from radplan.influence import Dij
    >>> grid = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> dij = Dij.from_matrices({"physical_dose": np.asarray([[1.0]])}, grid, dtype="float64")
    >>> dij = dij.with_voxel_parameters(alpha_x=0.1, beta_x=0.05, rbe=1.0)
    >>> resolver = QuantityResolver(dij)
    >>> resolver.get("bed")(np.asarray([2.0])).round(12).tolist()  # 2 Gy at alpha/beta 2: 2 (1 + 2/2)
    [[4.0]]
    >>> resolver.get("bed").compute_chain_derivative(np.asarray([[1.0]]), np.asarray([2.0])).round(12).tolist()
    [3.0]
    """

    def __init__(self, model: ForwardModel, quantities: Iterable[Quantity] = ()) -> None:
        self.model = model
        self._own: dict[str, Quantity] = {}
        self._nodes: dict[Quantity, _Node] = {}
        self._images: dict[str, _Node] = {}
        for quantity in quantities:
            self._check_instance(quantity)
            if quantity.name in self._own and self._own[quantity.name] != quantity:
                raise InputError(
                    f"two quantities given to the resolver are named {quantity.name!r}: {self._own[quantity.name]!r} "
                    f"and {quantity!r}; keep one, and use the other as an instance where it is needed"
                )
            self._own[quantity.name] = quantity

    def get(self, quantity: str | Quantity) -> BoundQuantity:
        """Return the quantity of that name, or of that instance with its options, bound to the model.

        Raises
        ------
        UnknownNameError
            When nothing has that name.
        InputError
            When the model lacks an image or a voxel parameter that it needs, or quantities need each other in a circle.
        """
        meant = self._instance(quantity)
        return BoundQuantity(meant, self, self._node(meant, ()))

    def evaluate(self, x: Array, quantities: Iterable[str | Quantity]) -> Evaluation:
        """Return the values of several quantities at `x`, with one forward of each image that is needed.

        Parameters
        ----------
        x : array of shape (variables,)
            Where to evaluate.
        quantities : iterable of str or Quantity
            What to evaluate; the same keys are looked up in the result.

        Raises
        ------
        As `get`, and InputError when a quantity's values have another shape than its inputs.
        """
        asked = {key: self._node(self._instance(key), ()) for key in _sequence(quantities)}
        order = _dependencies_first(asked.values())
        images = tuple(node.name for node in order if node.quantity is None)
        return self._evaluated(x, self.model.forward(x, images) if images else {}, asked, order)

    def evaluate_images(self, images: Mapping[str, Array], quantities: Iterable[str | Quantity]) -> Evaluation:
        """Return the values of several quantities where the images are known already: no forward.

        Its `Evaluation.image_cotangents` lead back to the images; its `Evaluation.pullback` needs the variables, which
        are not known here.

        Parameters
        ----------
        images : mapping of str to array of shape (scenarios, voxels)
            What the model gave, per fraction; at least the images that the quantities need.
        quantities : iterable of str or Quantity
            What to evaluate; the same keys are looked up in the result.

        Raises
        ------
        UnknownNameError
            When an image that is needed is not among those given.
        As `evaluate`.
        """
        asked = {key: self._node(self._instance(key), ()) for key in _sequence(quantities)}
        return self._evaluated(None, images, asked, _dependencies_first(asked.values()))

    def _evaluated(
        self,
        x: Array | None,
        images: Mapping[str, Array],
        asked: Mapping[str | Quantity, _Node],
        order: Sequence[_Node],
    ) -> Evaluation:
        values: dict[_Node, Array] = {}
        for node in order:
            if node.quantity is None:
                if node.name not in images:
                    raise UnknownNameError("image among those given", node.name, images)
                values[node] = images[node.name]
            else:
                inputs = [values[source] for source in node.inputs]
                values[node] = node.quantity.forward(*inputs)
                if tuple(values[node].shape) != tuple(inputs[0].shape):
                    raise InputError(
                        f"the quantity {node.name!r} returned values of shape {tuple(values[node].shape)} for inputs "
                        f"of shape {tuple(inputs[0].shape)}; forward works elementwise on (scenarios, voxels)"
                    )
        found: dict[str | Quantity, _Node] = {node.name: node for node in order if self._is_meant_by_name(node)}
        return Evaluation(x, self.model, MappingProxyType(found | dict(asked)), MappingProxyType(values))

    def _instance(self, quantity: str | Quantity) -> Quantity:
        """Return the unbound instance that a name or an instance stands for."""
        if isinstance(quantity, Quantity):
            self._check_instance(quantity)
            return quantity
        if not isinstance(quantity, str):
            raise InputError(f"a quantity is given by its name or as an instance, got {quantity!r}")
        if quantity in self._own:
            return self._own[quantity]
        found = self._registered(quantity)
        if found is not None:
            return found
        if quantity in self.model.images:
            raise InputError(
                f"the model gives an image {quantity!r}, but no quantity of that name says its unit and whether it is "
                f"additive: register a Quantity with name = {quantity!r} and needs = ({quantity!r},)"
            )
        raise UnknownNameError("quantity", quantity, [*QUANTITIES.names(), *self._own])

    def _is_meant_by_name(self, node: _Node) -> bool:
        """Say whether a node is what its name alone stands for, and not an instance with options of its own."""
        own = self._own.get(node.name)
        if own is not None:
            return node is self._node(own, ())
        return node.quantity is None or node is self._nodes.get(unbound(type(node.quantity)))

    def _registered(self, name: str) -> Quantity | None:
        try:
            found: Quantity = unbound(QUANTITIES.get(name))
        except UnknownNameError:
            return None
        return found

    def _check_instance(self, quantity: Quantity) -> None:
        cls = type(quantity)
        if quantity.name in QUANTITIES and QUANTITIES.get(quantity.name) is not cls:
            raise InputError(
                f"the quantity name {quantity.name!r} of {cls.__name__} is taken by the registered "
                f"{QUANTITIES.get(quantity.name).__name__}; choose another name"
            )
        named = {field.name: vars(quantity)[field.name] for field in fields(quantity)}  # type: ignore[arg-type]
        for field in voxel_fields(cls):
            if named[field] is not None:
                raise InputError(
                    f"the voxel parameter {field!r} of the quantity {quantity.name!r} comes from the model: leave it "
                    f"None and give model.with_voxel_parameters({field}=...)"
                )
        try:
            hash(quantity)
        except TypeError as error:
            raise InputError(
                f"options of the quantity {quantity.name!r} must be numbers, str or tuples in a frozen dataclass, got "
                f"{quantity!r}: give an array as a voxel parameter"
            ) from error

    def _node(self, quantity: Quantity, path: tuple[str, ...]) -> _Node:
        """Return the node of a quantity, direct if the model has its image and its options are the defaults."""
        name = quantity.name
        if name in self.model.images and quantity == unbound(type(quantity)):
            return self._image(name)
        if quantity in self._nodes:
            return self._nodes[quantity]
        trail = (*path, name)
        if name in path:
            circle = " -> ".join(trail[trail.index(name) :])
            raise InputError(f"quantities need each other in a circle: {circle}; one of them must need images only")
        if name in quantity.needs:
            raise InputError(self._missing_image(name, trail))
        inputs = tuple(self._need(need, trail) for need in quantity.needs)
        node = _Node(name, self._with_voxel_parameters(quantity), inputs)
        self._nodes[quantity] = node
        return node

    def _need(self, name: str, trail: tuple[str, ...]) -> _Node:
        found = self._own.get(name) or self._registered(name)
        if found is not None:
            return self._node(found, trail)
        if name in self.model.images:
            return self._image(name)
        raise InputError(self._missing_image(name, (*trail, name)))

    def _image(self, name: str) -> _Node:
        return self._images.setdefault(name, _Node(name, None, ()))

    def _with_voxel_parameters(self, quantity: Quantity) -> Quantity:
        names = voxel_fields(type(quantity))
        known = self.model.voxel_parameters
        missing = [name for name in names if name not in known]
        if missing:
            raise InputError(_missing_parameters(quantity.name, missing, known, self.model.radiation))
        for name in names:
            if not all_finite(known[name]):
                raise InputError(
                    f"the voxel parameter {name!r} that {quantity.name!r} needs is NaN or infinite in places"
                )
        return replace(quantity, **{name: known[name] for name in names})  # type: ignore[type-var]

    def _missing_image(self, name: str, trail: tuple[str, ...]) -> str:
        chain = f" ({' needs '.join(repr(step) for step in trail)})" if len(trail) > 1 else ""
        kind = "an image" if name in QUANTITIES or name in self._own else "neither a quantity nor an image"
        return (
            f"{trail[0]!r} cannot be calculated: {name!r}{chain} is {kind} that this {self.model.radiation} model does "
            f"not give; its images are {', '.join(self.model.images)}. Choose an engine that gives {name!r}"
            f"{_SOURCES.get(name, '')}, or bring the matrix: Dij.from_matrices({{..., {name!r}: matrix}}, grid)"
        )


_SOURCES = {
    "let_dose": " (a particle machine that tabulates LET, with the engine's let=True)",
    "dirty_dose": " (that of particles with let_threshold=, for a machine that tabulates LET)",
    **dict.fromkeys(
        ("let_all_dose", "primary_dose", "primary_let_dose", "primary_fluence", "proton_dose", "proton_fluence"),
        " (that of particles with let_details=True, for a machine that tabulates primaries)",
    ),
    "alpha_dose": " (that of particles with a biology= that varies with LET or is tabulated)",
    "sqrt_beta_dose": " (that of particles with a biology= that varies with LET or is tabulated)",
}
"""What gives an image, for messages."""


@dataclass(frozen=True, eq=False)
class BoundQuantity:
    """A quantity of one forward model: callable on the variables, with its derivative.

    Made by `QuantityResolver.get`.
    """

    quantity: Quantity
    resolver: QuantityResolver
    _node: _Node

    @property
    def name(self) -> str:
        """Name of the quantity."""
        return self.quantity.name

    @property
    def unit(self) -> str:
        """Unit of the values."""
        return self.quantity.unit

    @property
    def additive(self) -> bool:
        """Whether the course total is the number of fractions times the value."""
        return self.quantity.additive

    @property
    def direct(self) -> bool:
        """Whether the model gives it as an image."""
        return self._node.quantity is None

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images it is calculated from."""
        return tuple(node.name for node in _dependencies_first([self._node]) if node.quantity is None)

    def __call__(self, x: Array) -> Array:
        """Return the values ``(scenarios, voxels)`` per fraction at ``x (variables,)``."""
        return self.resolver.evaluate(x, [self.quantity])[self.quantity]

    def compute_chain_derivative(self, cotangent: Array, x: Array) -> Array:
        """Return the gradient by the variables ``(variables,)`` for the derivative of a cost by the values.

        Parameters
        ----------
        cotangent : array of shape (scenarios, voxels)
            Derivative of the cost by the values of this quantity.
        x : array of shape (variables,)
            Where to differentiate.
        """
        return self.resolver.evaluate(x, [self.quantity]).pullback({self.quantity: cotangent})


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Values of quantities at one point, per fraction, and the pullback from them: immutable, nothing is recalculated.

    Made by `QuantityResolver.evaluate`, and by `QuantityResolver.evaluate_images` without variables. Keys are the names
    and instances that were asked for, and the names of what was calculated on the way.
    """

    x: Array | None
    model: ForwardModel
    _nodes: Mapping[str | Quantity, _Node]
    _values: Mapping[_Node, Array]

    def __getitem__(self, quantity: str | Quantity) -> Array:
        """Return the values, ``(scenarios, voxels)``."""
        return self._values[self._find(quantity)]

    def __contains__(self, quantity: object) -> bool:
        return quantity in self._nodes

    def __iter__(self) -> Iterator[str | Quantity]:
        return iter(self._nodes)

    def pullback(self, cotangents: Mapping[Any, Array]) -> Array:
        """Return the gradient by the variables ``(variables,)`` of a cost that depends on several quantities.

        Cotangents are summed at each quantity before they go on, and every image is pulled back once.

        Parameters
        ----------
        cotangents : mapping of str or Quantity to array of shape (scenarios, voxels)
            Derivative of the cost by the values of each; what is left out counts as zero.

        Raises
        ------
        InputError
            When the images were given and the variables are not known, a cotangent has another shape than the values,
            or a vjp does not return one cotangent per need.
        UnknownNameError
            When a quantity was not evaluated.
        """
        if self.x is None:
            raise InputError(
                "these quantities were evaluated from images, without variables to pull back to: take image_cotangents "
                "and the model's own pullback"
            )
        return self.model.pullback(self.x, self.image_cotangents(cotangents))

    def image_cotangents(self, cotangents: Mapping[Any, Array]) -> dict[str, Array]:
        """Return the derivative by each image ``(scenarios, voxels)`` of a cost that depends on several quantities.

        Parameters and errors are those of `pullback`, which is the model's pullback of this.
        """
        gathered: dict[_Node, Array] = {}
        for key, cotangent in cotangents.items():
            node = self._find(key)
            expected = tuple(self._values[node].shape)
            if tuple(cotangent.shape) != expected:
                raise InputError(
                    f"the cotangent of {node.name!r} has shape {tuple(cotangent.shape)}, expected {expected} "
                    "(scenarios, voxels) like its values"
                )
            _add(gathered, node, cotangent)
        images: dict[str, Array] = {}
        for node in reversed(tuple(self._values)):
            if node not in gathered:
                continue
            if node.quantity is None:
                images[node.name] = gathered[node]
                continue
            passed = node.quantity.vjp(gathered[node], *(self._values[source] for source in node.inputs))
            if not isinstance(passed, tuple) or len(passed) != len(node.inputs):
                raise InputError(
                    f"vjp of the quantity {node.name!r} must return a tuple of {len(node.inputs)} cotangents, one for "
                    f"each of {node.quantity.needs}, got {type(passed).__name__}"
                )
            for source, part in zip(node.inputs, passed, strict=True):
                _add(gathered, source, part)
        return images

    def _find(self, quantity: str | Quantity) -> _Node:
        if quantity not in self._nodes:
            raise UnknownNameError("evaluated quantity", str(quantity), [str(key) for key in self._nodes])
        return self._nodes[quantity]


def _add(gathered: dict[_Node, Array], node: _Node, part: Array) -> None:
    gathered[node] = gathered[node] + part if node in gathered else part


def _dependencies_first(nodes: Iterable[_Node]) -> tuple[_Node, ...]:
    """Return the nodes and all they need, each after its inputs."""
    order: dict[_Node, None] = {}

    def visit(node: _Node) -> None:
        if node not in order:
            for source in node.inputs:
                visit(source)
            order[node] = None

    for node in nodes:
        visit(node)
    return tuple(order)


def _sequence(quantities: Iterable[str | Quantity]) -> Iterable[str | Quantity]:
    if isinstance(quantities, str | Quantity):
        raise InputError(f"evaluate takes a list of quantities, got {quantities!r}; write [{quantities!r}]")
    return quantities


def _missing_parameters(quantity: str, missing: list[str], known: Mapping[str, Array], radiation: str) -> str:
    given = ", ".join(known) if known else "none"
    example = ", ".join(f"{name}=..." for name in missing)
    message = (
        f"{quantity!r} needs the voxel parameter{'s' if len(missing) > 1 else ''} {', '.join(missing)} of the tissue "
        f"in each voxel, and the model has {given}: give model.with_voxel_parameters({example}), a number or one value "
        "per voxel"
    )
    if "rbe" in missing and radiation == "photons":
        return f"{message}; the rbe of photons is 1"
    if "rbe" in missing:
        return (
            f"{message}; without an rbe, or images alpha_dose and sqrt_beta_dose, {radiation} have no biology: choose "
            "a constant rbe or a biological model when the dose influence is calculated"
        )
    return message
