"""Doses that another system stored beam by beam, summed to the dose of the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from radplan.errors import FileError, InputError
from radplan.geometry.resample import resample_linear
from radplan.io.dicom.rtdose import DoseImage, read_dose


def read_summed_dose(
    paths: Sequence[str | Path], frame_of_reference: str | None = None, allow_other_frame: bool = False
) -> DoseImage:
    """Return the sum of RTDOSE files of single beams, on the grid of the first; `summation` says PLAN.

    Files must belong to one plan and one frame of reference, hold one kind of dose, and each beam once. Doses on other
    grids than the first are brought to it, trilinear, 0 outside.

    Parameters
    ----------
    paths : sequence of path-like
        One file per beam.
    frame_of_reference, allow_other_frame
        As `radplan.io.dicom.read_dose` takes them.

    Raises
    ------
    InputError
        When there is no file.
    FileError
        When a file is no dose of a beam, belongs to another plan, or repeats one.
    """
    if not paths:
        raise InputError("doses of beams are summed from at least one file, got none")
    files = [Path(path) for path in paths]
    images = [read_dose(path, frame_of_reference, allow_other_frame) for path in files]
    first = images[0]
    total = np.zeros(first.grid.shape)
    for k, (path, image) in enumerate(zip(files, images, strict=True)):
        if image.summation != "BEAM":
            raise FileError(
                path, f"holds the dose of a {image.summation or 'plan'}; expected BEAM beside others to sum"
            )
        for name in ("dose_type", "plan", "frame_of_reference"):
            own, usual = image.__dict__[name], first.__dict__[name]
            if own != usual and not (name == "frame_of_reference" and allow_other_frame):
                raise FileError(
                    path, f"its {name} is {own or 'not stated'}, that of {files[0].name} {usual}: no one plan"
                )
        for other, before in zip(files[:k], images[:k], strict=True):
            if before.grid == image.grid and np.array_equal(before.dose, image.dose) and image.dose.any():
                raise FileError(path, f"repeats {other.name}: each beam counts once")
        same = image.grid == first.grid
        total += image.dose if same else np.asarray(resample_linear(image.dose, image.grid, first.grid))
    return replace(first, dose=total, summation="PLAN", quantum=max(image.quantum for image in images))
