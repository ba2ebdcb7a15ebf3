"""The images and beams of a plan as arrays of a file, from which the plan is reopened without a calculation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from radplan.arrays import to_numpy
from radplan.beams.beam import Beam, Beams
from radplan.beams.range_shifter import RangeShifter
from radplan.errors import FileError
from radplan.geometry.grid import Grid
from radplan.influence import Dij, ForwardModel
from radplan.influence.given import on_device
from radplan.influence.rows import Rows
from radplan.influence.saved import SavedModel
from radplan.plan import Plan

_ANGLES = ("gantry", "couch", "collimator", "sad", "bixel_width")


def write_images(path: Path, plan: Plan) -> None:
    """Write the images per fraction (n,), voxel parameters (n,), voxels (n,), grid and beams of a plan."""
    model = plan.model
    images = model.forward(on_device(plan.x, model))
    machine = model.machine if isinstance(model, Dij | SavedModel) else None
    arrays: dict[str, Any] = {
        "voxels": np.asarray(to_numpy(model.voxels), dtype=np.int64),
        "shape": np.asarray(model.grid.shape),
        "spacing": np.asarray(model.grid.spacing),
        "origin": np.asarray(model.grid.origin),
        "radiation": np.asarray(model.radiation),
        "machine": np.asarray(machine or ""),
        "linear": np.asarray(model.linear),
    }
    arrays |= {f"image_{name}": to_numpy(values)[0].astype(np.float32) for name, values in images.items()}
    arrays |= {
        f"parameter_{name}": to_numpy(values)[0].astype(np.float32) for name, values in model.voxel_parameters.items()
    }
    if plan.beams is not None:
        arrays |= _beam_arrays(plan.beams)
    np.savez_compressed(path, **arrays)


def read_images(path: Path, x: Any, build: Callable[[], ForwardModel]) -> SavedModel:
    """Return the model of the images in a file.

    Parameters
    ----------
    path : Path
        As `write_images` wrote it.
    x : array of shape (count,)
        The variables that the images belong to.
    build : callable
        Makes the whole model when it is needed.

    Raises
    ------
    FileError
        When the file cannot be read or lacks something.
    """
    with _reading(path) as arrays:
        grid = Grid(*(tuple(arrays[name].tolist()) for name in ("shape", "spacing", "origin")))
        parameters = {name.removeprefix("parameter_"): arrays[name] for name in arrays if name.startswith("parameter_")}
        rows = Rows.of(grid, arrays["voxels"], parameters, dtype="float32")
        saved = {name.removeprefix("image_"): arrays[name][None, :] for name in arrays if name.startswith("image_")}
        machine = str(arrays["machine"]) or None
        linear = bool(arrays["linear"])
        return SavedModel(rows, saved, np.asarray(x), str(arrays["radiation"]), machine, build, linear)


def read_beams(path: Path) -> Beams | None:
    """Return the beams in a file of images, None where they were not known.

    Raises
    ------
    FileError
        When the file cannot be read or lacks something.
    """
    with _reading(path) as arrays:
        return _beams(arrays, str(arrays["radiation"]), str(arrays["machine"]))


@contextmanager
def _reading(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        yield arrays
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise FileError(path, f"holds no images of a saved plan ({error})") from None


def _beam_arrays(beams: Beams) -> dict[str, Any]:
    """Everything that beams consist of, one array per field."""
    arrays: dict[str, Any] = {f"beam_{key}": np.asarray([beam.__dict__[key] for beam in beams]) for key in _ANGLES}
    arrays["beam_isocenter"] = np.asarray([beam.isocenter for beam in beams])
    arrays["beam_counts"] = np.asarray([beam.count for beam in beams])
    arrays["beam_bixels"] = np.concatenate([beam.bixels for beam in beams])
    arrays["beam_position"] = np.asarray([beam.patient_position for beam in beams])
    if all(beam.energies is not None for beam in beams):
        arrays["beam_energies"] = np.concatenate([np.asarray(beam.energies) for beam in beams])
    shifters = [(np.nan, np.nan) if b.range_shifter is None else _numbers(b.range_shifter) for b in beams]
    arrays["beam_range_shifter"] = np.asarray(shifters)
    return arrays


def _numbers(shifter: RangeShifter) -> tuple[float, float]:
    return shifter.thickness, shifter.isocenter_distance


def _beams(arrays: Mapping[str, Any], radiation: str, machine: str) -> Beams | None:
    if "beam_counts" not in arrays:
        return None
    ends = np.cumsum(arrays["beam_counts"])
    energies = arrays.get("beam_energies")
    beams = []
    for number, (count, end) in enumerate(zip(arrays["beam_counts"], ends, strict=True)):
        part = slice(int(end - count), int(end))
        thickness, distance = arrays["beam_range_shifter"][number].tolist()
        gantry, couch, collimator, sad, width = (float(arrays[f"beam_{key}"][number]) for key in _ANGLES)
        beam = Beam(
            gantry,
            couch,
            collimator,
            arrays["beam_isocenter"][number],
            sad,
            width,
            arrays["beam_bixels"][part],
            None if energies is None else energies[part],
            None if np.isnan(thickness) else RangeShifter(thickness, distance),
            str(arrays["beam_position"][number]),
        )
        beams.append(beam)
    return Beams(tuple(beams), radiation, machine)
