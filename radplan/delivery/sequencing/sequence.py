"""From the fluence of a plan to fields that a linac delivers: step and shoot, or sliding windows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt

from radplan.beams.beam import Beam, Beams
from radplan.beams.control_points import ControlPoint, DeliveryPlan, TreatmentField
from radplan.delivery.rounding import rounded_plan
from radplan.delivery.sequencing.engel import engel
from radplan.delivery.sequencing.frame import SPARE, Frame
from radplan.delivery.sequencing.quantise import FluenceMap, fluence_map, quantised
from radplan.delivery.sequencing.shapes import Shapes
from radplan.delivery.sequencing.siochi import siochi
from radplan.delivery.sequencing.sliding_window import SweepOptions, sliding_window
from radplan.delivery.sequencing.xia import xia
from radplan.errors import InputError, UnknownNameError
from radplan.machines.files import MACHINES, library_machine
from radplan.machines.limits import MachineLimits, limits_with
from radplan.machines.mlc import MLC, library_mlc
from radplan.machines.photon import PhotonMachine

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

SEQUENCERS: Mapping[str, Callable[[npt.ArrayLike], Shapes]] = {"siochi": siochi, "xia": xia, "engel": engel}
"""Sequencers of step and shoot by name: whole levels (rows, columns) to shapes."""

METHODS = (*SEQUENCERS, "sliding_window")
"""What `sequence` knows."""

_LEAK_ROUNDS = 5
"""Turns of what leaks through leaves and how many monitor units shapes need."""


class FluencePlan(Protocol):
    """A plan of bixel weights: what `radplan.optimize` returns."""

    @property
    def x(self) -> Floats:
        """Weights of all bixels [MU]."""

    @property
    def beams(self) -> Beams | None:
        """The beams they belong to."""

    @property
    def fractions(self) -> int:
        """Number of fractions."""


def sequence(
    plan: FluencePlan,
    mlc: MLC | str,
    method: str = "siochi",
    levels: int = 7,
    limits: MachineLimits | str | None = None,
    machine: PhotonMachine | None = None,
    control_points: int = 160,
    name: str = "sequenced",
) -> DeliveryPlan:
    """Return fields that deliver the fluence of a plan, in whole steps of the machine.

    What leaks through closed leaves within the jaws is taken off the fluence, and leaf ends stand so that their
    rounded ends let through just the columns that are to be open. A map wider than a bank spans becomes several fields
    of one beam that cross-fade over 20 mm; the first keeps the beam's number, the others follow the last beam's.

    Parameters
    ----------
    plan : Plan
        Photon plan with weights of bixels whose rows lie on leaf pairs (``place_beams(..., mlc=)``).
    mlc : MLC or str
        The collimator, or its name.
    method : "siochi", "xia", "engel" or "sliding_window"
        Siochi has no tongue-and-groove underdose, Engel the fewest monitor units, Xia the fewest steps of logic;
        sliding windows take no levels.
    levels : int
        Levels of step and shoot: how finely fluence is divided.
    limits : MachineLimits or str, optional
        What the linac can do, less its margin; that of the library with this collimator when left out.
    machine : PhotonMachine, optional
        Gives the energy; the one in the library by the name in the beams when left out.
    control_points : int
        Control points of a sliding window.
    name : str
        Of the plan.

    Raises
    ------
    UnknownNameError
        When the method or the collimator is unknown.
    InputError
        When the plan is no photon plan in monitor units or all its weights are zero, rows of bixels straddle leaves, or
        a field does not fit the limits.
    """
    if method not in METHODS:
        raise UnknownNameError("sequencing method", method, METHODS)
    collimator = library_mlc(mlc) if isinstance(mlc, str) else mlc
    allowed = limits_with(collimator, limits)
    if plan.beams is None:
        raise InputError(
            "the plan does not know its beams: make its Dij with dose_influence, or give beams to the plan"
        )
    linac = _linac(plan.beams, machine)
    splits = np.cumsum([beam.count for beam in plan.beams])[:-1]
    maps = [
        fluence_map(beam, weights, collimator)
        for beam, weights in zip(plan.beams, np.split(np.asarray(plan.x, dtype=np.float64), splits), strict=True)
    ]
    fields: list[TreatmentField] = []
    extra = len(maps)
    for number, (beam, fluence) in enumerate(zip(plan.beams, maps, strict=True), start=1):
        if not fluence.values.any():
            logger.info("beam %d at gantry %g is left out: all its weights are zero", number, beam.gantry)
            continue
        parts = fluence.split(allowed.bank_span - SPARE)
        for place, part in enumerate(parts):
            frame = Frame.around(part, collimator, allowed)
            if method == "sliding_window":
                opening = swept_openings(part, frame, collimator, allowed.planning(), linac, control_points)
            else:
                opening = stepped_openings(part, frame, collimator, allowed, SEQUENCERS[method], levels)
            extra += 1 if place else 0
            label = f"{number}{'abcdefgh'[place] if len(parts) > 1 else ''} G{beam.gantry:g}"
            fields.append(_field(beam, extra if place else number, label, frame, opening, collimator, linac))
    if not fields:
        raise InputError("all weights of the plan are zero: there is nothing to sequence")
    position = plan.beams[0].patient_position
    return rounded_plan(DeliveryPlan(name, tuple(fields), plan.fractions, position), allowed)


def check_sequence(beams: Beams, limits: MachineLimits, method: str = "siochi", refined: bool = True) -> None:
    """Refuse beams that no fluence makes fields of a linac with, before dose is calculated.

    Parameters
    ----------
    beams : Beams
        Of bixels whose rows are to lie on leaf pairs.
    limits : MachineLimits
        What the linac can do.
    method : str
        As `sequence` takes it.
    refined : bool
        Whether the leaves are to be optimised afterwards.

    Raises
    ------
    InputError
        When rows straddle leaves, the gap of pairs is wider than the field, leaves or jaws do not reach all bixels,
        leaves of a bank cannot be far enough apart, or leaves may not pass their neighbours and are to be optimised.
    """
    if refined and limits.neighbour_gap is not None:
        raise InputError(
            f"{limits.name}: leaves may not pass their neighbours, which optimised leaf ends do not keep: set refine "
            "to false"
        )
    mlc = limits.collimator()
    gap = limits.dynamic_gap if method == "sliding_window" else limits.static_gap
    for beam in beams:
        opened = fluence_map(beam, np.ones(beam.count), mlc)
        wide = float(np.ptp(opened.edges))
        if gap > wide:
            raise InputError(
                f"the beam at gantry {beam.gantry:g}: leaf pairs of {limits.name} stay {gap:g} mm apart, more than the "
                f"{wide:g} mm of the field: they cannot shape it"
            )
        for part in opened.split(limits.bank_span - SPARE):
            Frame.around(part, mlc, limits)


def stepped_openings(
    fluence: FluenceMap,
    frame: Frame,
    mlc: MLC,
    limits: MachineLimits,
    sequencer: Callable[[npt.ArrayLike], Shapes],
    levels: int,
) -> tuple[Floats, Floats]:
    """Return leaf ends (control points, pairs, 2) [mm] and monitor units given so far (control points,) of shapes.

    Every shape is two control points, before and after its monitor units. They follow one another as the sequencer
    gives them, or always the nearest, whichever is less way for the leaves.
    """
    shapes, unit = _shapes(fluence, mlc.transmission, sequencer, levels)
    rows = fluence.rows
    ends = []
    for first, last in zip(shapes.first, shapes.last, strict=True):
        closed = np.ones(mlc.pairs, dtype=bool)
        closed[rows] = first == last
        opened = np.zeros((mlc.pairs, 2))
        middle = 0.5 * (fluence.edges[first] + fluence.edges[last])
        half = 0.5 * (fluence.edges[last] - fluence.edges[first]) - mlc.leaf_offset
        half = np.maximum(half, 0.5 * limits.static_gap)
        opened[rows] = np.stack([middle - half, middle + half], axis=1)
        ends.append(frame.parked(opened, closed, limits.static_gap, limits.bank_span))
    stands = np.asarray(ends)
    order = _shortest_order(stands)
    given = np.concatenate([[0.0], np.cumsum(unit * shapes.units[order])])
    return np.repeat(stands[order], 2, axis=0), np.repeat(given, 2)[1:-1]


def _shortest_order(stands: Floats) -> list[int]:
    """Return the order of shapes (shapes, pairs, 2) with less way for leaves: as they are, or always the nearest."""
    ways = np.max(np.abs(stands[:, None] - stands[None]), axis=(2, 3))
    nearest = [0]
    left = list(range(1, len(stands)))
    while left:
        nearest.append(left.pop(int(np.argmin(ways[nearest[-1], left]))))
    orders = (list(range(len(stands))), nearest)
    return min(orders, key=lambda order: float(ways[order[:-1], order[1:]].sum()))


def swept_openings(
    fluence: FluenceMap,
    frame: Frame,
    mlc: MLC,
    limits: MachineLimits,
    machine: PhotonMachine,
    control_points: int,
) -> tuple[Floats, Floats]:
    """Return leaf ends (control points, pairs, 2) [mm] and monitor units (control points,) of a sliding window."""
    options = SweepOptions(
        speed=limits.leaf_speed,
        dose_rate=limits.dose_rate(machine.energy) / 60.0,
        gap=limits.dynamic_gap + 2.0 * mlc.leaf_offset,
        transmission=mlc.transmission,
        park=None if frame.jaws_x is None else frame.park[0],
        control_points=control_points,
    )
    sweep = sliding_window(fluence, options)
    ends = np.stack([sweep.trailing + mlc.leaf_offset, sweep.leading - mlc.leaf_offset], axis=2)
    closed = ~sweep.swept
    ends[:, closed] = frame.parked(ends[0], closed, limits.static_gap, limits.bank_span)[closed]
    return ends, np.linspace(0.0, sweep.mu, control_points)


def _shapes(
    fluence: FluenceMap, transmission: float, sequencer: Callable[[npt.ArrayLike], Shapes], levels: int
) -> tuple[Shapes, float]:
    """Return shapes for a map less what leaks through leaves, and the monitor units of one level."""
    given = fluence.values[fluence.rows]
    whole, unit = quantised(given, levels)
    shapes = sequencer(whole)
    for _ in range(_LEAK_ROUNDS if transmission > 0 else 0):
        leak = transmission * unit * float(shapes.units.sum())
        whole, unit = quantised(np.maximum(given - leak, 0.0) / (1.0 - transmission), levels)
        shapes = sequencer(whole)
    return shapes, unit


def _field(
    beam: Beam, number: int, name: str, frame: Frame, opening: tuple[Floats, Floats], mlc: MLC, machine: PhotonMachine
) -> TreatmentField:
    points = tuple(
        ControlPoint(
            float(meterset), beam.gantry, beam.collimator, beam.couch, beam.isocenter, frame.jaws_x, frame.jaws_y, ends
        )
        for ends, meterset in zip(*opening, strict=True)
    )
    return TreatmentField(
        name=name,
        number=number,
        points=points,
        sad=beam.sad,
        leaf_boundaries=mlc.boundaries,
        energy=machine.energy,
        machine=machine.name,
    )


def _linac(beams: Beams, machine: PhotonMachine | None) -> PhotonMachine:
    """Return the linac that beams were placed for, which must have monitor units."""
    if beams.radiation != "photons":
        raise InputError(f"only photon plans are sequenced into leaves, this one delivers {beams.radiation}")
    if machine is None and beams.machine not in MACHINES:
        raise InputError(f"the machine {beams.machine!r} of the beams is not in the library: give it as machine=")
    linac = library_machine(beams.machine) if machine is None else machine
    if not isinstance(linac, PhotonMachine) or linac.reference is None:
        raise InputError(f"machine {linac.name!r} has no monitor units: plan with one that has a reference dose")
    return linac
