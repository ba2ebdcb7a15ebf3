"""From a specification and a cohort to a planner that is steered by DVHs: training, scores of test patients, card."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import radplan
from radplan.ai.cards import start_facts
from radplan.ai.dvh_planner import save_dvh_planner
from radplan.ai.dvh_scores import followed, monotone, table
from radplan.ai.dvh_task import FORMAT, DvhTask
from radplan.ai.loop import Training
from radplan.ai.planned import PlannedPatient, cohort_layout, planned_patients
from radplan.ai.spec import DvhSpec
from radplan.errors import FileError

_LIMITS = (
    "Synthetic anatomies of the pelvis, one prescription, the beams that the card names; no clinical use.",
    "A dose that was asked for need not be deliverable: plan it, and judge the plan's recalculated dose.",
)


def fit_dvh_planner(
    spec: DvhSpec,
    cohort: str | Path,
    folder: str | Path,
    cache: str | Path | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train a DVH planner on a cohort and write it to ``folder/model``; a half-done training goes on.

    The best state by the patients in `choose` is kept; the test patients are scored once, with the weights that were
    written, and the scores are put into the card and ``folder/scores.json``.

    Parameters
    ----------
    spec : DvhSpec
        What determines the training.
    cohort : path-like
        The folder that ``radplan cohort`` wrote.
    folder : path-like
        For checkpoints, log, model and scores.
    cache : path-like, optional
        Where channels and doses are kept between trainings; None keeps them in memory.
    tell : callable, optional
        Called with each line of the log.

    Returns
    -------
    Path
        The model's folder.
    """
    cohort, folder = Path(cohort), Path(folder)
    kept = None if cache is None else Path(cache)
    layout = cohort_layout(spec, cohort, spec.data.train[0])
    train = planned_patients(cohort, spec.data.train, spec, layout, kept)
    choose = planned_patients(cohort, spec.data.choose, spec, layout, kept)
    task = DvhTask(spec, layout, train, choose)
    training = Training(spec, task, folder, tell)
    best = training.run()
    if not training.first:
        return folder / "model"
    spacings = np.asarray([patient.spacing for patient in train])
    weights = {key: value.half().float() for key, value in training.weights().items()}
    test = planned_patients(cohort, spec.data.test, spec, layout, kept)
    began = time.process_time()
    results = followed(training.trained(weights), task.scale, spec, test, training.device)
    scored = {
        "n": len(results),
        "plans": int(sum(result.planned.shape[1] for result in results)),
        "patients": [result.name for result in results],
        "difference_percent": table(results, spec.structures),
        "unsteered_difference_percent": table(results, spec.structures, unsteered=True),
        "monotone_percent": monotone(results, spec.structures),
        "processor_seconds": round(time.process_time() - began, 1),
        "date": time.strftime("%Y-%m-%d"),
    }
    (folder / "scores.json").write_text(json.dumps(scored, indent=1) + "\n")
    facts: dict[str, Any] = {
        "spacing": {"low": spacings.min(axis=0).round(4).tolist(), "high": spacings.max(axis=0).round(4).tolist()},
        "level": round(float(np.mean([patient.level for patient in train])), 3),
        "data": _data_facts(cohort, {"train": train, "choose": choose, "test": test}),
        "limits": list(_LIMITS),
        "chosen": best,
        "trained": training.facts(),
        "test": scored,
    }
    if spec.start is not None:
        facts["start"] = start_facts(spec.start, FORMAT)
    return save_dvh_planner(folder / "model", spec, layout, task.scale, weights, facts)


def _data_facts(cohort: Path, parts: dict[str, list[PlannedPatient]]) -> dict[str, Any]:
    """Return what the card says of the data: source, licence, who is where, and the cohort's own data card."""
    card = cohort / "card.json"
    try:
        told = json.loads(card.read_text()) if card.is_file() else {}
    except ValueError as error:
        raise FileError(card, f"is no data card ({error})") from None
    return {
        "source": f"synthetic patients of radplan {radplan.__version__}, planned by radplan cohort",
        "licence": "generated data: Apache-2.0",
        "cohort": {key: told[key] for key in ("cohort", "fingerprint", "kept_plans", "rejected_plans") if key in told},
        "plans": {label: int(sum(len(p.doses) for p in patients)) for label, patients in parts.items()},
        **{label: [patient.name for patient in patients] for label, patients in parts.items()},
    }
