"""Pareto plans of a cohort's patient: the cost that is stated is the one that falls, plans follow their factors."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize

from radplan.autoplan.cohort.generate import GENERATORS, draw
from radplan.autoplan.cohort.pareto import Penalties, TradeoffBatch, TradeoffProblem, pareto_weights, tradeoff_problem
from radplan.autoplan.planner import template_beams
from radplan.autoplan.protocol import load_protocol, understand
from radplan.engines import PhotonPencilBeam, dose_influence
from radplan.errors import InputError
from radplan.io import load_machine
from radplan.patient import Structures


def small_problem() -> TradeoffProblem:
    """30 voxels, 8 weights: 10 target voxels of two prescriptions, an organ, voxels that may be hot."""
    random = np.random.default_rng(4)
    matrix = random.uniform(0.0, 0.4, (30, 8))
    organ = matrix[10:20]
    shares = random.uniform(0.5, 1.0, 10)
    caps = np.where(np.arange(30) < 10, np.inf, 0.4)
    return TradeoffProblem(
        scipy.sparse.csr_array(matrix), np.arange(10), shares / shares.sum(), np.repeat([1.0, 0.8], 5),
        {"organ": 0.01 * organ.T @ organ / 10, "": 0.02 * matrix.T @ matrix / 30}, caps, 0.1,
    )  # fmt: skip


def stated_cost(problem: TradeoffProblem, x: np.ndarray, factor: float, cover: float, heat: float) -> float:
    """The formula of `TradeoffProblem`, voxel by voxel."""
    dose = problem.matrix.toarray() @ x
    target, level, share = dose[problem.targets], problem.levels, problem.shares
    low, high = np.maximum(0.98 * level - target, 0.0), np.maximum(target - 1.025 * level, 0.0)
    cost = 0.5 * np.sum(share * (target - level) ** 2) + 0.5 * cover * np.sum(share * (low**2 + high**2))
    cost += 0.5 * x @ (factor * problem.grams["organ"] + problem.grams[""]) @ x
    return float(cost + 0.5 * heat * problem.voxel_share * np.sum(np.maximum(dose[10:] - problem.caps[10:], 0.0) ** 2))


def test_gradients_are_those_of_the_stated_cost_and_the_search_finds_its_optimum() -> None:
    problem = small_problem()
    factors = np.asarray([[0.5], [40.0]])
    penalties = Penalties(np.asarray([50.0, 10.0]), np.asarray([6.0, 20.0]))
    batch = TradeoffBatch.of(problem, factors, penalties, np.arange(10, 30))
    x = np.random.default_rng(0).uniform(0.2, 1.0, (8, 2))
    analytic = batch.gradient(x.astype(np.float32))
    optima = batch.descended(x, 3000)
    for plan in range(2):
        terms = factors[plan, 0], penalties.cover[plan], penalties.heat[plan]
        step = 1e-5
        numeric = [
            (stated_cost(problem, x[:, plan] + e, *terms) - stated_cost(problem, x[:, plan] - e, *terms)) / (2 * step)
            for e in step * np.eye(8)
        ]
        assert np.allclose(analytic[:, plan], numeric, rtol=1e-4, atol=1e-5)
        peer = minimize(
            lambda w, terms=terms: stated_cost(problem, w, *terms), x[:, plan], bounds=[(0.0, None)] * 8,
            options={"maxiter": 3000, "maxfun": 100000, "ftol": 1e-14},
        )  # fmt: skip
        assert stated_cost(problem, optima[:, plan], *terms) <= 1.001 * peer.fun
    assert optima.min() >= 0.0


def test_plans_follow_their_factors_and_none_is_hot() -> None:
    protocol = replace(load_protocol("prostate"), grid=10.0, bixel_width=10.0)
    drawn, _ = draw(GENERATORS.get("pelvis")(spacing=8.0), 1, 0)
    patient = understand(drawn, protocol).patient
    machine = load_machine(protocol.machine)
    beams = template_beams(patient, protocol, machine)
    dij = dose_influence(patient, beams, machine, grid=10.0, engine=PhotonPencilBeam(lateral_cutoff=50.0))
    problem = tradeoff_problem(dij, patient, protocol, {"rectum": ["Rectum"], "bladder": ["Bladder", "Nowhere"]})
    weights = pareto_weights(problem, np.asarray([[1.0, 1.0], [50.0, 1.0], [1.0, 50.0]]))
    doses = problem.matrix @ weights.T
    assert doses.max() <= 1.10
    assert (problem.shares @ doses[problem.targets]).tolist() == pytest.approx([1.0] * 3)
    means = {}
    for name in ("Rectum", "Bladder"):
        voxels, shares = patient.structure_weights(name, dij.grid, np.asarray(dij.voxels))
        means[name] = shares @ doses[np.searchsorted(np.asarray(dij.voxels), voxels)]
    assert means["Rectum"].argmin() == 1
    assert means["Bladder"].argmin() == 2
    assert np.ptp(means["Rectum"]) > 0.04
    nobody = replace(patient, structures=Structures([s for n, s in patient.structures.items() if n != "PTV"]))
    with pytest.raises(InputError, match="none of the targets"):
        tradeoff_problem(dij, nobody, protocol, {})
