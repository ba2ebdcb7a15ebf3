"""Fields whose fluence knows what leaves make of it: sequenced, calculated, optimised on, sequenced again."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from radplan import arrays
from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.check import check_delivery
from radplan.delivery.sequencing import sequence
from radplan.engines import aperture_model
from radplan.errors import InputError
from radplan.influence import Dij, OffsetModel
from radplan.influence.given import on_device
from radplan.machines.limits import MachineLimits, limits_with
from radplan.machines.mlc import MLC, library_mlc
from radplan.machines.photon import PhotonMachine
from radplan.optim.problem import Problem
from radplan.optim.solvers import ProjectedLBFGS
from radplan.plan.course import Plan
from radplan.progress import report


def resequence(
    plan: Plan,
    machine: PhotonMachine,
    mlc: MLC | str,
    *,
    method: str = "sliding_window",
    levels: int = 7,
    limits: MachineLimits | str | None = None,
    intermediate_doses: int = 2,
    iterations: int = 40,
) -> DeliveryPlan:
    r"""Return fields of a fluence that is optimised on, from where it stood, with what its leaves deliver.

    The fluence is sequenced and an intermediate dose of the fields is calculated by the aperture engine. What that is
    more than the fluence's own dose, :math:`\delta = d_{\mathrm{delivered}} - D x`, is held while the plan's goals are
    served again at :math:`D x + \delta`, and the fluence is sequenced again. Of all fields the best by the goals, in
    the delivered dose, are returned.

    Parameters
    ----------
    plan : Plan
        Photon plan with goals on a Dij of bixels whose rows lie on leaf pairs.
    machine, mlc : PhotonMachine, MLC or str
        Linac and collimator, or its name.
    method : "sliding_window", "siochi", "xia" or "engel"
        As `radplan.sequence` takes it.
    levels : int
        Levels of step and shoot.
    limits : MachineLimits or str, optional
        What the linac can do; that of the library with this collimator when left out.
    intermediate_doses : int
        How often the delivered dose is calculated and the fluence optimised on, >= 0; `radplan.sequence` alone with 0.
    iterations : int
        Of the solver after each of them.

    Raises
    ------
    InputError
        When the plan has no goals, or constraints or a background, or its model is no Dij; as for `radplan.sequence`.

    Notes
    -----
    Source: Siebers et al., Med. Phys. 29 (2002) 952.
    """
    if not plan.goals or plan.constraints or plan.background is not None or not isinstance(plan.model, Dij):
        raise InputError(
            "fluence is optimised on after an intermediate dose by the goals of a plan on a Dij, without constraints "
            "and background: make the plan with radplan.optimize(dij, goals, patient)"
        )
    if intermediate_doses < 0 or int(intermediate_doses) != intermediate_doses:
        raise InputError(f"intermediate_doses must be a whole number >= 0, got {intermediate_doses!r}")
    leaves = library_mlc(mlc) if isinstance(mlc, str) else mlc
    linac = limits_with(leaves, limits)
    solver = ProjectedLBFGS(max_iterations=iterations)
    current, best, least = plan, None, np.inf
    for number in range(intermediate_doses + 1):
        fields = sequence(current, leaves, method=method, levels=levels, limits=linac, machine=machine)
        model = delivered_model(current, fields, machine, leaves, linac)
        problem = Problem(model, plan.goals, plan.patient, plan.fractions)
        begin = on_device(current.x, model)
        cost = float(problem.at(begin).value)
        report("sequence", detail=f"intermediate dose {number}: {fields.mu:.0f} MU, cost {cost:.6g}", finished=True)
        if best is None or cost < least:
            best, least = fields, cost
        if number < intermediate_doses:
            found = solver.solve(problem, x0=begin)
            current = replace(plan, x=arrays.to_numpy(found.x))
    assert best is not None
    check_delivery(best, linac).raise_for_errors()
    return best


def delivered_model(
    plan: Plan, fields: DeliveryPlan, machine: PhotonMachine, mlc: MLC, limits: MachineLimits
) -> OffsetModel:
    """Return the model of a plan's bixels whose dose, at the plan, is what fields sequenced of it deliver."""
    model = plan.model
    exact = aperture_model(plan.patient, fields, machine, mlc, model.grid, voxels=model.voxels, limits=limits)
    return OffsetModel.through(model, on_device(plan.x, model), exact.forward(np.asarray(exact.variables.start)))
