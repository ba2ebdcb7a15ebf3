"""Stored particle dose: the matrices of all images, on one pattern, and their transposes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.arrays import Device
from radplan.engines.particle.field import BeamField
from radplan.errors import CalculationError
from radplan.kernels import fine_spots, spots
from radplan.operators import SparseOperator

Ints = npt.NDArray[np.int64]


def spot_matrices(
    fields: list[BeamField], voxels: int, images: int, device: Device, dtype: str
) -> tuple[SparseOperator, ...]:
    """Write all beams side by side into one matrix for each image, and their transposes.

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
    counted = [_count(beam) for beam in fields]
    counts = np.zeros(voxels, dtype=np.int64)
    for beam, (per_row, _) in zip(fields, counted, strict=True):
        counts[beam.rows] += per_row
    indptr = _offsets(counts)
    t_indptr = _offsets(np.concatenate([per_column.sum(axis=0) for _, per_column in counted]))
    entries = int(indptr[-1])
    if entries == 0:
        raise CalculationError("no spot gives dose to any voxel: does the dose grid cover the beams in the patient?")
    indices, t_indices = np.empty(entries, dtype=np.int32), np.empty(entries, dtype=np.int32)
    data, t_data = (np.empty((images, entries), dtype=np.float32) for _ in range(2))
    begin, column = indptr[:-1].copy(), 0
    for beam, (per_row, per_column) in zip(fields, counted, strict=True):
        heads = t_indptr[column : column + beam.count] + np.cumsum(per_column, axis=0) - per_column
        fill = fine_spots.fill_entries if beam.fine else spots.fill_entries
        fill(beam.field, beam.rows, column, begin[beam.rows], indices, data, per_column, heads, t_indices, t_data)
        begin[beam.rows] += per_row
        column += beam.count
    first = SparseOperator.from_csr(
        indptr, indices, data[0], (voxels, column), (t_indptr, t_indices, t_data[0]), device, dtype
    )
    return (first, *(first.with_values(data[k], t_data[k]) for k in range(1, images)))


def _count(beam: BeamField) -> tuple[npt.NDArray[np.int32], Ints]:
    """Return numbers of entries per row, and per block of rows and column."""
    counted: tuple[npt.NDArray[np.int32], Ints]
    counted = fine_spots.count_entries(beam.field, beam.count) if beam.fine else spots.count_entries(beam.field)
    return counted


def _offsets(counts: Ints) -> Ints:
    """Return where each row begins, and the total, for numbers of entries per row."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
