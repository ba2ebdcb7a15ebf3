"""The registry refuses what cannot be found again and helps with what was misspelt."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pytest

from radplan.errors import InputError, UnknownNameError
from radplan.registry import Registry


class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...


@pytest.fixture
def shapes() -> Registry[Shape]:
    return Registry("shape", Shape)


def square(name: str = "square") -> type[Shape]:
    return type("Square", (Shape,), {"name": name, "area": lambda self: 1.0, "__module__": f"made.{name}"})


def test_finds_by_name(shapes: Registry[Shape]) -> None:
    cls = shapes.register(square())
    assert shapes.get("square") is cls
    assert shapes.names() == ("square",)
    assert "square" in shapes


def test_near_miss(shapes: Registry[Shape]) -> None:
    shapes.register(square())
    with pytest.raises(UnknownNameError, match=r"no shape named 'sqare'; did you mean 'square'\?"):
        shapes.get("sqare")


def test_refuses_duplicates(shapes: Registry[Shape]) -> None:
    shapes.register(square())
    other = type("Other", (Shape,), {"name": "square", "area": lambda self: 2.0})
    with pytest.raises(InputError, match="'square' is taken by"):
        shapes.register(other)


def test_refuses_abstract_nameless_and_foreign(shapes: Registry[Shape]) -> None:
    with pytest.raises(InputError, match="abstract"):
        shapes.register(Shape)
    with pytest.raises(InputError, match="needs a class attribute `name`"):
        shapes.register(type("Nameless", (Shape,), {"area": lambda self: 1.0}))
    with pytest.raises(InputError, match="must derive from Shape"):
        shapes.register(int)  # type: ignore[arg-type]


def test_entry_points_join(shapes: Registry[Shape], monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "circle"

        def load(self) -> type[Shape]:
            return square("circle")

    monkeypatch.setattr("radplan.registry.entry_points", lambda group: [Point()] if group == "radplan.shape" else [])
    assert shapes.get("circle").name == "circle"


def test_a_broken_entry_point_says_which(shapes: Registry[Shape], monkeypatch: pytest.MonkeyPatch) -> None:
    class Point:
        name = "circle"

        def load(self) -> type[Shape]:
            raise ImportError("no module named round")

    monkeypatch.setattr("radplan.registry.entry_points", lambda group: [Point()])
    with pytest.raises(InputError, match="'circle' of another package cannot be imported: no module named round"):
        shapes.get("circle")
