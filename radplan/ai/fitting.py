"""Trainings by their kind: from a specification to a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from radplan.ai.airt_fit import fit_airt_planner
from radplan.ai.aperture_planner import fit_aperture_planner
from radplan.ai.dvh_fit import fit_dvh_planner
from radplan.ai.fit import fit_proposer
from radplan.ai.spec import AirtSpec, ApertureSpec, ArcPatients, DvhSpec, TrainingSpec, TrainSpec
from radplan.errors import InputError


def fit(
    spec: TrainingSpec,
    data: str | Path,
    folder: str | Path,
    cache: str | Path | None = None,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train what a specification says and return the model's folder, ``folder/model``.

    Parameters
    ----------
    spec : TrainSpec, DvhSpec, AirtSpec or ApertureSpec
        What determines the training.
    data : path-like
        OpenKBP's folder, that of a cohort, or where reference arcs are kept.
    folder : path-like
        For checkpoints, log, model and scores; a half-done training goes on.
    cache : path-like, optional
        Where samples are kept between trainings; None keeps them in memory. Reference arcs are kept in `data`.
    tell : callable, optional
        Called with each line of the log.

    Raises
    ------
    InputError
        When there is no such kind of training, or a cache is given for arcs, which take none.
    """
    if isinstance(spec, TrainSpec):
        return fit_proposer(spec, data, folder, cache, tell)
    if isinstance(spec, DvhSpec):
        return fit_dvh_planner(spec, data, folder, cache, tell)
    if isinstance(spec, ArcPatients) and cache is not None:
        raise InputError(
            f"trainings of arcs keep what they make in {data} and take no cache, got {cache}: leave it out"
        )
    if isinstance(spec, AirtSpec):
        return fit_airt_planner(spec, data, folder, tell)
    if isinstance(spec, ApertureSpec):
        return fit_aperture_planner(spec, data, folder, tell)
    raise InputError(
        f"there is no training of {type(spec).__name__}: give a TrainSpec, a DvhSpec, an AirtSpec or an ApertureSpec"
    )
