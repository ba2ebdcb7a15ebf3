"""Trained models on disk: weights as safetensors beside a card that says what they are and come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from radplan.ai.checkpoint import read_tensors
from radplan.errors import FileError, InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.io.staging import staged_file

MODELS = Path(__file__).parent / "models"
"""Where the models that come with radplan lie."""


@dataclass(frozen=True, eq=False)
class Model:
    """What a model's folder holds.

    Parameters
    ----------
    card : mapping
        The model card.
    weights : mapping of str to tensor
        Of its network, on the CPU.
    folder : Path
        Where they were read.
    """

    card: Mapping[str, Any]
    weights: Mapping[str, Any]
    folder: Path


def save_model(
    folder: str | Path,
    kind: str,
    name: str,
    weights: Mapping[str, Any],
    facts: Mapping[str, Any],
    half: bool = True,
) -> Path:
    """Write ``weights.safetensors`` and the model card ``model.json``.

    Parameters
    ----------
    folder : path-like
        Where; made when absent.
    kind, name : str
        The card's format, and the model's name.
    weights : mapping of str to tensor
        Of the network.
    facts : mapping
        What else the card says: specification, channels, data, scores, seconds, device, licence, limits.
    half : bool
        Keep weights as float16.
    """
    import torch
    from safetensors.torch import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    kept = {key: value.to(torch.float16 if half else value.dtype).contiguous() for key, value in weights.items()}
    with staged_file(folder / "weights.safetensors") as partial:
        save_file(kept, partial)
    card = {
        "format": kind,
        "name": name,
        "radiation": "photons",
        "parameters": int(sum(value.numel() for value in weights.values())),
        "sha256": digest(folder / "weights.safetensors"),
        **facts,
    }
    with staged_file(folder / "model.json") as partial:
        partial.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    return folder


def save_scored(
    save: Callable[[Mapping[str, Any]], Path], facts: Mapping[str, Any], scored: Callable[[Path], Mapping[str, Any]]
) -> Path:
    """Write a model, score it as it was written, and put the scores into its card and ``scores.json`` beside it.

    Parameters
    ----------
    save : callable
        Writes the model with what its card says, and returns its folder.
    facts : mapping
        What the card says without scores.
    scored : callable
        Scores of test patients by the model in a folder, as plain data.

    Returns
    -------
    Path
        The model's folder.
    """
    test = scored(save(facts))
    folder = save({**facts, "test": test})
    with staged_file(folder.parent / "scores.json") as partial:
        partial.write_text(json.dumps(test, indent=1) + "\n", encoding="utf-8")
    return folder


def shipped_models() -> tuple[str, ...]:
    """Return the names of the models that come with radplan."""
    return tuple(sorted(path.parent.name for path in MODELS.glob("*/model.json")))


def read_model(model: str | Path, kinds: tuple[str, ...]) -> Model:
    """Return a model that comes with radplan, by name, or one of a folder.

    Raises
    ------
    UnknownNameError
        When there is neither a model nor a folder of that name.
    FileError
        When the card is missing or of another format, or the weights are damaged, pickled or not the card's.
    """
    folder = MODELS / str(model) if str(model) in shipped_models() else Path(model)
    if not folder.is_dir():
        raise UnknownNameError("model, or folder of one,", str(model), shipped_models())
    try:
        card = json.loads((folder / "model.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise FileError(folder / "model.json", f"is no model card ({error})") from None
    if card.get("format") not in kinds:
        expected = " or ".join(map(repr, kinds))
        raise FileError(folder / "model.json", f"has format {card.get('format')!r}, expected {expected}")
    path = folder / "weights.safetensors"
    weights = read_tensors(path)
    check_digest(path, card["sha256"])
    return Model(card, {key: value.float() for key, value in weights.items()}, folder)


def start_facts(model: str | Path, kind: str) -> dict[str, Any]:
    """Return what a card says of the model whose weights a training began with: name, digest, specification, times."""
    first = read_model(model, (kind,)).card
    return {key: first[key] for key in ("name", "sha256", "spec", "trained", "start") if key in first}


def load_weights(net: Any, model: Model) -> None:
    """Give a network the weights of a model.

    Raises
    ------
    InputError
        When the weights do not fit the card's network.
    """
    try:
        net.load_state_dict(model.weights)
    except RuntimeError as error:
        raise InputError(f"the weights do not fit the network of the card: {error}") from None


def fitting_grid(card: Mapping[str, Any], grid: Grid) -> Grid:
    """Return a grid of voxels of a size that was trained on: the given one, or one of the middle of that range."""
    low, high = np.asarray(card["spacing"]["low"]), np.asarray(card["spacing"]["high"])
    spacing = np.asarray(grid.spacing)
    x, y, z = np.where((spacing >= low) & (spacing <= high), spacing, np.sqrt(low * high)).tolist()
    return grid if (x, y, z) == grid.spacing else grid.with_spacing((x, y, z))


def check_spacing(card: Mapping[str, Any], grid: Grid, name: str) -> None:
    """Raise `InputError` when voxels are of another size than those that a model was trained on."""
    low, high = np.asarray(card["spacing"]["low"]), np.asarray(card["spacing"]["high"])
    spacing = np.asarray(grid.spacing)
    between = float(np.sqrt(low * high)[0])
    if not ((spacing >= 0.95 * low) & (spacing <= 1.05 * high)).all():
        raise InputError(
            f"the model {card['name']} was trained on voxels of {low.tolist()} to {high.tolist()} mm, "
            f"those of {name} are {spacing.tolist()}: "
            f"give a grid between: --grid {between:.1f}, or patient.ct.grid.with_spacing({between:.1f})"
        )


def check_digest(path: Path, known: str) -> None:
    """Raise `FileError` when a file has not the sha256 that the model card knows."""
    if digest(path) != known:
        raise FileError(path, "is not the file that the model card describes: its sha256 differs")


def digest(path: Path) -> str:
    """Return a file's sha256; raise `FileError` when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error})") from None
