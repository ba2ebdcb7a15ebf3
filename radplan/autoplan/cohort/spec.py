"""What a cohort is made of: a YAML file, validated, and the tasks that follow from it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from radplan.autoplan.cohort.generate import GENERATORS
from radplan.autoplan.protocol import load_protocol
from radplan.errors import FileError, InputError
from radplan.machines.limits import machine_limits


class Variants(BaseModel):
    """Trade-offs of each patient: weights of groups of organs drawn log-uniformly by Latin hypercube.

    The first variant has all factors at 1. Coverage, evenness and the largest dose are asked of every plan alike.

    Parameters
    ----------
    count : int
        Plans of each patient.
    groups : mapping of str to sequence of str
        Organs that are traded off together.
    lowest, highest : float
        Range of the factors on a group's weight [1].
    hottest : float
        Largest dose over the prescription that a plan should have anywhere [1].
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(default=1, ge=1, le=1000)
    groups: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    lowest: float = Field(default=0.1, gt=0)
    highest: float = Field(default=100.0, gt=0)
    hottest: float = Field(default=1.10, gt=1.0)

    @model_validator(mode="after")
    def _checked(self) -> Variants:
        if self.lowest >= self.highest:
            raise ValueError(f"lowest {self.lowest} must lie below highest {self.highest}")
        if self.count > 1 and not self.groups:
            raise ValueError("more than one variant needs groups of organs to trade off")
        return self


class ArcSpec(BaseModel):
    """Arcs instead of fixed fields: how many, and how finely they are searched.

    Parameters
    ----------
    count : int
        Number of arcs.
    spacing : float
        Largest distance of control points [degree].
    effort : float
        Sweeps and iterations over the usual ones [1].
    grid : float
        Spacing of the dose grid of the search [mm].
    limits : str
        Of which linac.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int = Field(default=1, ge=1, le=8)
    spacing: float = Field(default=4.0, gt=0)
    effort: float = Field(default=1.0, gt=0)
    grid: float = Field(default=5.0, gt=0)
    limits: str = "TrueBeam"


class CohortSpec(BaseModel):
    """A cohort: which patients, planned how, told what of each.

    Patients come from a generator (``generator``, ``options``, ``count``) or from files (``cases``). They get fixed
    fields with trade-offs (``variants``), or arcs (``arcs``).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[\w.-]+$")
    seed: int = Field(default=0, ge=0)
    count: int | None = Field(default=None, ge=1)
    generator: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    cases: tuple[str, ...] = ()
    protocol: str
    machine: str | None = None
    grid: float | None = Field(default=None, gt=0)
    variants: Variants = Variants()
    arcs: ArcSpec | None = None
    out: str

    @model_validator(mode="after")
    def _checked(self) -> CohortSpec:
        if (self.generator is None) == (not self.cases):
            raise ValueError("patients come from a generator or from cases: give one of the two")
        if self.generator is not None and self.count is None:
            raise ValueError("a generated cohort states its count")
        if self.arcs is not None and self.variants.count > 1:
            raise ValueError("arcs come in one variant: leave variants out")
        return self

    @property
    def size(self) -> int:
        """Number of patients."""
        return self.count or len(self.cases) if self.generator is not None else len(self.cases)

    def fingerprint(self) -> str:
        """Return the sha256 of what decides the results: all but the folder and the number of patients."""
        data = self.model_dump(mode="json", exclude={"out", "count"})
        if self.arcs is None:  # cohorts of fixed fields keep the fingerprint that they had before there were arcs
            del data["arcs"]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def read_cohort(path: str | Path) -> CohortSpec:
    """Return the cohort of a YAML file, checked: its generator and protocol exist.

    Raises
    ------
    FileError
        When the file cannot be read or says something impossible; names the entry.
    """
    file = Path(path)
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(file, f"cannot be read ({error.strerror})") from error
    except yaml.YAMLError as error:
        raise FileError(file, f"is no YAML ({' '.join(str(error).split())})") from error
    if not isinstance(data, dict):
        raise FileError(file, "holds no cohort: entries such as name, protocol, generator and count are expected")
    try:
        spec = CohortSpec.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise FileError(file, f"{place or 'cohort'}: {first['msg']}") from error
    load_protocol(spec.protocol)
    if spec.arcs is not None:
        machine_limits(spec.arcs.limits)
    if spec.generator is not None:
        generator = GENERATORS.get(spec.generator)
        try:
            generator(**spec.options)
        except TypeError as error:
            raise InputError(f"options of the generator {spec.generator!r}: {error}") from error
    return spec
