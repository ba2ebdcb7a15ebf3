"""Structures written as text, such as ``PTV4140 - (LUNGS + 5 mm)``: read, checked against the names, carried out.

| written | means |
|---|---|
| ``A | B``, ``A & B``, ``A - B``, ``A ^ B`` | together, in common, less, either-or |
| ``A + 5 mm``, ``A - 0.5 cm`` | grown, shrunk |
| ``margin(A, 5 mm, P 3 mm)`` | grown by 5 mm, posterior by 3 mm (L, R, A, P, S, I) |
| ``ring(A, 5 mm, 20 mm)`` | the shell from 5 to 20 mm around A |
| ``"Femoral Head Lt"`` | a name with spaces or signs in it |

Margins bind first, then ``&``, then ``|``, ``-`` and ``^`` from left to right; parentheses as usual. A text that
is, as a whole, the name of a structure means that structure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from radplan.errors import InputError, UnknownNameError
from radplan.patient.algebra import difference, intersection, ring, symmetric_difference, union
from radplan.patient.margins import DIRECTIONS, contract, expand
from radplan.patient.structures import Structure, Structures

_UNITS = {"mm": 1.0, "cm": 10.0}
_TOKEN = re.compile(
    r"(?P<space>\s+)|(?P<quoted>\"[^\"]*\"|'[^']*')|(?P<number>\d+(?:\.\d*)?|\.\d+)|(?P<name>[^\W\d][\w.]*)"
    r"|(?P<sign>[-+&|^(),])"
)
_COMBINE = {"|": union, "-": difference, "^": symmetric_difference, "&": intersection}
_DEEPEST = 50


class Expression(Protocol):
    """A structure as it was written: it knows the names it needs, and becomes a structure once they are there."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the structures it is made of, each once, in the order written."""
        ...

    def evaluate(self, structures: Mapping[str, Structure]) -> Structure:
        """Return the structure it stands for."""
        ...


@dataclass(frozen=True)
class Named:
    """A structure by its name, and where in the text it stands.

    >>> Named("PTV", 1).names
    ('PTV',)
    """

    name: str
    position: int
    text: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name,)

    def evaluate(self, structures: Mapping[str, Structure]) -> Structure:
        if self.name not in structures:
            why = structures.why_absent(self.name) if isinstance(structures, Structures) else ""
            unknown = UnknownNameError("structure", self.name, structures, why)
            raise InputError(f"structure expression {self.text!r}, position {self.position}: {unknown}")
        return structures[self.name]


@dataclass(frozen=True)
class Combined:
    """Two expressions joined by ``|``, ``&``, ``-`` or ``^``.

    >>> Combined("-", Named("PTV", 1), Named("LUNGS", 7)).names
    ('PTV', 'LUNGS')
    """

    sign: str
    left: Expression
    right: Expression

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*self.left.names, *self.right.names)))

    def evaluate(self, structures: Mapping[str, Structure]) -> Structure:
        return _COMBINE[self.sign](self.left.evaluate(structures), self.right.evaluate(structures))


@dataclass(frozen=True)
class Moved:
    """An expression grown (distances > 0) or shrunk (< 0) by distances [mm] in the order of `DIRECTIONS`.

    >>> Moved(Named("PTV", 1), (5.0,) * 6).names
    ('PTV',)
    """

    inner: Expression
    distances: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return self.inner.names

    def evaluate(self, structures: Mapping[str, Structure]) -> Structure:
        move = contract if min(self.distances) < 0 else expand
        return move(self.inner.evaluate(structures), dict(zip(DIRECTIONS, map(abs, self.distances), strict=True)))


@dataclass(frozen=True)
class Ring:
    """The shell around an expression between two distances [mm].

    >>> Ring(Named("PTV", 1), 5.0, 20.0).names
    ('PTV',)
    """

    inner: Expression
    begin: float
    end: float

    @property
    def names(self) -> tuple[str, ...]:
        return self.inner.names

    def evaluate(self, structures: Mapping[str, Structure]) -> Structure:
        return ring(self.inner.evaluate(structures), self.begin, self.end)


def parse_expression(text: str) -> Expression:
    """Read a structure expression without looking at any structure.

    Raises
    ------
    InputError
        When the text is no such expression; says where it ends to make sense.

    >>> parse_expression("PTV4140 - (LUNGS + 5 mm)").names
    ('PTV4140', 'LUNGS')
    """
    return _Parser(text, ()).whole()


def evaluate_expression(text: str, structures: Mapping[str, Structure], name: str | None = None) -> Structure:
    """Return the structure that a text describes.

    Parameters
    ----------
    text : str
        A structure's name, or an expression of names; see the module for the notation.
    structures : mapping of name to Structure
        What the names stand for.
    name : str, optional
        Name of the result; the text when not given.

    Raises
    ------
    InputError
        When the text is no expression or names a structure that is not there; gives the position, counted from 1, and
        the nearest name.

    >>> import numpy as np
    >>> from radplan.geometry.grid import Grid
    >>> line = Grid((1, 1, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> held = {"PTV": Structure("PTV", line, np.asarray([0, 1])), "Cord": Structure("Cord", line, np.asarray([1, 2]))}
    >>> evaluate_expression("PTV - Cord", held).voxels.tolist()
    [0]
    """
    if text in structures:
        return replace(structures[text], name=name or text)
    parsed = _Parser(text, tuple(structures)).whole()
    return replace(parsed.evaluate(structures), name=name or text)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


class _Parser:
    """Recursive descent over the tokens of one text; `known` names help to explain mistakes."""

    def __init__(self, text: str, known: tuple[str, ...]) -> None:
        if not isinstance(text, str) or not text.strip():
            raise InputError(f"a structure expression must be a text such as 'PTV - (CORD + 5 mm)', got {text!r}")
        self._text = text
        self._known = known
        self._tokens = self._split()
        self._next = 0
        self._depth = 0

    def whole(self) -> Expression:
        found = self._sum()
        if self._here.kind != "end":
            raise self._error("an operator (|, &, -, ^, +) or the end")
        return found

    def _split(self) -> list[_Token]:
        tokens: list[_Token] = []
        at = 0
        while at < len(self._text):
            match = _TOKEN.match(self._text, at)
            if match is None:
                what = "a quote that is not closed" if self._text[at] in "\"'" else f"{self._text[at]!r}"
                raise InputError(
                    f"structure expression {self._text!r}, position {at + 1}: found {what}, which has no meaning here; "
                    "quote names that hold signs"
                )
            kind = str(match.lastgroup)
            if kind != "space":
                word = match.group()[1:-1] if kind == "quoted" else match.group()
                tokens.append(_Token(kind, word, at + 1))
            at = match.end()
        return [*tokens, _Token("end", "", len(self._text) + 1)]

    @property
    def _here(self) -> _Token:
        return self._tokens[self._next]

    def _is(self, signs: str, ahead: int = 0) -> bool:
        token = self._tokens[min(self._next + ahead, len(self._tokens) - 1)]
        return token.kind == "sign" and token.text in signs

    def _take(self) -> _Token:
        token = self._here
        self._next += token.kind != "end"
        return token

    def _expect(self, sign: str, meaning: str) -> None:
        if not self._is(sign):
            raise self._error(f"{sign!r} {meaning}")
        self._take()

    def _error(self, expected: str) -> InputError:
        token = self._here
        found = "the end of the text" if token.kind == "end" else repr(token.text)
        return InputError(
            f"structure expression {self._text!r}, position {token.position}: expected {expected}, found {found}"
            + self._hint(token)
        )

    def _hint(self, token: _Token) -> str:
        before = self._tokens[self._next - 1] if self._next else None
        if token.kind in ("name", "number") and before is not None and before.kind == "name":
            start = self._text[before.position - 1 :]
            fits = [name for name in self._known if start.casefold().startswith(name.casefold())]
            wanted = max(fits, key=len) if fits else "Femoral Head"
            return f'; names with spaces or signs need quotes, such as "{wanted}"'
        return ""

    def _sum(self) -> Expression:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise InputError(
                f"structure expression {self._text[:60]!r}...: parentheses are nested deeper than {_DEEPEST}"
            )
        found = self._product()
        while self._is("|-^"):
            sign = self._take().text
            found = Combined(sign, found, self._product())
        if self._is("+"):
            self._take()
            raise self._error("a distance such as 5 mm after '+' (structures are joined by '|')")
        self._depth -= 1
        return found

    def _product(self) -> Expression:
        found = self._grown()
        while self._is("&"):
            self._take()
            found = Combined("&", found, self._grown())
        return found

    def _grown(self) -> Expression:
        found = self._atom()
        while self._is("+-") and self._tokens[self._next + 1].kind == "number":
            sign = 1.0 if self._take().text == "+" else -1.0
            found = Moved(found, (sign * self._distance(),) * len(DIRECTIONS))
        return found

    def _atom(self) -> Expression:
        if self._is("("):
            self._take()
            found = self._sum()
            self._expect(")", "to close the parenthesis")
            return found
        token = self._here
        if token.kind not in ("name", "quoted"):
            raise self._error("the name of a structure or '('")
        if token.kind == "name" and self._is("(", ahead=1):
            return self._function()
        self._take()
        return Named(token.text, token.position, self._text)

    def _function(self) -> Expression:
        if self._here.text not in ("ring", "margin"):
            raise self._error("ring(...), margin(...) or an operator before '('")
        function = self._take().text
        self._take()
        inner = self._sum()
        if function == "ring":
            self._expect(",", "and the distances where the ring begins and ends, such as ring(PTV, 5 mm, 20 mm)")
            begin = self._distance(signed=True)
            self._expect(",", "and the distance where the ring ends")
            position = self._here.position
            end = self._distance(signed=True)
            self._expect(")", "to close ring(")
            if not end > begin:
                raise InputError(
                    f"structure expression {self._text!r}, position {position}: a ring must end farther out than it "
                    f"begins, got {begin:g} mm to {end:g} mm"
                )
            return Ring(inner, begin, end)
        distances = self._directions()
        self._expect(")", "to close margin(")
        return Moved(inner, distances)

    def _directions(self) -> tuple[float, ...]:
        distances = dict.fromkeys(DIRECTIONS, 0.0)
        position = self._here.position
        self._expect(",", "and distances, such as margin(PTV, 5 mm, P 3 mm)")
        if self._here.kind != "name":
            distances = dict.fromkeys(DIRECTIONS, self._distance(signed=True))
            if not self._is(","):
                return tuple(distances.values())
            self._take()
        while True:
            if self._here.kind != "name" or self._here.text not in DIRECTIONS:
                raise self._error(f"a direction, one of {', '.join(DIRECTIONS)}")
            direction = self._take().text
            distances[direction] = self._distance(signed=True)
            if not self._is(","):
                break
            self._take()
        if min(distances.values()) < 0 < max(distances.values()):
            raise InputError(
                f"structure expression {self._text!r}, position {position}: a margin cannot grow to one side and "
                "shrink on another; nest two margins"
            )
        return tuple(distances.values())

    def _distance(self, signed: bool = False) -> float:
        sign = 1.0
        if signed and self._is("+-"):
            sign = 1.0 if self._take().text == "+" else -1.0
        if self._here.kind != "number":
            raise self._error("a distance such as 5 mm")
        value = float(self._take().text)
        if self._here.kind != "name" or self._here.text not in _UNITS:
            raise self._error("the unit of the distance, mm or cm")
        return sign * value * _UNITS[self._take().text]
