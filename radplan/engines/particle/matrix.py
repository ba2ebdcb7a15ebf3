"""Stored particle dose: the matrices of all images, on one pattern."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.arrays import Device
from radplan.engines.particle.field import BeamField
from radplan.errors import CalculationError
from radplan.kernels import fine_spots, spots
from radplan.operators import BlockRows, SparseOperator, sparse_images
from radplan.progress import each

Ints = npt.NDArray[np.int64]


def spot_matrices(
    fields: list[BeamField], voxels: int, images: int, device: Device, dtype: str
) -> tuple[SparseOperator, ...]:
    """Write all beams side by side into one matrix for each image.

    Parameters
    ----------
    fields : list of BeamField
        The beams.
    voxels, images : int
        Rows of a matrix, and number of matrices.
    device : Device
        Where the products run.
    dtype : str
        ``"float32"`` or ``"float64"``.

    Raises
    ------
    CalculationError
        When no spot gives dose to any voxel.
    """
    nothing = BlockRows.zeros(np.zeros(voxels, dtype=np.int64), sum(beam.count for beam in fields), images)
    counted = [
        _write(beam, 0, np.zeros(beam.rows.size, dtype=np.int64), nothing, False)
        for beam in each("influence", fields, "counting")
    ]
    per_row = np.zeros(voxels, dtype=np.int64)
    for beam, counts in zip(fields, counted, strict=True):
        per_row[beam.rows] += counts
    if not per_row.any():
        raise CalculationError("no spot gives dose to any voxel: does the dose grid cover the beams in the patient?")
    rows = BlockRows.zeros(per_row, nothing.columns, images, device, dtype)
    begins, column = rows.pointers[:-1].copy(), 0
    for beam in each("influence", fields, "writing"):
        begins[beam.rows] += _write(beam, column, begins[beam.rows], rows, True)
        column += beam.count
    return sparse_images(rows, device, dtype)


def _write(beam: BeamField, column: int, begins: Ints, rows: BlockRows, write: bool) -> Ints:
    """Return numbers of blocks of a beam's rows ``(m,)``, and write them from each row's `begins` on."""
    kernel = fine_spots.write_blocks if beam.fine else spots.write_blocks
    counts = np.zeros(begins.size, dtype=np.int64)
    kernel(beam.field, column, begins, counts, rows.firsts, rows.values, write)
    return counts
