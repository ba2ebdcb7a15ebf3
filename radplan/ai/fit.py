"""From a specification to a dose proposer: samples, training, model card and the scores of test patients."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from radplan.ai.baseline import BoostedTrees
from radplan.ai.cards import save_scored, start_facts
from radplan.ai.data import OPENKBP_LAYOUT, Sample, cached_samples, patient_files
from radplan.ai.loop import Training
from radplan.ai.metrics import PatientScore, scores
from radplan.ai.proposer import load_proposer, openkbp_scores, save_proposer
from radplan.ai.spec import TrainSpec
from radplan.ai.train import FORMAT, DoseTask
from radplan.io.openkbp import read_openkbp

_DATA = {
    "source": "OpenKBP, Babier et al., Med. Phys. 48 (2021) 5549",
    "licence": "MIT, Copyright (c) 2021 Aaron Babier",
}
_LIMITS = (
    "Head and neck, nine 6 MV beams every 40 degrees, targets of 70, 63 and 56 Gy in 35 fractions; no clinical use.",
    "A proposed dose need not be deliverable: plan it, and judge the plan's recalculated dose.",
)


def fit_proposer(
    spec: TrainSpec,
    data: str | Path,
    folder: str | Path,
    cache: str | Path | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train a dose proposer on OpenKBP's patients and write it to ``folder/model``; a half-done training goes on.

    The best state by the patients in `choose` is kept; the test patients are scored once, with what was written, at
    full resolution by the challenge's definitions, and the scores are put into the card and ``folder/scores.json``.

    Parameters
    ----------
    spec : TrainSpec
        What determines the training.
    data : path-like
        Folder that the specification's patterns are below.
    folder : path-like
        For checkpoints, log, model and scores.
    cache : path-like, optional
        Where samples are kept between trainings; None keeps them in memory.
    tell : callable, optional
        Called with each line of the log.

    Returns
    -------
    Path
        The model's folder.
    """
    data, folder = Path(data), Path(folder)
    kept = None if cache is None else Path(cache)
    files = {name: patient_files(data, getattr(spec.data, name)) for name in ("train", "choose", "test")}
    train = cached_samples(files["train"], OPENKBP_LAYOUT, kept)
    choose = cached_samples(files["choose"], OPENKBP_LAYOUT, kept)
    trainer = Training(spec, DoseTask(spec, OPENKBP_LAYOUT, train, choose), folder, tell)
    best = trainer.run()
    if not trainer.first:
        return folder / "model"
    spacings = np.asarray([read_openkbp(path).patient.ct.grid.spacing for path in files["train"]])
    halved = np.asarray([not sample.exact for sample in train])
    spacings[halved] /= 2
    facts: dict[str, Any] = {
        "spacing": {"low": spacings.min(axis=0).round(4).tolist(), "high": spacings.max(axis=0).round(4).tolist()},
        "data": {**_DATA, **{name: [path.stem for path in paths] for name, paths in files.items()}},
        "limits": list(_LIMITS),
        "chosen": best,
        "trained": trainer.facts(),
    }
    if spec.start is not None:
        facts["start"] = start_facts(spec.start, FORMAT)
    weights, trees = trainer.weights(), fitted_trees(spec, train)
    save = partial(save_proposer, folder / "model", spec, OPENKBP_LAYOUT, weights, trees=trees)
    if not files["test"]:
        return save(facts)
    device = "cpu" if trainer.device.type == "cpu" else str(trainer.device)
    return save_scored(
        save, facts, lambda model: score_facts(*openkbp_scores(load_proposer(model, device).propose, files["test"]))
    )


def fitted_trees(spec: TrainSpec, train: Sequence[Sample]) -> BoostedTrees | None:
    """Return trees fitted to the training patients as a specification says, None where it wants none."""
    if spec.trees is None:
        return None
    wanted = spec.trees
    return BoostedTrees.fit(
        train, OPENKBP_LAYOUT, wanted.iterations, wanted.leaves, per_patient=wanted.voxels, seed=spec.seed
    )


def score_facts(results: list[PatientScore], seconds: list[float]) -> dict[str, Any]:
    """Return scores as plain data: both means, their number, and each patient's."""
    dose, dvh = scores(results)
    return {
        "dose_score": round(dose, 4),
        "dvh_score": round(dvh, 4),
        "n": len(results),
        "processor_seconds_each": round(float(np.median(seconds)), 3),
        "patients": {r.name: [round(r.dose, 3), round(float(np.mean(list(r.dvh.values()))), 3)] for r in results},
        "date": time.strftime("%Y-%m-%d"),
    }
