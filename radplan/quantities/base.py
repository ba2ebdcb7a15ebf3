"""What a quantity is: a pure function of images and of other quantities, with its pullback."""

from __future__ import annotations

import inspect
import re
from abc import ABC, abstractmethod
from dataclasses import MISSING, Field, fields, is_dataclass, replace
from typing import Annotated, Any, ClassVar, Self, TypeVar

from radplan.arrays import Array, autodiff_vjp
from radplan.errors import InputError
from radplan.registry import Registry

T = TypeVar("T")

VOXEL_PARAMETER = "radplan voxel parameter"

Voxel = Annotated[T, VOXEL_PARAMETER]
"""Marks a field of a quantity that is filled from the model's voxel parameter of the same name.

The values arrive as an array of shape ``(1 or scenarios, voxels)`` in the dtype and on the device of the images.
"""


class Quantity(ABC):
    """A value per scenario and voxel that goals, metrics and plans can be written in.

    A quantity is a frozen dataclass. It knows its inputs by name and nothing else: not the beams, not the variables,
    not the number of scenarios. It works elementwise, is written in the array API and leaves its inputs as they were.
    All values are per fraction.

    Fields marked ``Voxel[Array]`` are filled from the model's voxel parameters by name (with the default None an
    instance can be made without them); any other field is an option and has a default.

    Attributes
    ----------
    name : str
        What users write; also the image that stands in for the quantity when a model gives one of that name.
    unit : str
        Unit of the values.
    needs : tuple of str
        Names of the inputs, in the order `forward` takes them. A name is another quantity or an image. A quantity that
        needs itself is an image that only a model can give.
    additive : bool
        Whether the course total is the number of fractions times the value per fraction.
    ratio : bool
        Whether it is a ratio to physical dose that divides by no less than an option ``floor`` [Gy per fraction]: its
        metrics leave out points of less dose, and maps show it where there is dose. False when left out.
    title : str
        What axes and tables call it; the words of the name when left out.

    Notes
    -----
    Only `forward` must be written. Without a `vjp` the pullback is differentiated by torch or JAX when the model lives
    there; NumPy cannot do this.

    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class DoubleDose(Quantity):
    ...     name = "double_dose"
    ...     unit = "Gy"
    ...     needs = ("physical_dose",)
    ...     additive = True
    ...     def forward(self, physical_dose):
    ...         return 2.0 * physical_dose
    ...     def vjp(self, cotangent, physical_dose):
    ...         return (2.0 * cotangent,)
    >>> DoubleDose().forward(1.5)
    3.0
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    additive: ClassVar[bool]
    ratio: ClassVar[bool] = False
    title: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for attribute, meaning in _DECLARED.items():
            if attribute not in cls.__dict__:
                raise InputError(f"the quantity {cls.__name__} must state `{attribute}`: {meaning}")
        if isinstance(cls.needs, str) or not all(isinstance(need, str) for need in cls.needs) or not cls.needs:
            raise InputError(
                f"needs of the quantity {cls.__name__} must be a tuple of names such as ('physical_dose',), "
                f"got {cls.needs!r}"
            )
        if not isinstance(cls.additive, bool):
            raise InputError(f"additive of the quantity {cls.__name__} must be True or False, got {cls.additive!r}")
        if cls.ratio and (cls.additive or "floor" not in inspect.get_annotations(cls)):
            raise InputError(
                f"the ratio {cls.__name__} needs an option `floor` [Gy], and fractions do not add up in it"
            )
        if not cls.title:
            cls.title = _words(cls.name)

    def floored(self, floor: float) -> Self:
        """Return a ratio that divides by no less than a dose per fraction [Gy]; other quantities as they are."""
        return replace(self, floor=floor) if self.ratio else self  # type: ignore[type-var]

    @abstractmethod
    def forward(self, *inputs: Any, **named: Any) -> Array:
        """Return the values for the inputs in `needs`.

        Parameters
        ----------
        *inputs : array of shape (scenarios, voxels)
            One for each need, per fraction; a concrete quantity names them: ``forward(self, physical_dose)``.
        **named : array of shape (scenarios, voxels)
            The same inputs by name.

        Returns
        -------
        array of shape (scenarios, voxels)
        """

    def vjp(self, cotangent: Array, *inputs: Any, **named: Any) -> tuple[Array, ...]:
        """Return the cotangents of the inputs, always a tuple with one for each need.

        Parameters
        ----------
        cotangent : array of shape (scenarios, voxels)
            Derivative of some cost by the values of this quantity.
        *inputs : array of shape (scenarios, voxels)
            Where `forward` was evaluated, in the order of `needs`.
        **named : array of shape (scenarios, voxels)
            The same inputs by name.
        """
        rest = (named[need] for need in self.needs[len(inputs) :])
        return autodiff_vjp(self.forward, cotangent, *inputs, *rest)

    @classmethod
    def examples(cls) -> list[Self]:
        """Return instances that between them show every branch, for the conformance checks.

        Voxel parameters may be left None, or given as numbers or nested sequences. By default there is one example,
        with all options at their defaults.
        """
        return [unbound(cls)]


_ACRONYMS = {"let": "LET", "rbe": "RBE", "bed": "BED", "eqd2": "EQD2"}


def _words(name: str) -> str:
    """Return a name as words: ``LET dose`` for ``let_dose``."""
    words = [_ACRONYMS.get(word, word) for word in name.split("_")]
    return " ".join([words[0][:1].upper() + words[0][1:], *words[1:]])


_DECLARED = {
    "name": "a str, what users write in a goal",
    "unit": "a str such as 'Gy'",
    "needs": "a tuple with the names of the inputs of forward",
    "additive": "True when fractions add up (dose), False when they do not (LET)",
}

QUANTITIES: Registry[Quantity] = Registry("quantity", Quantity)  # type: ignore[type-abstract]
"""All quantities known by name; entry points of the group ``radplan.quantity`` join on first use."""


def voxel_fields(cls: type[Quantity]) -> tuple[str, ...]:
    """Return the names of the fields marked ``Voxel[...]``, in order.

    Raises
    ------
    InputError
        When the class is no dataclass.
    """
    return tuple(field.name for field in _fields(cls) if _is_voxel(field))


def unbound(cls: type[Quantity]) -> Any:
    """Return the quantity with its options at their defaults and no voxel parameters yet.

    Raises
    ------
    InputError
        When an option has no default.
    """
    voxel = voxel_fields(cls)
    for field in _fields(cls):
        if field.name not in voxel and field.default is MISSING and field.default_factory is MISSING:
            raise InputError(
                f"{cls.__name__}.{field.name} has no default: give the option one, or mark the field Voxel[Array] when "
                "it is a voxel parameter of the model"
            )
    return cls(**dict.fromkeys(voxel))


def _fields(cls: type[Quantity]) -> tuple[Field[Any], ...]:
    if "__dataclass_fields__" not in cls.__dict__ or not is_dataclass(cls):
        raise InputError(f"the quantity {cls.__name__} must be a dataclass: put @dataclass(frozen=True) before it")
    return fields(cls)


def _is_voxel(field: Field[Any]) -> bool:
    # Why: postponed annotations arrive as text, and evaluating them would need the names of the author's module.
    if isinstance(field.type, str):
        return re.match(r"(\w+\.)*Voxel\[", field.type) is not None
    return VOXEL_PARAMETER in getattr(field.type, "__metadata__", ())
