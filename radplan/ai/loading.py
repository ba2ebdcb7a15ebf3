"""Models by name or folder, whatever they plan with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from radplan.ai import airt_planner, aperture_planner, dvh_task, train
from radplan.ai.airt_planner import AirtPlanner
from radplan.ai.aperture_planner import AperturePlanner
from radplan.ai.cards import Model, read_model
from radplan.ai.dvh_planner import DvhPlanner
from radplan.ai.proposer import DoseProposer

AnyPlanner = DoseProposer | DvhPlanner | AirtPlanner | AperturePlanner

_MODELS: dict[str, Callable[[Model, str], AnyPlanner]] = {
    train.FORMAT: DoseProposer,
    dvh_task.FORMAT: DvhPlanner,
    airt_planner.FORMAT: AirtPlanner,
    aperture_planner.FORMAT: AperturePlanner,
}


def load_model(model: str | Path, device: str = "cpu") -> AnyPlanner:
    """Return a model that comes with radplan, by name, or one of a folder, ready to be applied.

    Raises
    ------
    UnknownNameError
        When there is neither a model nor a folder of that name.
    FileError
        When the card is missing or of no known format, or the weights are damaged, pickled or not the card's.
    InputError
        When torch finds no such device.
    """
    read = read_model(model, tuple(_MODELS))
    return _MODELS[read.card["format"]](read, device)
