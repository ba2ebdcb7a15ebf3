"""Scenarios: the cases a plan is judged in, what goes wrong in each, and their probabilities."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan.beams.errors import SetupRangeError
from radplan.errors import InputError

Kind = Literal["axes", "shifts", "grid", "random"]
KINDS: tuple[Kind, ...] = ("axes", "shifts", "grid", "random")
Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Scenarios:
    """The cases a plan is judged in: the nominal one first, with probabilities that sum to 1.

    Parameters
    ----------
    names : tuple of str
        One for each case, no two the same.
    probabilities : tuple of float
        Theirs, >= 0, summing to 1.
    errors : tuple of SetupRangeError
        What goes wrong in each case, the first nominal; empty where the cases are known by name only, as of imported
        matrices or phases of a CT.

    Raises
    ------
    InputError
        When there is no case, numbers do not agree, or probabilities do not sum to 1.

    >>> Scenarios.nominal().names
    ('nominal',)
    """

    names: tuple[str, ...]
    probabilities: tuple[float, ...]
    errors: tuple[SetupRangeError, ...] = ()

    def __post_init__(self) -> None:
        for name in ("names", "probabilities", "errors"):
            object.__setattr__(self, name, tuple(self.__dict__[name]))
        if not self.names or len(self.names) != len(self.probabilities):
            raise InputError(f"{len(self.names)} scenario names and {len(self.probabilities)} probabilities were given")
        if len(set(self.names)) != len(self.names):
            raise InputError(f"every scenario needs a name of its own, got {', '.join(self.names)}")
        if min(self.probabilities) < 0 or not abs(sum(self.probabilities) - 1.0) <= 1e-9:
            raise InputError(f"scenario probabilities must be >= 0 and sum to 1, got {self.probabilities}")
        if self.errors and len(self.errors) != len(self.names):
            raise InputError(f"{len(self.names)} scenarios and {len(self.errors)} errors were given")
        if self.errors and not self.errors[0].nominal:
            raise InputError(f"the first scenario is the nominal case, but it has the error {self.errors[0]}")

    @classmethod
    def nominal(cls) -> Scenarios:
        """Return the single nominal case."""
        return cls(("nominal",), (1.0,), (SetupRangeError(),))

    @classmethod
    def setup_and_range(
        cls,
        setup: float | Sequence[float] = 5.0,
        range: float | tuple[float, float] = (0.035, 1.0),
        kind: Kind = "axes",
        points: int = 3,
        deviations: float = 1.0,
        combined_range: bool = True,
        count: int = 10,
        seed: int = 0,
    ) -> Scenarios:
        r"""Return cases of setup shifts and range errors, weighted by a normal distribution.

        Parameters
        ----------
        setup : float or (float, float, float)
            Largest shift along each axis of the world [mm], >= 0; for ``"random"`` cases `deviations` standard
            deviations.
        range : float or (float, float)
            Largest relative range error [1] and, where two are given, absolute one [mm], >= 0.
        kind : "axes", "shifts", "grid" or "random"
            ``"axes"``: one thing goes wrong at a time; three points give nine cases. ``"shifts"``: every combination of
            shifts, and range errors by themselves. ``"grid"``: every combination of all. ``"random"``: `count` cases
            drawn from the normal distribution, alike in probability, after the nominal one.
        points : int
            Equally spaced values of each error, odd, >= 3.
        deviations : float
            How many standard deviations the largest errors are, > 0.
        combined_range : bool
            Whether relative and absolute range errors go together, or are a grid of their own.
        count, seed : int
            Number of random cases besides the nominal one, and the seed they are drawn with.

        Raises
        ------
        InputError
            When a number is out of its range or the kind is not known.

        Notes
        -----
        The lists, their order and weights are those of matRad 3.2.2: ``"axes"`` its wcScen (and with ``points=9`` its
        impScen), ``"shifts"`` and ``"grid"`` the same with combinations "shift" and "all". A case of zero errors along
        an axis enters with the density of the normal distribution there,
        :math:`p \propto \exp(-\tfrac12 \sum (e_i/\sigma_i)^2)`.

        >>> cases = Scenarios.setup_and_range(setup=5.0, range=0.035)
        >>> len(cases), cases.names[1], cases.errors[8].relative_range
        (9, 'x -5 mm', 0.035)
        """
        sizes = _sizes(setup, range)
        _check_options(kind, points, deviations, count)
        if kind == "random":
            return cls._named(_drawn(sizes, deviations, count, seed), None)
        shifts, ranges = _lists(sizes, kind, points, combined_range)
        if kind == "grid":
            cases = [(*shift, *error) for error in ranges for shift in shifts]
        else:
            cases = [(*shift, 0.0, 0.0) for shift in shifts] + [(0.0, 0.0, 0.0, *error) for error in ranges[1:]]
        scale = np.where(np.asarray(sizes) > 0.0, np.asarray(sizes) / deviations, 1.0)
        density = np.exp(-0.5 * np.sum((np.asarray(cases) / scale) ** 2, axis=1))
        return cls._named(cases, density / density.sum())

    @classmethod
    def _named(cls, cases: Sequence[Numbers], weights: npt.NDArray[np.float64] | None) -> Scenarios:
        """Return cases (x, y, z [mm], relative, absolute [mm]) under names that say them; alike where no weights."""
        errors = tuple(SetupRangeError((x, y, z), relative, absolute) for x, y, z, relative, absolute in cases)
        names = [_name(case) for case in cases]
        if len(set(names)) != len(names):
            names = [names[0], *(f"{number}: {name}" for number, name in enumerate(names[1:], start=1))]
        shares = np.full(len(cases), 1.0 / len(cases)) if weights is None else weights
        return cls(tuple(names), tuple(float(share) for share in shares), errors)

    def __len__(self) -> int:
        return len(self.names)


def _sizes(setup: float | Sequence[float], range: float | Sequence[float]) -> Numbers:
    """Return the largest errors (x, y, z [mm], relative, absolute [mm])."""
    try:
        shifts = np.asarray(setup, dtype=np.float64)
        errors = np.asarray(range, dtype=np.float64)
    except (TypeError, ValueError):
        raise InputError(f"setup and range must be numbers, got {setup!r} and {range!r}") from None
    if shifts.shape not in ((), (3,)) or not np.all(np.isfinite(shifts)) or np.any(shifts < 0.0):
        raise InputError(f"setup must be a shift >= 0 mm or one for each of x, y and z, got {setup!r}")
    if errors.shape not in ((), (2,)) or not np.all(np.isfinite(errors)) or np.any(errors < 0.0):
        raise InputError(f"range must be a relative error >= 0, or (relative, absolute in mm), got {range!r}")
    relative, absolute = (float(errors), 0.0) if errors.ndim == 0 else errors.tolist()
    if relative >= 1.0:
        raise InputError(f"a relative range error lies in [0, 1), as 0.035 for 3.5 %, got {relative!r}")
    return (*np.broadcast_to(shifts, (3,)).tolist(), relative, absolute)


def _check_options(kind: str, points: int, deviations: float, count: int) -> None:
    if kind not in KINDS:
        raise InputError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not (isinstance(points, int | np.integer) and points >= 3 and points % 2 == 1):
        raise InputError(f"points must be an odd whole number >= 3, got {points!r}")
    if not (math.isfinite(deviations) and deviations > 0.0):
        raise InputError(f"deviations must be > 0, got {deviations!r}")
    if not (isinstance(count, int | np.integer) and count >= 1):
        raise InputError(f"count must be a whole number >= 1, got {count!r}")


def _lists(sizes: Numbers, kind: Kind, points: int, combined_range: bool) -> tuple[list[Numbers], list[Numbers]]:
    """Return the shifts and the range errors of cases, those of zero first, each once, in matRad's order."""
    half = points // 2
    steps = np.arange(-half, half + 1) / half
    x, y, z, relative, absolute = ([float(step * size) for step in steps] if size > 0.0 else [0.0] for size in sizes)
    if kind == "axes":
        shifts = [(value, 0.0, 0.0) for value in x] + [(0.0, value, 0.0) for value in y]
        shifts += [(0.0, 0.0, value) for value in z]
    else:
        shifts = [(a, b, c) for c, a, b in itertools.product(z, x, y)]
    if combined_range:
        ranges = [(float(step * sizes[3]), float(step * sizes[4])) for step in steps]
    else:
        ranges = [(r, a) for a, r in itertools.product(absolute, relative)]
    return _zero_first(shifts, (0.0, 0.0, 0.0)), _zero_first(ranges, (0.0, 0.0))


def _zero_first(cases: Sequence[Numbers], zero: Numbers) -> list[Numbers]:
    return list(dict.fromkeys([zero, *cases]))


def _drawn(sizes: Numbers, deviations: float, count: int, seed: int) -> list[Numbers]:
    """Return the nominal case and some of a normal distribution; relative and absolute range errors go together."""
    random = np.random.default_rng(seed)
    drawn = random.standard_normal((count, 4)) / deviations
    shares = np.column_stack([drawn, drawn[:, 3]])
    cases = (shares * np.asarray(sizes)).tolist()
    return [(0.0,) * 5, *(tuple(case) for case in cases)]


def _name(case: Numbers) -> str:
    """Return what a case is called: ``x -5 mm``, ``range +3.5 % +1 mm``."""
    x, y, z, relative, absolute = case
    parts = [f"{axis} {value:+.3g} mm" for axis, value in (("x", x), ("y", y), ("z", z)) if value]
    if relative or absolute:
        shares = [f"{100 * relative:+.3g} %"] if relative else []
        lengths = [f"{absolute:+.3g} mm"] if absolute else []
        parts.append(" ".join(["range", *shares, *lengths]))
    return ", ".join(parts) or "nominal"
