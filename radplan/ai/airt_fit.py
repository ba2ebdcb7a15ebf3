"""From a specification to a planner of arcs: reference plans, training, scores of test patients, card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.ai.airt_planner import load_airt_planner, save_airt_planner
from radplan.ai.airt_task import AirtTask, ArcSample
from radplan.ai.arc_case import ArcCase
from radplan.ai.arc_cohort import data_facts, reference_arcs
from radplan.ai.arc_reference import sequencing_loss
from radplan.ai.cards import save_scored
from radplan.ai.loop import Training
from radplan.ai.spec import AirtSpec

Floats = npt.NDArray[np.float64]

_LIMITS = (
    "Synthetic anatomies of the pelvis, one prescription, one arc of one linac; no clinical use.",
    "Fluence is no plan: only the dose calculated again from the exported file counts.",
)


def fit_airt_planner(
    spec: AirtSpec,
    data: str | Path,
    folder: str | Path,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train a planner of arcs and write it to ``folder/model``; a half-done training goes on.

    Reference plans are made where they are not yet in `data`. The best state by the patients in `choose` is kept; the
    test patients are scored once, with the weights that were written, by the dose influence of the training grid.

    Parameters
    ----------
    spec : AirtSpec
        What determines the training.
    data : path-like
        Where reference fluence is kept.
    folder : path-like
        For checkpoints, log, model and scores.
    tell : callable, optional
        Called with each line of the log.

    Returns
    -------
    Path
        The model's folder.
    """
    data, folder = Path(data), Path(folder)
    parts = {name: reference_arcs(spec, getattr(spec.data, name), data) for name in ("train", "choose")}
    train, choose = ([ArcSample.of(case, fluence) for case, fluence in parts[name]] for name in ("train", "choose"))
    training = Training(spec, AirtTask(spec, train, choose), folder, tell)
    best = training.run()
    if not training.first:
        return folder / "model"
    layout = train[0].inputs.case.layout
    facts: dict[str, Any] = {
        "data": data_facts(spec),
        "limits": list(_LIMITS),
        "chosen": best,
        "trained": training.facts(),
    }
    return save_scored(
        partial(save_airt_planner, folder / "model", spec, layout, training.weights()),
        facts,
        lambda model: airt_scores(model, reference_arcs(spec, spec.data.test, data)),
    )


def airt_scores(model: Path, cases: Sequence[tuple[ArcCase, Floats]]) -> dict[str, Any]:
    """Return test patients' figures by the dose influence, fluence before and after the correction and the reference.

    Parameters
    ----------
    model : path-like
        The planner's folder.
    cases : sequence of (ArcCase, array of shape (control points, v, u))
        Test patients and their reference fluence.
    """
    planner = load_airt_planner(model)
    rows: dict[str, list[dict[str, float]]] = {"first": [], "last": [], "reference": []}
    seconds = []
    for case, reference in cases:
        sample = ArcSample.of(case, reference)
        result = planner.answer(case, sample.inputs, np.zeros(len(case.layout.structures)))
        seconds.append(result.seconds["networks"])
        for name, fluence in (("first", result.first), ("last", result.last), ("reference", reference)):
            rows[name].append(_figures(case, np.asarray(fluence, dtype=np.float64)))
    return {
        "n": len(cases),
        "patients": [case.patient.name for case, _ in cases],
        "figures": {
            label: {name: round(float(np.mean([row[name] for row in values])), 4) for name in values[0]}
            for label, values in rows.items()
        },
        "network_seconds": round(float(np.median(seconds)), 3),
        "date": time.strftime("%Y-%m-%d"),
    }


def _figures(case: ArcCase, fluence: Floats) -> dict[str, float]:
    dose = np.asarray(case.dij.forward(case.weights(fluence))["physical_dose"])[0] / case.prescription
    return {**case.figures(dose), "sequencing loss": sequencing_loss(case, fluence)}
