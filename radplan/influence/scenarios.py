"""Scenarios: the cases a plan is judged in, with their probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from radplan.errors import InputError


@dataclass(frozen=True)
class Scenarios:
    """The cases a plan is judged in: the nominal one first, with probabilities that sum to 1.

    >>> Scenarios.nominal().names
    ('nominal',)
    """

    names: tuple[str, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        if not self.names or len(self.names) != len(self.probabilities):
            raise InputError(f"{len(self.names)} scenario names and {len(self.probabilities)} probabilities were given")
        if min(self.probabilities) < 0 or abs(sum(self.probabilities) - 1.0) > 1e-9:
            raise InputError(f"scenario probabilities must be >= 0 and sum to 1, got {self.probabilities}")

    @classmethod
    def nominal(cls) -> Scenarios:
        """Return the single nominal case."""
        return cls(("nominal",), (1.0,))

    def __len__(self) -> int:
        return len(self.names)
