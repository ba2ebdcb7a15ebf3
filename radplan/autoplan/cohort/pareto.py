"""Pareto plans of one patient, all at once: quadratic goals as Gram matrices, coverage and hot spots as penalties.

Quadratic goals of organs need no voxels while the plans are searched for: a Gram matrix (weights x weights) holds all
that they say, and any number of trade-offs is one batch of small problems with non-negative weights. Alone such goals
leave entrance doses of more than twice the prescription, so that voxels that are hot in any plan join round by round.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.autoplan.protocol import Protocol
from radplan.errors import InputError
from radplan.influence import Dij
from radplan.kernels.threads import one_blas_thread
from radplan.patient import Patient

Floats = npt.NDArray[np.floating[Any]]
Places = npt.NDArray[np.int64]

_ORGAN = 0.01
"""Weight of the mean square of an organ's dose over that of a target's deviation, both over the prescription [1]."""
_TISSUE = 0.02
"""The same of normal tissue about the targets [1]."""
_REACH = 60.0
"""How far normal tissue reaches about the targets [mm]."""
_SAMPLE = 8000
"""About how many voxels of normal tissue stand for all of it."""
_LEAST, _MOST = 0.98, 1.025
"""Doses over the prescription between which a target's voxel costs no penalty [1]."""
_NEAR, _NEAR_CAP, _CAP = 12.0, 1.0, 0.7
"""Within this distance of a target [mm] a voxel is hot above the first dose, beyond above the second [1]."""
_COVER, _HEAT = 50.0, 6.0
"""Weights of the penalties on targets and on hot voxels at the start [1]."""
_STIFFER = 4.0
"""By how much a plan's penalty grows after a round that left it too hot or too uneven [1]."""
_UNEVEN = 1.06
"""D5 over D95 of a target above which a plan is too uneven [1]."""
_FIRST, _ITERATIONS, _ROUNDS = 60, 300, 6
"""Iterations of the first and of every later round, and most rounds."""


@dataclass(frozen=True, eq=False)
class TradeoffProblem:
    r"""What all plans of a patient share: a cost of weights :math:`x \ge 0`, with dose over prescription d = A x.

    .. math::
        \tfrac12 \sum_i a_i (d_i - p_i)^2 + \tfrac u2 \sum_i a_i \left[(\ell p_i - d_i)_+^2 + (d_i - m p_i)_+^2\right]
        + \tfrac12 x^T \sum_g f_g b_g G_g x + \tfrac h2 \frac{v}{V} \sum_j (d_j - c_j)_+^2

    with i over target voxels, :math:`G_g` the mean square dose of a group of organs outside targets, j over hot voxels,
    v the volume of a voxel and V that of the targets. Plans differ in their factors f.

    Parameters
    ----------
    matrix : SciPy CSR array (voxels, variables)
        Dose over the highest prescription, of the whole course, per unit weight.
    targets : array of int (n,)
        Rows of target voxels.
    shares : array (n,)
        Their weights a, which sum to 1.
    levels : array (n,)
        Their prescriptions over the highest [1].
    grams : mapping of str to array (variables, variables)
        By group, the base weight b included; normal tissue is ``""``.
    caps : array (voxels,)
        Dose above which a voxel is hot [1]; infinite in targets.
    voxel_share : float
        v / V [1].
    """

    matrix: Any
    targets: Places
    shares: Floats
    levels: Floats
    grams: Mapping[str, Floats]
    caps: Floats
    voxel_share: float

    @property
    def normalised(self) -> npt.NDArray[np.bool_]:
        """Which target voxels belong to the highest prescription: their mean dose is set to it."""
        return np.asarray(self.levels >= 1.0 - 1e-9)


def tradeoff_problem(
    dij: Dij, patient: Patient, protocol: Protocol, groups: Mapping[str, Sequence[str]]
) -> TradeoffProblem:
    """Return what the trade-offs of a patient between groups of organs share.

    Parameters
    ----------
    dij : Dij
        Stored dose influence.
    patient : Patient
        With the protocol's targets.
    protocol : Protocol
        Prescriptions and fractions.
    groups : mapping of str to sequence of str
        Organs of each group; those that the patient lacks are left out.

    Raises
    ------
    InputError
        When the patient has no target of the protocol.
    """
    from scipy import ndimage

    voxels = np.asarray(dij.voxels)
    highest = protocol.prescription
    matrix = dij.matrix() * (protocol.fractions / highest)
    owner = np.zeros(voxels.size)
    part = np.zeros(voxels.size)
    present = [name for name in protocol.targets if name in patient.structures]
    if not present:
        raise InputError(f"patient {patient.name!r} has none of the targets {list(protocol.targets)}")
    for name in present:
        rows, weights = _rows(patient, dij, voxels, name)
        rows, weights = rows[owner[rows] == 0.0], weights[owner[rows] == 0.0]
        owner[rows] = protocol.targets[name] / highest
        part[rows] = weights / weights.max()
    targets = np.flatnonzero(owner)
    cube = np.ones(dij.grid.size, dtype=bool)
    cube[voxels[targets[part[targets] >= 0.5]]] = False
    distance = ndimage.distance_transform_edt(cube.reshape(dij.grid.shape), dij.grid.spacing[::-1]).reshape(-1)[voxels]
    grams = {}
    for group, organs in groups.items():
        grams[group] = _ORGAN * _group_gram(matrix, patient, dij, organs, owner)
    tissue = np.flatnonzero((owner == 0.0) & (distance < _REACH))
    tissue = tissue[:: max(1, tissue.size // _SAMPLE)]
    grams[""] = _TISSUE * _gram(matrix, tissue, np.full(tissue.size, 1.0 / max(tissue.size, 1)))
    caps = np.where(owner > 0.0, np.inf, np.where(distance < _NEAR, _NEAR_CAP, _CAP))
    shares = part[targets] / part[targets].sum()
    return TradeoffProblem(matrix, targets, shares, owner[targets], grams, caps, 1.0 / float(part[targets].sum()))


def pareto_weights(problem: TradeoffProblem, factors: Floats, hottest: float = 1.10) -> Floats:
    """Return the weights (plans, variables) of all trade-offs, scaled to a mean target dose of the prescription.

    Parameters
    ----------
    problem : TradeoffProblem
        What the plans share.
    factors : array (plans, groups)
        On the weight of each group, in the order of the problem's.
    hottest : float
        Largest dose over the prescription that a plan should have anywhere [1].
    """
    x = _open_field(problem, len(factors))
    penalties = Penalties(np.full(len(factors), _COVER), np.full(len(factors), _HEAT))
    hot = np.zeros(problem.matrix.shape[0], dtype=bool)
    with one_blas_thread():
        for number in range(_ROUNDS):
            batch = TradeoffBatch.of(problem, factors, penalties, np.flatnonzero(hot))
            x = batch.descended(x, _ITERATIONS if number else _FIRST)
            dose, x = _normalised(problem, x)
            hot |= np.any(dose > (problem.caps - 0.02)[:, None], axis=1)
            too_hot = dose.max(axis=0) > hottest - 0.02
            uneven = _unevenness(problem, dose) > _UNEVEN
            if number >= 2 and not np.any(too_hot | uneven):
                break
            if number:
                penalties = Penalties(
                    np.where(uneven, _STIFFER, 1.0) * penalties.cover, np.where(too_hot, _STIFFER, 1.0) * penalties.heat
                )
    return np.asarray(x.T, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Penalties:
    """Weights u and h of each plan's penalties (plans,)."""

    cover: Floats
    heat: Floats


@dataclass(frozen=True, eq=False)
class TradeoffBatch:
    """One round's problems in single precision; rows are scaled by the root of their weights.

    Parameters
    ----------
    target, level : array (n, variables), (n, 1)
        Target rows and prescriptions.
    hot, cap : array (m, variables), (m, 1)
        Hot rows and their caps.
    grams : tuple of array (variables, variables)
        Of the groups.
    factors : array (groups, plans)
        Of the plans.
    cover, heat : array (plans,)
        Weights of the penalties.
    """

    target: Floats
    level: Floats
    hot: Floats
    cap: Floats
    grams: tuple[Floats, ...]
    factors: Floats
    cover: Floats
    heat: Floats

    @classmethod
    def of(cls, problem: TradeoffProblem, factors: Floats, penalties: Penalties, hot: Places) -> TradeoffBatch:
        single = np.float32
        root = np.sqrt(problem.shares)[:, None]
        share = np.sqrt(problem.voxel_share)
        whole = np.hstack([factors, np.ones((len(factors), 1))]).T
        return cls(
            (problem.matrix[problem.targets].toarray() * root).astype(single),
            (problem.levels[:, None] * root).astype(single),
            (problem.matrix[hot].toarray() * share).astype(single),
            (problem.caps[hot, None] * share).astype(single),
            tuple(gram.astype(single) for gram in problem.grams.values()),
            whole.astype(single),
            penalties.cover.astype(single),
            penalties.heat.astype(single),
        )

    def gradient(self, x: Floats) -> Floats:
        """Return the gradient of each plan's cost (variables, plans)."""
        dose = self.target @ x
        beyond = np.maximum(dose - _MOST * self.level, 0.0) - np.maximum(_LEAST * self.level - dose, 0.0)
        total = self.target.T @ (dose - self.level + self.cover * beyond)
        total += self.hot.T @ (self.heat * np.maximum(self.hot @ x - self.cap, 0.0))
        for gram, factor in zip(self.grams, self.factors, strict=True):
            total += (gram @ x) * factor
        return np.asarray(total)

    def steps(self) -> Floats:
        """Return step lengths (variables, plans): a diagonal over the largest curvature in its metric."""
        diagonal = np.sum(self.target**2, axis=0)[:, None] * (1.0 + self.cover)
        diagonal = diagonal + np.sum(self.hot**2, axis=0)[:, None] * self.heat
        for gram, factor in zip(self.grams, self.factors, strict=True):
            diagonal = diagonal + np.diag(gram)[:, None] * factor
        root = 1.0 / np.sqrt(np.maximum(diagonal, 1e-12 * diagonal.max(axis=0)))
        vector = np.ones_like(root)
        size = np.ones(root.shape[1])
        for _ in range(15):
            y = root * vector
            image = self.target.T @ ((1.0 + self.cover) * (self.target @ y))
            image += self.hot.T @ (self.heat * (self.hot @ y))
            for gram, factor in zip(self.grams, self.factors, strict=True):
                image += (gram @ y) * factor
            vector = root * image
            size = np.linalg.norm(vector, axis=0)
            vector = vector / size
        return np.asarray(root**2 / (1.05 * size), dtype=np.float32)

    def descended(self, x: Floats, iterations: int) -> Floats:
        """Return the weights after some accelerated projected gradient steps, restarted where a plan overshoots.

        Source: Beck and Teboulle (2009); O'Donoghue and Candes (2015) for the restart.
        """
        step = self.steps()
        last = x.astype(np.float32)
        ahead = last
        momentum = np.ones(x.shape[1], dtype=np.float32)
        for _ in range(iterations):
            now = np.maximum(ahead - step * self.gradient(ahead), 0.0)
            change = now - last
            overshoot = np.sum((ahead - now) / step * change, axis=0) > 0.0
            momentum = np.where(overshoot, 1.0, momentum)
            larger = 0.5 * (1.0 + np.sqrt(1.0 + 4.0 * momentum**2))
            ahead = now + np.where(overshoot, 0.0, (momentum - 1.0) / larger).astype(np.float32) * change
            last, momentum = now, larger
        return np.asarray(last)


def _rows(patient: Patient, dij: Dij, voxels: Places, name: str) -> tuple[Places, Floats]:
    """Return the rows of a structure in the matrix, and their weights, which sum to 1."""
    indices, weights = patient.structure_weights(name, dij.grid, voxels)
    return np.searchsorted(voxels, indices), weights


def _group_gram(matrix: Any, patient: Patient, dij: Dij, organs: Sequence[str], owner: Floats) -> Floats:
    """Return the mean square dose of organs outside targets, the mean of the organs', as a Gram matrix."""
    voxels = np.asarray(dij.voxels)
    total = np.zeros((matrix.shape[1], matrix.shape[1]))
    drawn = [name for name in organs if name in patient.structures and patient.structures[name].voxels.size]
    for name in drawn:
        rows, weights = _rows(patient, dij, voxels, name)
        outside = owner[rows] == 0.0
        if outside.any():
            total += _gram(matrix, rows[outside], weights[outside] / weights[outside].sum()) / len(drawn)
    return total


def _gram(matrix: Any, rows: Places, weights: Floats) -> Floats:
    dense = matrix[rows].toarray() * np.sqrt(weights)[:, None]
    return np.asarray(dense.T @ dense)


def _open_field(problem: TradeoffProblem, plans: int) -> Floats:
    flat = np.ones(problem.matrix.shape[1])
    mean = float(problem.shares @ (problem.matrix @ flat)[problem.targets])
    if mean <= 0.0:
        raise InputError("no beam reaches the targets")
    return np.full((flat.size, plans), 1.0 / mean)


def _normalised(problem: TradeoffProblem, x: Floats) -> tuple[Floats, Floats]:
    """Return doses (voxels, plans) and weights at a mean dose of the highest target of its prescription."""
    dose = problem.matrix @ np.asarray(x, dtype=np.float64)
    shares = np.where(problem.normalised, problem.shares, 0.0)
    mean = shares @ dose[problem.targets] / shares.sum()
    return dose / mean, x / mean


def _unevenness(problem: TradeoffProblem, dose: Floats) -> Floats:
    """Return D5 over D95 of the highest target (plans,)."""
    chosen = problem.normalised
    values, shares = dose[problem.targets[chosen]], problem.shares[chosen]
    order = np.argsort(values, axis=0)
    below = np.cumsum(shares[order], axis=0) / shares.sum()
    ordered = np.take_along_axis(values, order, axis=0)
    low = np.take_along_axis(ordered, np.argmax(below >= 0.05, axis=0)[None, :], axis=0)[0]
    high = np.take_along_axis(ordered, np.argmax(below >= 0.95, axis=0)[None, :], axis=0)[0]
    return np.asarray(high / low)
