"""Direct aperture optimisation: the leaves and monitor units of given shapes, first over bixels, then exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.beams.control_points import DeliveryPlan
from radplan.beams.place import place_beams
from radplan.delivery.apertures import delivery_plan
from radplan.delivery.bixel_apertures import BixelApertures, bixel_apertures
from radplan.delivery.check import check_delivery
from radplan.delivery.followed import FollowedApertures
from radplan.delivery.rounding import rounded_plan
from radplan.delivery.timing import segment_times
from radplan.delivery.trajectories import LeafTrajectories, leaf_trajectories
from radplan.engines import ApertureModel, aperture_model, dose_influence
from radplan.errors import InputError
from radplan.influence import Dij
from radplan.machines.limits import MachineLimits, limits_for, machine_limits
from radplan.machines.mlc import MLC, library_mlc
from radplan.machines.photon import PhotonMachine
from radplan.optim import Goal, Problem
from radplan.optim.solvers import ProjectedLBFGS
from radplan.patient.patient import Patient
from radplan.progress import report

Floats = npt.NDArray[np.float64]


def refine_apertures(
    plan: DeliveryPlan,
    goals: Sequence[Goal],
    patient: Patient,
    machine: PhotonMachine,
    mlc: MLC | str,
    *,
    limits: MachineLimits | str | None = None,
    dij: Dij | None = None,
    grid: float = 5.0,
    fractions: int | None = None,
    iterations: int = 100,
    exact_iterations: int = 15,
) -> DeliveryPlan:
    """Return a plan of the same shapes whose leaf ends and monitor units serve the goals better.

    Every iterate can be delivered: leaf ends pass `LeafTrajectories`. What comes out is rounded to the steps of the
    machine and checked.

    Parameters
    ----------
    plan : DeliveryPlan
        Step and shoot, sliding windows or static fields, such as `sequence` makes them.
    goals : sequence of Goal
        Levels are course totals.
    patient, machine, mlc : Patient, PhotonMachine, MLC or str
        For whom and with what.
    limits : MachineLimits or str, optional
        What the linac can do; that of the library with this collimator when left out.
    dij : Dij, optional
        Bixels of the plan's beams on leaf rows; calculated when left out.
    grid : float
        Spacing of the dose grid [mm], where no Dij is given.
    fractions : int, optional
        Number of fractions; the plan's, the patient's, or 30.
    iterations : int
        On bixels, >= 1: each costs one forward and one adjoint of the Dij.
    exact_iterations : int
        With the exact engine afterwards, >= 0.

    Raises
    ------
    InputError
        When the plan holds arcs (give those to `plan_arcs` as its start), or its fields do not fit the collimator.
    """
    leaves = library_mlc(mlc) if isinstance(mlc, str) else mlc
    linac = machine_limits(limits_for(leaves) if limits is None else limits)
    for field in plan.fields:
        if field.technique == "arc":
            raise InputError(f"{field.label}: is an arc: give it to plan_arcs as its start")
    count = fractions or plan.fractions or patient.fractions or 30
    influence = _influence(plan, patient, machine, leaves, grid) if dij is None else dij
    model = bixel_apertures(influence, plan, leaves, limits=linac)
    refined = _searched(plan, model, goals, patient, linac, count, iterations)
    if exact_iterations:
        exact = aperture_model(patient, refined, machine, leaves, influence.grid, limits=linac)
        refined = _searched(refined, exact, goals, patient, linac, count, exact_iterations)
    refined = rounded_plan(replace(refined, name=plan.name, fractions=count), linac)
    check_delivery(refined, linac).raise_for_errors()
    return refined


def _influence(plan: DeliveryPlan, patient: Patient, machine: PhotonMachine, mlc: MLC, grid: float) -> Dij:
    """Return bixels on leaf rows over the targets for the directions of the fields."""
    first = [field.points[0] for field in plan.fields]
    beams = place_beams(
        patient,
        machine,
        gantry=[point.gantry for point in first],
        couch=[point.couch for point in first],
        collimator=[point.collimator for point in first],
        isocenter=np.stack([point.isocenter for point in first]),
        bixel_width=min(5.0, float(mlc.widths.min())),
        mlc=mlc,
    )
    return dose_influence(patient, beams, machine, grid=grid)


def _searched(
    plan: DeliveryPlan,
    model: BixelApertures | ApertureModel,
    goals: Sequence[Goal],
    patient: Patient,
    limits: MachineLimits,
    fractions: int,
    iterations: int,
) -> DeliveryPlan:
    """Return the plan that a search on one model ends at."""
    followed = FollowedApertures(model, shape_trajectories(plan, model, limits))
    problem = Problem(followed, goals, patient, fractions)
    solution = ProjectedLBFGS(max_iterations=iterations).solve(problem)
    report("apertures", detail=f"{type(model).__name__}: cost {solution.value:.6g}", finished=True)
    x = arrays.to_numpy(followed.followed(solution.x))
    return replace(delivery_plan(model, x, plan.name, fractions), patient_position=plan.patient_position)


def shape_trajectories(
    plan: DeliveryPlan, model: BixelApertures | ApertureModel, limits: MachineLimits
) -> LeafTrajectories:
    """Return the variables of a model of shapes with the limits of a machine: each segment as long as it is now.

    Shapes of step and shoot get the machine's least monitor units at least; monitor units of moving leaves stay within
    what the dose rate gives in their time.
    """
    planning = limits.planning()
    times = [segment_times(field, planning).seconds for field in plan.fields]
    bounded = leaf_trajectories(model.variables, model.layouts, planning, times)
    lower, upper = np.array(bounded.lower), np.array(bounded.upper)
    for layout, seconds in zip(model.layouts, times, strict=True):
        field, own = layout.field, layout.mu_slice
        if field.technique == "dynamic":
            rate = planning.dose_rate(field.energy, field.fluence_mode) / 60.0
            upper[own] = rate * seconds[list(layout.delivering)]
        else:
            lower[own] = np.minimum(
                limits.segment_mu, layout.start[own.start - layout.offset : own.stop - layout.offset]
            )
    return replace(bounded, lower=lower, upper=upper)
