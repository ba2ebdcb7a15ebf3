"""Automatic contouring: a plug-in draws structures on a CT, under names that planning understands.

Other packages register contourers through the entry-point group ``radplan.contour``; TotalSegmentator is one where it
is installed.
"""

from __future__ import annotations

import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from radplan.errors import CalculationError, InputError
from radplan.io.images import read_segmentation, write_image
from radplan.patient import CT, Patient, Structure, Structures
from radplan.registry import Registry

Masks = dict[str, npt.NDArray[np.bool_]]


class Contourer(ABC):
    """What draws structures on a CT."""

    name: ClassVar[str]

    @abstractmethod
    def contour(self, ct: CT) -> Masks:
        """Return masks (nz, ny, nx) on the grid of the CT by name."""

    @classmethod
    def examples(cls) -> list[Contourer]:
        """Return instances to check; none where what they need is not installed."""
        return []


CONTOURERS: Registry[Contourer] = Registry("contour", Contourer)  # type: ignore[type-abstract]
"""All contourers by name; entry points of the group ``radplan.contour`` join on first use."""


@CONTOURERS.register
@dataclass(frozen=True)
class TotalSegmentator(Contourer):
    """Contours of TotalSegmentator (Wasserthal et al., Radiol. Artif. Intell. 5 (2023) e230024), where it is installed.

    It loads its weights by itself on first use. The package is not one of radplan's extras: its weights have
    licences of their own.

    Parameters
    ----------
    task : str
        Which of its tasks, ``"total"`` for most organs.
    fast : bool
        Whether the coarse model of 3 mm is used.
    structures : tuple of str
        Which of its structures; all of the task when empty.
    """

    task: str = "total"
    fast: bool = False
    structures: tuple[str, ...] = ()

    name: ClassVar[str] = "totalsegmentator"

    def contour(self, ct: CT) -> Masks:
        """Return the masks that TotalSegmentator draws.

        Raises
        ------
        InputError
            When it is not installed.
        CalculationError
            When it draws nothing.
        """
        try:
            from totalsegmentator.python_api import totalsegmentator
        except ImportError as error:
            raise InputError("this contourer needs TotalSegmentator: pip install TotalSegmentator") from error
        with tempfile.TemporaryDirectory() as place:
            source, out = Path(place) / "ct.nii.gz", Path(place) / "masks"
            write_image(source, ct.hu.astype(np.int16), ct.grid)
            chosen = list(self.structures) or None
            totalsegmentator(source, out, task=self.task, fast=self.fast, roi_subset=chosen)
            masks: Masks = {}
            for file in sorted(out.glob("*.nii.gz")):
                drawn, grid = read_segmentation(file)
                if grid.shape != ct.grid.shape:
                    raise CalculationError(f"{file.name} has shape {grid.shape}, the CT {ct.grid.shape}")
                if drawn:
                    masks[file.name.removesuffix(".nii.gz")] = next(iter(drawn.values()))
        if not masks:
            raise CalculationError("TotalSegmentator drew no structure on this CT")
        return masks


def contoured(patient: Patient, contourer: Contourer | str) -> Patient:
    """Return the patient with the structures that a contourer draws and the patient lacks.

    Parameters
    ----------
    patient : Patient
        With a CT; its own structures stay as they are.
    contourer : Contourer or str
        What draws, or its registered name.

    Raises
    ------
    UnknownNameError
        When no contourer has that name.
    """
    chosen = CONTOURERS.get(contourer)() if isinstance(contourer, str) else contourer
    drawn = [
        Structure.from_mask(name, patient.ct.grid, mask, role="oar")
        for name, mask in chosen.contour(patient.ct).items()
        if name not in patient.structures and mask.any()
    ]
    structures = Structures([*patient.structures.values(), *drawn])
    return replace(patient, structures=structures)
