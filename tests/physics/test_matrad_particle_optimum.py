"""Optima of matRad 3.2.2 (IPOPT, run in Octave) on its proton box plan with McNamara's RBE, against ours.

Per fraction: the references are 2 Gy and 5/30 Gy. The RBE-weighted case ran with the chain-rule factor that matRad's
gradient lacks put in.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.io import loadmat

import radplan as rp
from radplan.biology.rbe import McNamara
from radplan.engines import ParticlePencilBeam, dose_influence
from radplan.io.load import load_machine
from radplan.io.matrad.patient import read_patient
from radplan.optim.solvers import ProjectedLBFGS, ScipyLBFGSB

CASES = {"effect": "opt_protons_BOX_effect", "rbe_x_dose": "opt_protons_BOX_RBExDose_gradfixed"}


@pytest.fixture(scope="module")
def plan(shared):
    stf = loadmat(shared("oracle/protons_BOX_1beam_MCN.mat"), squeeze_me=True, struct_as_record=False)["out"].stf
    patient = replace(read_patient(shared("cases/tg119/BOXPHANTOM.mat")), membership="nearest")
    machine = load_machine(str(shared("cases/matrad_machines/protons_Generic.mat")))
    beams = rp.Beams.from_rays(
        [np.repeat(stf.rayPos_bev[:, [0, 2]], stf.numOfBixelsPerRay.astype(int), axis=0)],
        gantry=stf.gantryAngle,
        isocenter=stf.isoCenter,
        sad=stf.SAD,
        bixel_width=stf.bixelWidth,
        machine=machine.name,
        radiation="protons",
        energies=[stf.energy],
    )
    engine = ParticlePencilBeam(biology=McNamara(p0=0.999064), let=False)
    return patient, dose_influence(patient, beams, machine, grid=3.0, engine=engine, dtype="float64")


@pytest.fixture(params=CASES)
def case(request, plan, shared):
    patient, dij = plan
    quantity = request.param
    reference = loadmat(shared(f"oracle/{CASES[quantity]}.mat"), squeeze_me=True, struct_as_record=False)["out"]
    high, low = (0.1 * d + 0.05 * d**2 if quantity == "effect" else d for d in (2.0, 5.0 / 30))
    goals = [
        rp.Goal("BODY", rp.SquaredOverdosing(low), weight=100, quantity=quantity),
        rp.Goal("OuterTarget", rp.SquaredDeviation(high), weight=800, quantity=quantity),
    ]
    return rp.Problem(dij, goals, patient, fractions=1), reference


def test_objective_and_gradient_at_its_weights(case):
    problem, reference = case
    value, gradient = problem.value_and_gradient(reference.wtest.astype(float))
    assert float(value) == pytest.approx(reference.ftest, rel=0.01)
    assert np.linalg.norm(gradient - reference.gtest) <= 0.005 * np.linalg.norm(reference.gtest)


def stationarity(problem, x):
    """Norm of the gradient without the parts that would push a weight below zero."""
    gradient = np.asarray(problem.value_and_gradient(x)[1])
    return np.linalg.norm(np.where((x <= 0) & (gradient > 0), 0.0, gradient))


@pytest.mark.slow
@pytest.mark.parametrize("solver", [ProjectedLBFGS(tolerance=1e-7), ScipyLBFGSB(tolerance=1e-8)], ids=lambda s: s.name)
def test_our_optimum_is_not_above_its_and_stationary(case, solver):
    problem, reference = case
    solution = solver.solve(problem)
    assert solution.value <= 1.005 * reference.fopt
    assert stationarity(problem, np.asarray(solution.x)) < 1e-4 * stationarity(problem, np.asarray(problem.start))
