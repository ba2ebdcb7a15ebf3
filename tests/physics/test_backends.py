"""The box plan on every backend: the same objective, from dose influence to optimum."""

from __future__ import annotations

import pytest

import radplan as rp
from radplan.optim.solvers import ProjectedLBFGS


def optimum(device: str) -> float:
    patient, machine = rp.load_patient("box"), rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=[0, 90], bixel_width=15.0)
    dij = rp.dose_influence(patient, beams, machine, grid=10.0, device=device)
    goals = patient.goals
    plan = rp.optimize(dij, goals, patient, fractions=30, solver=ProjectedLBFGS(max_iterations=60, tolerance=1e-7))
    return float(plan.solution.value)


@pytest.fixture(scope="module")
def reference() -> float:
    return optimum("numpy")


@pytest.mark.parametrize("device", ["torch:cpu", "array_api_strict", "array_api_strict:device1"])
def test_the_box_plan_has_the_same_objective(device: str, reference: float) -> None:
    """Within 1e-4: matrices are in single precision and sums differ in order."""
    assert optimum(device) == pytest.approx(reference, rel=1e-4)
