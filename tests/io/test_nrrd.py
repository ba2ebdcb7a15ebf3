"""NRRD volumes in any order and direction of axes."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from radplan.errors import FileError
from radplan.io.nrrd import read_nrrd


def write(path, values, directions, origin, space="left-posterior-superior", encoding="gzip"):
    said = " ".join("(" + ",".join(f"{v:g}" for v in row) + ")" for row in directions)
    head = (
        f"NRRD0004\n# made for a test\ntype: float\ndimension: 3\nspace: {space}\n"
        f"sizes: {' '.join(str(n) for n in values.shape[::-1])}\nspace directions: {said}\nendian: little\n"
        f"encoding: {encoding}\nspace origin: ({','.join(f'{v:g}' for v in origin)})\n\n"
    )
    data = values.astype("<f4").tobytes()
    path.write_bytes(head.encode() + (gzip.compress(data) if encoding == "gzip" else data))
    return path


def test_a_volume_keeps_its_place_whatever_the_order_of_its_axes(tmp_path):
    values = np.arange(24.0).reshape(2, 3, 4)  # [z, y, x]
    straight, grid = read_nrrd(write(tmp_path / "a.nrrd", values, np.diag([2.0, 3.0, 4.0]), (1.0, 2.0, 3.0)))
    np.testing.assert_array_equal(straight, values)
    assert (grid.shape, grid.spacing, grid.origin) == ((2, 3, 4), (2.0, 3.0, 4.0), (1.0, 2.0, 3.0))
    # The same voxels, written with x and y falling in RAS and with the first axis along z.
    stored = np.transpose(values, (2, 1, 0))
    other = write(
        tmp_path / "b.nrrd", stored, [(0, 0, 4.0), (0, -3.0, 0), (-2.0, 0, 0)], (-1.0, -2.0, 3.0), "RAS", "raw"
    )
    turned, same = read_nrrd(other)
    np.testing.assert_array_equal(turned, values)
    assert (same.shape, same.spacing, same.origin) == (grid.shape, grid.spacing, grid.origin)


def test_files_that_cannot_be_read_say_why(tmp_path):
    values = np.zeros((2, 2, 2))
    slanted = write(tmp_path / "s.nrrd", values, [(1, 0.5, 0), (0, 1, 0), (0, 0, 1)], (0, 0, 0))
    with pytest.raises(FileError, match="not parallel"):
        read_nrrd(slanted)
    short = write(tmp_path / "t.nrrd", values, np.eye(3), (0, 0, 0), encoding="raw")
    short.write_bytes(short.read_bytes()[:-8])
    with pytest.raises(FileError, match="no NRRD volume"):
        read_nrrd(short)
    (tmp_path / "u.nrrd").write_text("ROI,Volume")
    with pytest.raises(FileError, match="is no NRRD file"):
        read_nrrd(tmp_path / "u.nrrd")
    with pytest.raises(FileError, match="'scanner-xyz' in a way that is not understood"):
        read_nrrd(write(tmp_path / "v.nrrd", values, np.eye(3), (0, 0, 0), space="scanner-xyz"))
    with pytest.raises(FileError, match="cannot be read"):
        read_nrrd(tmp_path / "none.nrrd")
