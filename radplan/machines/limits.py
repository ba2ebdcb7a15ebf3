"""What a linac can deliver: speeds, gaps, spans and steps as data with their sources, for a clinic to override."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from radplan.errors import FileError, InputError, UnknownNameError
from radplan.machines.mlc import MLC, library_mlc

LIBRARY = Path(__file__).parent / "library" / "limits.yaml"
"""The limits that radplan ships."""

Pair = tuple[float, float]
OptionalPair = tuple[float | None, float | None]


@dataclass(frozen=True)
class MachineLimits:
    r"""What a linac can deliver. Lengths in the isocentre plane; geometry and dosimetry of leaves are the `MLC`'s.

    Parameters
    ----------
    name : str
        What users call the linac.
    mlc : str
        Name of its multileaf collimator.
    leaf_speed, gantry_speed : float
        Fastest motion of a leaf [mm/s] and of the gantry [degree/s], > 0.
    dose_rates : mapping of str to float
        Largest dose rates [MU/min], > 0: of ``"flat"`` beams, and of beams without filter by their energy, such as
        ``"6 FFF"``.
    mu_per_degree : (float, float)
        Fewest and most monitor units per degree of a segment of an arc [MU/degree].
    leaf_travel : (float, float)
        How far a leaf end goes out from the axis and how far past it, both > 0 [mm].
    dynamic_gap : float
        Smallest gap of a pair that moves under beam [mm], >= 0.
    static_gap : float
        Smallest gap of a pair that stands still [mm], >= 0.
    bank_span : float
        Largest distance of two leaf ends of one bank while the carriage stands [mm]; infinite where there is none.
    neighbour_gap : float, optional
        Smallest gap of a leaf and the opposed neighbours of its pair [mm]; None where leaves interdigitate.
    gantry_speed_least : float
        Slowest motion of the gantry under beam [degree/s], >= 0: how long an arc waits for leaves.
    arc_stops : (float, float)
        Where clockwise arcs begin and end at the widest [degree]: the gantry cannot go on from the second to the first.
    jaw_past_axis, jaw_outward : (float or None, float or None)
        How far an X and a Y jaw go past the axis and out from it [mm]; None where the linac has none.
    jaw_speed : (float or None, float or None)
        Fastest motion of X and Y jaws [mm/s].
    jaw_tracking : bool
        Whether jaws may move under beam.
    segment_mu : float
        Fewest monitor units of a shape of step and shoot [MU], >= 0.
    leaf_step, angle_step, mu_step : float
        Steps in which positions [mm], angles [degree] and monitor units [MU] are stated, > 0.
    margin : float
        Share of every speed that plans keep in hand, in [0, 1): no limit here knows of acceleration.
    provenance : mapping of str to str
        Where the numbers come from.

    Raises
    ------
    InputError
        When a value is out of its range.

    >>> truebeam = library_limits("TrueBeam")
    >>> truebeam.leaf_speed, truebeam.planning().leaf_speed, truebeam.dose_rate(10.0, "FFF")
    (25.0, 23.75, 2400.0)
    """

    name: str
    mlc: str
    leaf_speed: float
    gantry_speed: float
    dose_rates: Mapping[str, float]
    mu_per_degree: Pair
    leaf_travel: Pair
    dynamic_gap: float
    static_gap: float = 0.0
    bank_span: float = math.inf
    neighbour_gap: float | None = None
    gantry_speed_least: float = 0.0
    arc_stops: Pair = (181.0, 179.0)
    jaw_past_axis: OptionalPair = (None, None)
    jaw_outward: OptionalPair = (None, None)
    jaw_speed: OptionalPair = (None, None)
    jaw_tracking: bool = False
    segment_mu: float = 1.0
    leaf_step: float = 0.01
    angle_step: float = 0.1
    mu_step: float = 0.001
    margin: float = 0.05
    provenance: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for label in ("leaf_speed", "gantry_speed", "bank_span", "leaf_step", "angle_step", "mu_step"):
            self._require(label, getattr(self, label) > 0, "> 0")
        for label in ("dynamic_gap", "static_gap", "gantry_speed_least", "segment_mu"):
            self._require(label, 0 <= getattr(self, label) < math.inf, ">= 0")
        self._require("margin", 0 <= self.margin < 1, "in [0, 1)")
        self._require("dose_rates", "flat" in self.dose_rates and min(self.dose_rates.values()) > 0, "> 0, 'flat' too")
        self._require("mu_per_degree", 0 <= self.mu_per_degree[0] < self.mu_per_degree[1], "two rising numbers >= 0")
        self._require("leaf_travel", min(self.leaf_travel) > 0, "two numbers > 0")
        self._require("gantry_speed_least", self.gantry_speed_least < self.gantry_speed, "below gantry_speed")
        for past, out, speed in zip(self.jaw_past_axis, self.jaw_outward, self.jaw_speed, strict=True):
            given = [value for value in (past, out, speed) if value is not None]
            self._require("jaw_past_axis, jaw_outward, jaw_speed", len(given) in (0, 3), "all given or all None")
            self._require("jaw_past_axis, jaw_outward, jaw_speed", all(value > 0 for value in given), "> 0")

    def _require(self, label: str, fulfilled: bool, expected: str) -> None:
        if not fulfilled:
            given = ", ".join(str(getattr(self, part)) for part in label.split(", "))
            raise InputError(f"limits {self.name!r}: {label} must be {expected}, got {given}")

    @property
    def leaf_bounds(self) -> tuple[Pair, Pair]:
        """Lowest and highest position of the leaves of the first bank (negative side) and of the second [mm]."""
        outward, past = self.leaf_travel
        return (-outward, past), (-past, outward)

    def jaw_bounds(self, axis: int) -> tuple[Pair, Pair] | None:
        """Return lowest and highest position of the first and the second jaw of axis 0 (X) or 1 (Y) [mm]."""
        past, outward = self.jaw_past_axis[axis], self.jaw_outward[axis]
        if past is None or outward is None:
            return None
        return (-outward, past), (-past, outward)

    def collimator(self) -> MLC:
        """Return the multileaf collimator of the linac.

        Raises
        ------
        UnknownNameError
            When radplan describes none of that name.
        """
        return library_mlc(self.mlc)

    def dose_rate(self, energy: float | None = None, fluence_mode: str = "STANDARD") -> float:
        """Return the largest dose rate of a beam [MU/min].

        Parameters
        ----------
        energy : float, optional
            Nominal energy [MV].
        fluence_mode : str
            ``"STANDARD"`` for beams with a flattening filter.

        Raises
        ------
        InputError
            When the linac has no such beam without filter.
        """
        if fluence_mode == "STANDARD":
            return float(self.dose_rates["flat"])
        key = f"{energy:g} FFF" if energy is not None else "FFF"
        if key not in self.dose_rates:
            raise InputError(
                f"limits {self.name!r} state no dose rate for {key}; they know {', '.join(self.dose_rates)}: add it"
            )
        return float(self.dose_rates[key])

    def planning(self) -> MachineLimits:
        """Return the limits to plan with: every speed and dose rate less the margin, which is then 0."""
        kept = 1.0 - self.margin
        return replace(
            self,
            leaf_speed=kept * self.leaf_speed,
            gantry_speed=kept * self.gantry_speed,
            jaw_speed=(_times(kept, self.jaw_speed[0]), _times(kept, self.jaw_speed[1])),
            dose_rates={key: kept * rate for key, rate in self.dose_rates.items()},
            margin=0.0,
        )


def library_limits(name: str) -> MachineLimits:
    """Return the limits of a linac by name; upper and lower case, blanks, ``-`` and ``_`` do not matter.

    Raises
    ------
    UnknownNameError
        When there is none of that name; the message offers the nearest.

    >>> library_limits("versa-hd").mlc
    'Agility'
    """
    known = _library()
    folded = {_folded(key): value for key, value in known.items()}
    if _folded(name) not in folded:
        raise UnknownNameError("limits of a linac", name, known)
    return folded[_folded(name)]


def limits_for(mlc: MLC | str) -> MachineLimits:
    """Return the first limits in the library whose linac has a multileaf collimator.

    Raises
    ------
    InputError
        When none has.

    >>> limits_for("HD 120").name
    'TrueBeam STx'
    """
    name = mlc.name if isinstance(mlc, MLC) else library_mlc(mlc).name
    for limits in _library().values():
        if limits.mlc == name:
            return limits
    raise InputError(f"no known linac has the collimator {name!r}: describe its MachineLimits(...) and give them")


def limits_with(mlc: MLC, limits: MachineLimits | str | Path | None = None) -> MachineLimits:
    """Return limits given in any way, after a check that the linac has this collimator; without any, `limits_for` it.

    Raises
    ------
    InputError
        When the linac has another collimator.

    >>> limits_with(library_mlc("Agility"), "TrueBeam")
    Traceback (most recent call last):
    ...
    radplan.errors.InputError: 'TrueBeam' has the collimator Millennium 120, not 'Agility': give the limits of its linac
    """
    if limits is None:
        return limits_for(mlc)
    chosen = machine_limits(limits)
    if not chosen.collimator().fits(mlc.boundaries):
        raise InputError(
            f"{chosen.name!r} has the collimator {chosen.mlc}, not {mlc.name!r}: give the limits of its linac"
        )
    return chosen


def leaf_limits(mlc: MLC | None, limits: MachineLimits | str | Path | None = None) -> MachineLimits | None:
    """Return the limits that leaves of a collimator move within: those given, or of the first known linac with it.

    None where there are none: no leaves, or a collimator of one's own without limits, whose leaves stay where they are.

    Raises
    ------
    InputError
        When the limits are those of another collimator.

    >>> leaf_limits(library_mlc("Agility")).name
    'Versa HD'
    """
    if mlc is None:
        return None
    if limits is None:
        return next((one for one in _library().values() if one.mlc == mlc.name), None)
    chosen = machine_limits(limits)
    if chosen.mlc != mlc.name:
        raise InputError(f"{chosen.name!r} has the collimator {chosen.mlc}, not {mlc.name!r}: give its own limits")
    return chosen


def machine_limits(limits: MachineLimits | str | Path) -> MachineLimits:
    """Return limits given as such, by the name of a linac, or as a YAML file that holds one linac.

    Raises
    ------
    UnknownNameError
        When no linac has that name.
    FileError
        When the file cannot be read, or holds several linacs.
    """
    if isinstance(limits, MachineLimits):
        return limits
    if isinstance(limits, str) and Path(limits).suffix not in (".yaml", ".yml"):
        return library_limits(limits)
    read = read_limits(limits)
    if len(read) != 1:
        raise FileError(limits, f"holds the limits of {', '.join(read)}; expected those of one linac")
    return next(iter(read.values()))


@cache
def _library() -> Mapping[str, MachineLimits]:
    return read_limits(LIBRARY)


def read_limits(path: str | Path) -> Mapping[str, MachineLimits]:
    """Read the limits of linacs by name from a YAML file: the fields of `MachineLimits` for each.

    ``based_on`` names a linac of this file or of the library whose numbers and sources hold where nothing is said.

    Raises
    ------
    FileError
        When the file cannot be read, or an entry is unknown, missing or out of its range.

    >>> sorted(read_limits(LIBRARY))
    ['Clinac', 'TrueBeam', 'TrueBeam STx', 'Versa HD']
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(path, f"cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FileError(path, f"is no valid YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise FileError(
            path, "must hold the name of a linac with its limits below, such as 'My linac: {based_on: ...}'"
        )
    entries: dict[str, dict[str, Any]] = {}
    for name, entry in content.items():
        entries[str(name)] = _completed(path, str(name), entry, entries)
    return {name: _limits(path, name, entry) for name, entry in entries.items()}


def _completed(path: str | Path, name: str, entry: Mapping[str, Any], before: Mapping[str, Any]) -> dict[str, Any]:
    """Return an entry with what it takes over from the linac it is based on."""
    parent = entry.get("based_on")
    own = {key: value for key, value in entry.items() if key != "based_on"}
    if parent is None:
        return own
    if parent in before:
        base = before[parent]
    elif Path(path) != LIBRARY:
        known = library_limits(parent)
        base = {entry.name: getattr(known, entry.name) for entry in fields(MachineLimits) if entry.name != "name"}
    else:
        raise FileError(path, f"{name}: is based on {parent!r}, which does not stand before it")
    return {**base, **own, "provenance": {**base.get("provenance", {}), **own.get("provenance", {})}}


def _limits(path: str | Path, name: str, entry: Mapping[str, Any]) -> MachineLimits:
    known = {item.name for item in fields(MachineLimits)}
    unknown = sorted(set(entry) - known)
    if unknown:
        raise FileError(path, f"{name}: {unknown[0]!r} is no limit; known: {', '.join(sorted(known - {'name'}))}")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    try:
        return MachineLimits(name=name, **values)
    except (TypeError, ValueError) as error:
        raise FileError(path, f"{name}: {' '.join(str(error).split())}") from None


def _folded(name: str) -> str:
    return "".join(c for c in name.casefold() if c not in " -_")


def _times(factor: float, speed: float | None) -> float | None:
    return None if speed is None else factor * speed
