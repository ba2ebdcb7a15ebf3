"""What a check of a plan in a phantom leaves behind: fluence of every field, and its point dose by factors."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from radplan.delivery.fluence import field_fluence
from radplan.recalc.point_dose import PointDose, point_doses
from radplan.recalc.recalculate import Recalculation


def save_quality_assurance(
    recalculation: Recalculation, folder: str | Path, point: npt.ArrayLike | None = None
) -> tuple[tuple[Path, ...], tuple[PointDose, ...]]:
    """Write point doses and fluences of a recalculated plan into a folder that is there; return files and doses.

    ``point_dose.csv`` holds a row of factors for each field; ``fluence.npz`` the map of field n as ``fluence_n``
    (ny, nx) [MU], with ``x_n`` and ``y_n`` in the collimator's axes [mm].

    Parameters
    ----------
    recalculation : Recalculation
        The plan where it was calculated, as a rule in a water phantom.
    folder : path-like
        Where.
    point : array of shape (3,), optional
        World position [mm]; the isocentre of the first field when left out.
    """
    folder = Path(folder)
    doses = point_doses(recalculation, point)
    table = folder / "point_dose.csv"
    with table.open("w", newline="", encoding="utf-8") as file:
        rows = [dose.row() for dose in doses]
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    arrays: dict[str, npt.NDArray[np.float64]] = {}
    for field, mlc in zip(recalculation.delivery, recalculation.mlcs, strict=True):
        fluence = field_fluence(field, mlc)
        arrays |= {
            f"fluence_{field.number}": fluence.values, f"x_{field.number}": fluence.x, f"y_{field.number}": fluence.y
        }  # fmt: skip
    maps = folder / "fluence.npz"
    np.savez_compressed(maps, **arrays)  # type: ignore[arg-type]
    return (table, maps), doses
