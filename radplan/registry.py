"""One registry for every noun that users plug in: quantities, objectives, engines, solvers."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from numbers import Real
from types import UnionType
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from radplan.errors import InputError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Concrete classes of one kind, found by their `name`.

    A class joins by decoration, or from another package through an entry point of the group ``radplan.<kind>``
    (spaces become underscores), which is loaded the first time a name is not found here.

    Parameters
    ----------
    kind : str
        What the registry holds, in the singular; used in messages and as the entry-point group.
    base : type
        The abstract class that every entry derives from.

    Raises
    ------
    InputError
        When a class is abstract, has no name, does not derive from `base`, or its name is taken.
    UnknownNameError
        When a name is asked for that nothing answers to.

    >>> class Shape: pass
    >>> shapes = Registry("shape", Shape)
    >>> @shapes.register
    ... class Square(Shape):
    ...     name = "square"
    >>> shapes.get("square").__name__
    'Square'
    """

    def __init__(self, kind: str, base: type[T]) -> None:
        self.kind = kind
        self.base = base
        self._entries: dict[str, type[T]] = {}
        self._entry_points_loaded = False

    def register(self, cls: type[T]) -> type[T]:
        """Add a class under its `name` and return it, so that it serves as a decorator."""
        if not (isinstance(cls, type) and issubclass(cls, self.base)):
            raise InputError(f"a {self.kind} must derive from {self.base.__name__}, got {cls!r}")
        if inspect.isabstract(cls):
            missing = ", ".join(sorted(getattr(cls, "__abstractmethods__", ())))
            raise InputError(f"{cls.__name__} is abstract and cannot be registered as a {self.kind}: define {missing}")
        name = cls.__dict__.get("name")
        if not isinstance(name, str) or not name:
            raise InputError(f"{cls.__name__} needs a class attribute `name` (a non-empty str) to be a {self.kind}")
        held = self._entries.get(name)
        if held is not None and _identity(held) != _identity(cls):
            raise InputError(
                f"the {self.kind} name {name!r} is taken by {_identity(held)}; give {_identity(cls)} another name"
            )
        self._entries[name] = cls
        return cls

    def get(self, name: str) -> type[T]:
        """Return the class registered as `name`, or raise `UnknownNameError` with the nearest name."""
        if name not in self._entries:
            self.load_entry_points()
        if name not in self._entries:
            raise UnknownNameError(self.kind, name, self._entries)
        return self._entries[name]

    def load_entry_points(self) -> None:
        """Import what other installed packages offer under ``radplan.<kind>``; done once."""
        if self._entry_points_loaded:
            return
        self._entry_points_loaded = True
        for point in entry_points(group=f"radplan.{self.kind.replace(' ', '_')}"):
            try:
                loaded: Any = point.load()
            except ImportError as error:
                raise InputError(
                    f"the {self.kind} {point.name!r} of another package cannot be imported: {error}"
                ) from error
            self.register(loaded)

    def names(self) -> tuple[str, ...]:
        """Return all registered names in alphabetical order."""
        return tuple(sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[type[T]]:
        return iter([self._entries[name] for name in self.names()])

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Registry({self.kind!r}: {', '.join(self.names())})"


def checked_options(cls: type, what: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of a dataclass as its annotations want them, or raise where one is of another kind.

    Numbers of any kind become int and float; what is annotated by anything but numbers, texts, truth values, literals
    and unions or tuples of these is left to the class.

    Parameters
    ----------
    cls : type
        The dataclass.
    what : str
        What messages call an option, such as ``"option of the engine 'photon_pencil_beam'"``.
    options : mapping
        By name, as a plan file gives them.

    Raises
    ------
    InputError
        When an option is of another kind; names it, what is expected and what was given.
    """
    try:
        hints = get_type_hints(cls)
    except NameError:  # an annotation for type checkers alone
        hints = {}
    checked: dict[str, Any] = {}
    for key, value in options.items():
        fitting = _fitting(value, hints.get(key, Any))
        if fitting is _UNFIT:
            raise InputError(f"{what}: {key} must be {_said(hints[key])}, got {value!r}")
        checked[key] = fitting
    return checked


_UNFIT = object()
_WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", type(None): "none"}


def _fitting(value: Any, hint: Any) -> Any:
    """Return a value as an annotation wants it, or `_UNFIT`."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return next((fit for part in inner if (fit := _fitting(value, part)) is not _UNFIT), _UNFIT)
    if kind is Literal:
        return value if value in inner else _UNFIT
    if kind is tuple:
        return tuple(value) if isinstance(value, list | tuple) else _UNFIT
    if hint is type(None):
        return None if value is None else _UNFIT
    if hint is bool or hint is str:
        return value if isinstance(value, hint) else _UNFIT
    if hint is float or hint is int:
        number = isinstance(value, Real) and not isinstance(value, bool)
        whole = number and (hint is float or float(value).is_integer())
        return hint(value) if number and whole else _UNFIT
    return value


def _said(hint: Any) -> str:
    """Return what an annotation wants, in words."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return " or ".join(_said(part) for part in inner)
    if kind is Literal:
        return " or ".join(repr(word) for word in inner)
    return "a list" if kind is tuple else _WORDS.get(hint, str(hint))


def _identity(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
