"""A plan of scanned particle beams as a delivery system gets it: every spot's place, energy and monitor units."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beam, Beams
from radplan.beams.range_shifter import RangeShifter
from radplan.beams.spots import least_spot_mu, monitor_units
from radplan.errors import InputError
from radplan.machines.particle import ParticleMachine

Floats = npt.NDArray[np.float64]

_SAME_PLACE = 1e-4
"""Spots of one energy nearer than this are one spot, given in several parts [mm]."""


@dataclass(frozen=True, eq=False)
class ScannedLayer:
    """The spots of one energy that are delivered one after another.

    Parameters
    ----------
    energy : float
        Nominal energy [MeV/u].
    positions : array of shape (n, 2)
        x and y in the isocentre plane, IEC gantry coordinates [mm].
    mu : array of shape (n,)
        Monitor units of each spot, per fraction [MU]; particles where the plan counts those.
    spot_size : (float, float), optional
        Full widths at half maximum along x and y in air at the isocentre [mm].
    tune : str
        The spot tune that the delivery system is told.
    paintings : int
        How often the layer is scanned; `mu` is the sum.
    range_shifter : RangeShifter, optional
        In front of the patient.

    Raises
    ------
    InputError
        When shapes disagree or a number is impossible.

    >>> ScannedLayer(100.0, np.zeros((1, 2)), np.asarray([3.0])).count
    1
    """

    energy: float
    positions: Floats
    mu: Floats
    spot_size: tuple[float, float] | None = None
    tune: str = ""
    paintings: int = 1
    range_shifter: RangeShifter | None = None

    def __post_init__(self) -> None:
        if not (self.energy > 0 and math.isfinite(self.energy)):
            raise InputError(f"energy must be > 0 MeV/u, got {self.energy}")
        if self.positions.ndim != 2 or self.positions.shape[1] != 2 or self.mu.shape != self.positions.shape[:1]:
            raise InputError(
                f"expected a place (x, y) and MU for each spot, got shapes {self.positions.shape} and {self.mu.shape}"
            )
        if not (np.all(np.isfinite(self.positions)) and np.all(np.isfinite(self.mu)) and np.all(self.mu >= 0.0)):
            raise InputError("places must be finite and monitor units >= 0")

    @property
    def count(self) -> int:
        """Number of spots."""
        return int(self.mu.size)


@dataclass(frozen=True, eq=False)
class ScannedField:
    """A field of scanned spots.

    Parameters
    ----------
    name : str
        What the plan calls it.
    number : int
        Its number in the plan.
    gantry, couch : float
        IEC 61217 angles [degree].
    isocenter : array of shape (3,)
        World position [mm].
    virtual_sad : (float, float)
        Distances from the points that spots are scanned from along x and y to the isocentre [mm].
    layers : tuple of ScannedLayer
        One or more, in order of delivery.
    radiation : str
        ``"protons"``, ``"helium"`` or ``"carbon"``.
    unit : "MU" or "NP"
        What spots are counted in: monitor units, or particles.
    snout : float, optional
        From the snout's exit to the isocentre [mm].
    machine : str
        Name of the delivery system in the plan.

    Raises
    ------
    InputError
        When there is no layer or an angle or distance is impossible; the field is named.
    """

    name: str
    number: int
    gantry: float
    couch: float
    isocenter: Floats
    virtual_sad: tuple[float, float]
    layers: tuple[ScannedLayer, ...]
    radiation: str = "protons"
    unit: str = "MU"
    snout: float | None = None
    machine: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))
        if not self.layers:
            raise InputError(f"{self.label}: has no layer of spots")
        if not all(distance > 0 and math.isfinite(distance) for distance in self.virtual_sad):
            raise InputError(f"{self.label}: virtual_sad must be two distances > 0 mm, got {self.virtual_sad}")
        if np.shape(self.isocenter) != (3,) or not np.all(np.isfinite([*self.isocenter, self.gantry, self.couch])):
            raise InputError(f"{self.label}: needs finite angles and an isocentre (x, y, z)")

    @property
    def label(self) -> str:
        """Number and name, for messages."""
        return f"field {self.number} ({self.name})"

    @property
    def mu(self) -> float:
        """Monitor units of one fraction [MU]."""
        return math.fsum(float(layer.mu.sum()) for layer in self.layers)

    @property
    def count(self) -> int:
        """Number of spots of all layers."""
        return sum(layer.count for layer in self.layers)

    def layer_label(self, index: int) -> str:
        """Return field, number of the layer and its energy, for messages."""
        return f"{self.label}, layer {index + 1} ({self.layers[index].energy:g} MeV/u)"


@dataclass(frozen=True, eq=False)
class ScannedPlan:
    """The fields of scanned spots of a plan, as delivered in one fraction.

    Parameters
    ----------
    name : str
        What the plan is called.
    fields : tuple of ScannedField
        One or more.
    fractions : int, optional
        Planned number of fractions.
    patient_position : str
        How the patient lies (``"HFS"``), or empty where the plan does not say.

    Raises
    ------
    InputError
        When there is no field, or fields differ in radiation.
    """

    name: str
    fields: tuple[ScannedField, ...]
    fractions: int | None = None
    patient_position: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", tuple(self.fields))
        if not self.fields:
            raise InputError(f"the plan {self.name!r} has no field with spots")
        kinds = sorted({field.radiation for field in self.fields})
        if len(kinds) > 1:
            raise InputError(f"the plan {self.name!r} mixes {' and '.join(kinds)}: calculate them one by one")

    @property
    def radiation(self) -> str:
        """What all fields deliver."""
        return self.fields[0].radiation

    @property
    def mu(self) -> float:
        """Monitor units of one fraction, all fields together [MU]."""
        return math.fsum(field.mu for field in self.fields)

    @property
    def energies(self) -> Floats:
        """All nominal energies, each once, increasing [MeV/u]."""
        return np.unique([layer.energy for field in self.fields for layer in field.layers])

    def __len__(self) -> int:
        return len(self.fields)

    def __iter__(self) -> Iterator[ScannedField]:
        return iter(self.fields)


def check_spots(plan: ScannedPlan, machine: ParticleMachine) -> None:
    """Raise `InputError` where a machine cannot deliver a plan: radiation, energies, least and largest MU of a spot.

    The message names the field, the layer and the spot.
    """
    if plan.radiation != machine.radiation:
        raise InputError(
            f"plan {plan.name!r} is of {plan.radiation}, machine {machine.name!r} delivers {machine.radiation}"
        )
    low, high = float(machine.energies[0]), float(machine.energies[-1])
    for field in plan:
        for index, layer in enumerate(field.layers):
            where = field.layer_label(index)
            if not low - 1e-4 <= layer.energy <= high + 1e-4:
                raise InputError(
                    f"{where}: its energy lies outside machine {machine.name!r}, which has {low:g} to {high:g} MeV/u"
                )
            if field.unit != "MU":
                continue
            least, largest = least_spot_mu(machine, layer.energy)
            given = layer.mu[layer.mu > 0.0]
            wrong = (given < least * (1 - 1e-6)) | (given > largest * (1 + 1e-6))
            if wrong.any():
                raise InputError(
                    f"{where}: {int(wrong.sum())} of {given.size} spots lie outside what machine {machine.name!r} "
                    f"delivers, {least:g} to {largest:g} MU; the first has {given[wrong][0]:g} MU"
                )


def spot_beams(plan: ScannedPlan, machine: ParticleMachine) -> tuple[Beams, Floats]:
    """Return a plan's spots as beams for an engine, and their weights [10^6 particles per fraction].

    Parts of a spot that a layer or several layers of one energy give are added up; layers behind different range
    shifters become beams of their own.

    Parameters
    ----------
    plan : ScannedPlan
        The plan.
    machine : ParticleMachine
        What delivers it, with the energies of the plan; its `sad` becomes that of the beams.
    """
    beams: list[Beam] = []
    weights: list[Floats] = []
    for field in plan:
        for shifter in dict.fromkeys(layer.range_shifter for layer in field.layers):
            layers = [layer for layer in field.layers if layer.range_shifter == shifter and layer.mu.any()]
            if not layers:
                continue
            per_unit = [_particles(machine, layer.energy) if field.unit == "MU" else 1.0 for layer in layers]
            energies = np.concatenate([np.full(layer.count, layer.energy) for layer in layers])
            places = np.concatenate([layer.positions for layer in layers])
            number = np.concatenate([layer.mu * n / 1e6 for layer, n in zip(layers, per_unit, strict=True)])
            keys = np.column_stack([np.round(places / _SAME_PLACE), np.round(energies / 1e-6)]).astype(np.int64)
            _, first, spot = np.unique(keys, axis=0, return_index=True, return_inverse=True)
            total = np.bincount(spot.reshape(-1), weights=number)
            kept = total > 0.0
            beams.append(
                Beam(
                    field.gantry, field.couch, 0.0, field.isocenter, machine.sad, _spacing(layers),
                    places[first][kept], energies[first][kept], shifter, plan.patient_position or "HFS",
                )
            )  # fmt: skip
            weights.append(np.asarray(total[kept], dtype=np.float64))
    if not beams:
        raise InputError(f"no spot of plan {plan.name!r} has monitor units")
    return Beams(tuple(beams), plan.radiation, machine.name), np.concatenate(weights)


def _particles(machine: ParticleMachine, energy: float) -> float:
    return machine.entry(machine.energy_index(energy)).particles_per_mu


def _spacing(layers: list[ScannedLayer]) -> float:
    """Return the usual distance of neighbouring spots of a layer [mm]; 5 where there are none."""
    from scipy.spatial import cKDTree

    largest = max(layers, key=lambda layer: layer.count)
    places = np.unique(np.round(largest.positions, 3), axis=0)
    if places.shape[0] < 2:
        return 5.0
    distance = np.asarray(cKDTree(places).query(places, k=2)[0])
    return float(np.median(distance[:, 1]))


def scanned_plan(
    beams: Beams, weights: npt.ArrayLike, machine: ParticleMachine, fractions: int | None = None, name: str = "plan"
) -> ScannedPlan:
    """Return spot weights of beams as a plan that a delivery system gets, deepest layers first; spots of weight 0 go.

    Parameters
    ----------
    beams : Beams
        Beams of spots, in the order of the weights.
    weights : array of shape (spots,)
        [10^6 particles per fraction]
    machine : ParticleMachine
        Gives the particles per MU of each energy, spot sizes and scanning distances.
    fractions : int, optional
        Number of fractions.
    name : str
        What the plan is called.

    Raises
    ------
    InputError
        When there is not one weight for each spot, or no spot has any.
    """
    mu = monitor_units(beams, machine, weights)
    fields, first = [], 0
    for number, beam in enumerate(beams, start=1):
        own, first = mu[first : first + beam.count], first + beam.count
        assert beam.energies is not None
        turn = np.deg2rad(beam.collimator)
        turned = np.asarray([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        layers = []
        for energy in np.unique(beam.energies[own > 0.0])[::-1]:
            there = (beam.energies == energy) & (own > 0.0)
            index = machine.energy_index(float(energy))
            width = np.sqrt(8 * np.log(2)) * _sigma(machine, index)
            layers.append(
                ScannedLayer(
                    float(energy), beam.bixels[there] @ turned, own[there], (float(width[0]), float(width[1])),
                    range_shifter=beam.range_shifter,
                )
            )  # fmt: skip
        if layers:
            fields.append(
                ScannedField(
                    f"beam {number}", number, beam.gantry, beam.couch, beam.isocenter, machine.scan_distances,
                    tuple(layers), beams.radiation, machine=machine.name,
                )
            )  # fmt: skip
    return ScannedPlan(name, tuple(fields), fractions, beams[0].patient_position)


def _sigma(machine: ParticleMachine, index: int) -> Floats:
    """Return the standard deviations of a spot along x and y in air at the isocentre [mm]."""
    layer = machine.entry(index)
    if layer.emittance is not None:
        return np.asarray(np.sqrt(layer.emittance.variance(0.0)))
    return np.repeat(layer.focus.sigma_at(np.asarray([machine.sad])), 2)
