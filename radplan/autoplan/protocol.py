"""Protocols: one file for each site that says how a patient is planned without a hand.

Names, helper structures, beams, scorecard, prescription and calculation settings; see `library/protocols`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from radplan.autoplan.recipes import Helper, Prepared, with_helpers
from radplan.autoplan.scorecard import Scorecard, read_scorecard
from radplan.autoplan.templates import BeamTemplate
from radplan.errors import FileError, InputError, RadplanError, UnknownNameError
from radplan.patient import Patient, Structure, Structures
from radplan.patient.names import NameMap, StructureName, normalise

FORMAT = "radplan-protocol"
VERSION = 1
_KEYS = (
    "format", "version", "name", "site", "source", "targets", "fractions", "normalise", "helpers", "beams",
    "scorecard", "grid", "bixel_width", "lateral_cutoff", "machine", "rings", "derived",
)  # fmt: skip
_NEAR = 1.0
"""How near the dose that a target's name states must come to a level of the protocol [Gy]."""
_AIDS = ("z", "Z", "_", "~")
"""What names of structures that serve planning alone begin with (TG-263: z)."""


@dataclass(frozen=True)
class Protocol:
    """How patients of one site are planned.

    Parameters
    ----------
    name, site : str
        What it is called.
    targets : mapping of str to float
        Planning target volumes by canonical name, highest first, with their prescribed doses [Gy].
    fractions : int
        Number of fractions.
    normalise : mapping
        The highest target present is scaled until ``percent`` of its volume get ``level`` (a share of its dose), or,
        where that would be hotter, until D1 is ``hottest``: a target in air or skin cannot be covered.
    helpers : tuple of Helper
        Helper structures.
    beams : BeamTemplate
        Where the beams come from.
    scorecard : Scorecard
        How plans are judged.
    derived : tuple of Helper
        Targets that are made where none is drawn, such as a PTV of prostate and seminal vesicles.
    rings : mapping of str to float
        Helpers that get no more than a share of the dose of the highest target [1].
    grid, bixel_width, lateral_cutoff : float
        Spacing of the dose grid, width of bixels and reach of the kernel [mm].
    machine : str
        Which machine plans.
    source : str
        Where prescription and criteria come from.
    """

    name: str
    site: str
    targets: Mapping[str, float]
    fractions: int
    normalise: Mapping[str, float]
    helpers: tuple[Helper, ...]
    beams: BeamTemplate
    scorecard: Scorecard
    derived: tuple[Helper, ...] = ()
    rings: Mapping[str, float] | None = None
    grid: float = 5.0
    bixel_width: float = 7.5
    lateral_cutoff: float = 50.0
    machine: str = "generic_photon_6mv"
    source: str = ""

    def __post_init__(self) -> None:
        if not self.targets or sorted(self.targets.values(), reverse=True) != list(self.targets.values()):
            raise InputError(f"protocol {self.name!r}: targets stand from the highest dose to the lowest")

    @property
    def prescription(self) -> float:
        """Dose of the highest target [Gy]."""
        return next(iter(self.targets.values()))

    @property
    def own_names(self) -> frozenset[str]:
        """Names of structures that the protocol itself uses, in its card and in what its helpers are made of."""
        made_of = (name for helper in (*self.derived, *self.helpers) for name in helper.names)
        return frozenset((*(item.criterion.structure for item in self.scorecard.items), *made_of))

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> Protocol:
        """Return the protocol that plain data describes.

        Raises
        ------
        UnknownNameError
            When a key is misspelt.
        InputError
            When something is missing or impossible.
        """
        if spec.get("format") != FORMAT or spec.get("version") != VERSION:
            raise InputError(f"a protocol states format {FORMAT!r} and version {VERSION}")
        for key in spec:
            if key not in _KEYS:
                raise UnknownNameError("key of a protocol", str(key), _KEYS)
        missing = [key for key in ("name", "targets", "fractions", "beams", "scorecard") if key not in spec]
        if missing:
            raise InputError(f"a protocol needs {', '.join(map(repr, missing))}")
        rest = {
            key: spec[key]
            for key in ("grid", "bixel_width", "lateral_cutoff", "machine", "source", "rings")
            if key in spec
        }
        targets = {name: float(dose) for name, dose in spec["targets"].items()}
        card = {"prescription_gy": next(iter(targets.values())), "fractions": spec["fractions"], **spec["scorecard"]}
        return cls(
            name=spec["name"],
            site=spec.get("site", ""),
            targets=targets,
            fractions=int(spec["fractions"]),
            normalise=spec.get("normalise") or {"percent": 95.0, "level": 1.0},
            helpers=tuple(helper for entry in spec.get("helpers", ()) for helper in Helper.from_spec(entry)),
            derived=tuple(helper for entry in spec.get("derived", ()) for helper in Helper.from_spec(entry)),
            beams=BeamTemplate.from_spec(spec["beams"]),
            scorecard=Scorecard.from_spec({"format": "radplan-scorecard", "version": 1, **card}),
            **rest,
        )


@dataclass(frozen=True)
class Understood:
    """A patient as a protocol sees it.

    Parameters
    ----------
    prepared : Prepared
        The patient with canonical names, targets and helpers.
    names : NameMap
        What its names mean.
    notes : tuple of str
        What was left out, and why.
    """

    prepared: Prepared
    names: NameMap
    notes: tuple[str, ...]

    @property
    def patient(self) -> Patient:
        """The patient to plan."""
        return self.prepared.patient


def understand(patient: Patient, protocol: Protocol) -> Understood:
    """Return the patient with canonical names, the targets of the protocol, and its helper structures.

    A structure that bears a name of the protocol's own, such as the core of a phantom, keeps it.

    Raises
    ------
    InputError
        When no target is found, or two structures may be one target: an automatic plan never guesses its target.
    """
    names = normalise(patient.structures)
    originals, notes = names.originals, []
    doubtful = [name for name in names.ambiguous if name.original.upper().startswith(("PTV", "CTV", "ITV", "GTV"))]
    if any(name.original.upper().startswith("PTV") for name in doubtful):
        written = ", ".join(repr(name.original) for name in doubtful)
        raise InputError(
            f"patient {patient.name!r}: {written} may be the same target; rename or remove all but the right"
        )
    chosen = _targets(names, protocol)
    own = protocol.own_names
    renamed = {original: canonical for canonical, original in originals.items() if original not in own}
    renamed |= {original: target for target, original in chosen.items()}
    parts = [_as_seen(structure, renamed.get(name, name), chosen) for name, structure in patient.structures.items()]
    seen = replace(patient, structures=Structures(parts), goals=(), fractions=protocol.fractions,
                   prescription=protocol.prescription)  # fmt: skip
    if seen.external.name not in seen.structures:
        seen = replace(seen, structures=Structures([*parts, replace(seen.external, name="External")]))
    if not chosen:
        made = with_helpers(seen, protocol.derived)
        if not any(target in made.made for target in protocol.targets):
            raise InputError(
                f"patient {patient.name!r} has no target of the protocol {protocol.name!r} "
                f"({', '.join(f'{name} {dose:g} Gy' for name, dose in protocol.targets.items())}); its structures: "
                f"{', '.join(patient.structures)}"
            )
        seen = made.patient
    others = [
        name for name in names.matched.values() if _is_planning_target(name) and name.original not in chosen.values()
    ]
    notes += [f"{name.original!r} is no target of the protocol: not planned" for name in others]
    notes += [f"{name.original!r} left out: may be {', '.join(name.candidates)}" for name in names.ambiguous]
    prepared = with_helpers(seen, protocol.helpers)
    notes += [f"helper {name} not made: {why}" for name, why in prepared.left_out.items()]
    return Understood(prepared, names, tuple(notes))


def load_protocol(name: str | Path) -> Protocol:
    """Return a built-in protocol by its name, or one of a JSON file.

    Raises
    ------
    UnknownNameError
        When no protocol has that name.
    FileError
        When a file cannot be read or says something impossible.

    >>> load_protocol("prostate").fractions
    20
    """
    from radplan.io.scorecard_json import read_json

    file = Path(name)
    if file.suffix == ".json":
        try:
            return Protocol.from_spec(read_json(file))
        except FileError:
            raise
        except (RadplanError, TypeError, KeyError, ValueError) as error:
            raise FileError(file, f"is no protocol: {error}") from error
    if str(name) not in protocol_names():
        raise UnknownNameError("protocol", str(name), protocol_names())
    text = resources.files("radplan.autoplan").joinpath(f"library/protocols/{name}.json").read_text(encoding="utf-8")
    return Protocol.from_spec(json.loads(text))


def load_scorecard(card: str | Path) -> tuple[Scorecard, Protocol | None]:
    """Return the scorecard of a built-in protocol, with the protocol, or that of a file.

    Raises
    ------
    UnknownNameError
        When it is neither a file nor a protocol's name.
    FileError
        When the file is no scorecard.

    >>> card, protocol = load_scorecard("prostate")
    >>> card.name, protocol.fractions
    ('prostate 60 Gy in 20', 20)
    """
    if str(card) in protocol_names():
        protocol = load_protocol(card)
        return protocol.scorecard, protocol
    if not Path(card).exists():
        raise UnknownNameError("scorecard file, or protocol with a scorecard,", str(card), protocol_names())
    return read_scorecard(card), None


@cache
def protocol_names() -> tuple[str, ...]:
    """Return the names of the built-in protocols."""
    folder = resources.files("radplan.autoplan").joinpath("library/protocols")
    return tuple(sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".json")))


def _targets(names: NameMap, protocol: Protocol) -> dict[str, str]:
    """Return the targets of a protocol with the names that the patient gives them."""
    chosen: dict[str, str] = {}
    drawn = [name for name in names.matched.values() if _is_planning_target(name)]
    # Why: what is less sure of being a target than its namesake may still be the right one.
    beside = [name for name in names.unmatched if _is_planning_target(name) and not name.original.startswith(_AIDS)]
    for target, dose in protocol.targets.items():
        fitting = [name for name in (*drawn, *beside) if name.canonical == target or _states(name, dose)]
        if len(fitting) > 1:
            written = ", ".join(repr(name.original) for name in fitting)
            raise InputError(f"{written} may all be the target {target} of {dose:g} Gy; rename or remove all but one")
        if fitting:
            chosen[target] = fitting[0].original
    if chosen or len(protocol.targets) > 1:
        return chosen
    ((target, dose),) = protocol.targets.items()
    silent = [name.original for name in drawn if name.dose is None]
    if len(silent) > 1:
        written = ", ".join(map(repr, silent))
        raise InputError(f"{written} may all be the target {target} of {dose:g} Gy; rename or remove all but one")
    return {target: silent[0]} if silent and len(drawn) == 1 else {}


def _is_planning_target(name: StructureName) -> bool:
    return name.is_target and name.canonical.startswith("PTV")


def _states(name: StructureName, dose: float) -> bool:
    """Return whether a target's name states a dose [Gy]."""
    return name.dose is not None and abs(name.dose - dose) <= _NEAR


def _as_seen(structure: Structure, name: str, chosen: Mapping[str, str]) -> Structure:
    """Return a structure under its canonical name; only the targets of the protocol are targets."""
    if name in chosen:
        return replace(structure, name=name, role="target", priority=1)
    if name == "External" or structure.role == "external":
        return replace(structure, name="External", role="external", priority=None)
    if name.startswith(("PTV", "CTV", "ITV", "GTV", "Couch", "Bolus")) or structure.role == "ignored":
        return replace(structure, name=name, role="ignored", priority=None)
    return replace(structure, name=name, role="oar", priority=2)
