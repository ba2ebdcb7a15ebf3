"""How well predicted doses follow DVHs that are asked for: the published table, and whether less asked gives less."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.ai.dvh_task import CodeScale, asked_means, followed_doses, nearest_plan, steered
from radplan.ai.nets.dvh_unet import DvhUNet
from radplan.ai.planned import PlannedPatient
from radplan.ai.spec import DvhSpec
from radplan.analysis.metrics import metric

Floats = npt.NDArray[np.float64]

LEAST_CHANGE = 0.05
"""Relative difference of two asked means from which on their order counts."""

_ASKED = 10
"""Plans of other patients that each test patient is asked for."""

_PLANS = 10
"""Most plans of each test patient that are asked for, evenly chosen."""


@dataclass(frozen=True, eq=False)
class Followed:
    """One patient: mean and hottest dose of each structure, in units of the target's mean.

    Parameters
    ----------
    name : str
        The patient's.
    planned, predicted : array of shape (2, plans, structures)
        Mean and D1 % of the patient's own plans and of what was predicted for their DVHs.
    usual : array of shape (2, 1, structures)
        The same of what is predicted without any.
    asked, answered, labelled : array of shape (requests, structures)
        Mean doses of other patients' DVHs, of the prediction for them, and of the patient's plan nearest to them.
    """

    name: str
    planned: Floats
    predicted: Floats
    usual: Floats
    asked: Floats
    answered: Floats
    labelled: Floats


def followed(
    net: DvhUNet, scale: CodeScale, spec: DvhSpec, patients: Sequence[PlannedPatient], device: Any
) -> list[Followed]:
    """Return how a network follows each patient's own plans, and ten plans of the other patients given.

    Which plans of others are asked for depends on the number of patients alone, so that trainings from different seeds
    are asked for the same.
    """
    draw = np.random.default_rng([0, 4])
    target, results = spec.structures.index(spec.target), []
    for index, patient in enumerate(patients):
        shares = patient.parts.astype(np.float64)
        own = np.unique(np.linspace(0, len(patient.doses) - 1, _PLANS).astype(int))
        predicted = followed_doses(net, patient, patient.codes[own], scale, spec, device)
        usual = steered(net, patient, scale.nothing(), target, device, spec.precision)
        planned = patient.doses[own].astype(np.float64)
        others = [k for k in range(len(patients)) if k != index] or [index]
        chosen = [patients[others[int(draw.integers(len(others)))]] for _ in range(_ASKED)]
        codes = np.stack([other.codes[int(draw.integers(len(other.codes)))] for other in chosen])
        answers = followed_doses(net, patient, codes, scale, spec, device)
        labels = [nearest_plan(patient, code) for code in codes]
        results.append(
            Followed(
                patient.name,
                _figures(planned, shares),
                _figures(predicted, shares),
                _figures(usual, shares),
                np.stack([asked_means(code, spec.structures) for code in codes]),
                _figures(answers, shares)[0],
                _figures(patient.doses[labels].astype(np.float64), shares)[0],
            )
        )
    return results


def table(
    results: Sequence[Followed], structures: Sequence[str], unsteered: bool = False
) -> dict[str, dict[str, float]]:
    """Return planned less predicted, in percent of the target's mean, by structure; or less the unsteered prediction.

    ``mean`` and ``maximum`` (D1 %) are means of the patients' means; ``mean_sd`` and ``maximum_sd`` are standard
    deviations over all plans, each patient counting once; ``mean_patients_sd`` is that of the patients' means.
    """
    rows = {}
    for k, name in enumerate(structures):
        row: dict[str, float] = {}
        for label, kind in (("mean", 0), ("maximum", 1)):
            against = [(r.usual if unsteered else r.predicted)[kind, :, k] for r in results]
            differences = [100.0 * (r.planned[kind, :, k] - a) for r, a in zip(results, against, strict=True)]
            means = np.asarray([values.mean() for values in differences])
            squares = np.asarray([((values - means.mean()) ** 2).mean() for values in differences])
            row[label] = round(float(means.mean()), 3)
            row[f"{label}_sd"] = round(float(np.sqrt(squares.mean())), 3)
            row[f"{label}_patients_sd"] = round(float(means.std()), 3)
        rows[name] = row
    return rows


def monotone(results: Sequence[Followed], structures: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return by structure the share of pairs of requests, 5 % or more apart, in whose order the answers come.

    ``network`` is that of the predictions and ``labels`` that of the patient's nearest plans [%], ``pairs`` their
    number; pairs are those of one patient.
    """
    rows = {}
    for k, name in enumerate(structures):
        right = {"network": 0, "labels": 0}
        pairs = 0
        for result in results:
            asked = result.asked[:, k]
            first, second = np.triu_indices(asked.size, 1)
            apart = np.abs(asked[first] - asked[second]) >= LEAST_CHANGE * np.maximum(asked[first], asked[second])
            first, second = first[apart], second[apart]
            order = np.sign(asked[first] - asked[second])
            pairs += first.size
            for label, values in (("network", result.answered[:, k]), ("labels", result.labelled[:, k])):
                right[label] += int((order * (values[first] - values[second]) > 0).sum())
        rows[name] = {**{label: round(100.0 * n / max(pairs, 1), 2) for label, n in right.items()}, "pairs": pairs}
    return rows


def _figures(doses: npt.NDArray[np.floating[Any]], shares: Floats) -> Floats:
    """Return mean and D1 % (2, plans, structures) of doses (plans, n)."""
    values = np.empty((2, len(doses), len(shares)))
    for row, own in enumerate(shares):
        inside = own > 0
        weights = own[inside]
        for plan, dose in enumerate(doses):
            seen = np.asarray(dose[inside], dtype=np.float64)
            values[0, plan, row] = float(np.average(seen, weights=weights))
            values[1, plan, row] = metric("D1", seen, weights)
    return values
