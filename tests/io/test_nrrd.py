"""NRRD volumes in any order and direction of axes."""

from __future__ import annotations

import gzip
import tracemalloc

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


HEAD = (
    "NRRD0004\ntype: {type}\ndimension: 3\nspace: LPS\nsizes: {sizes}\nspace directions: {axes}\nencoding: {encoding}\n"
)
AXES = "(1,0,0) (0,1,0) (0,0,1)"


def hostile(sizes="2 2 2", axes=AXES, encoding="raw", kind="float", origin="(0,0,0)", body=bytes(32)):
    head = HEAD.format(type=kind, sizes=sizes, axes=axes, encoding=encoding)
    return f"{head}space origin: {origin}\n\n".encode() + body


HOSTILE = {
    "claims terabytes": hostile("100000 100000 1000"),
    "gzip bomb": hostile("10000 10000 100", encoding="gzip", kind="uchar", body=gzip.compress(bytes(50_000_000))),
    "more than claimed": hostile(encoding="gzip", body=gzip.compress(bytes(50_000_000))),
    "cut": hostile(encoding="gzip", body=gzip.compress(bytes(32))[:-9]),
    "negative": hostile("-2 2 -2"),
    "no size": hostile("0 2 2"),
    "huge number": hostile("9" * 5000 + " 2 2"),
    "two directions": hostile(axes="(1,0,0) (0,1,0)"),
    "no length": hostile(axes="(0,0,0) (0,1,0) (0,0,1)"),
    "NaN axes": hostile(axes="(nan,0,0) (0,1,0) (0,0,1)"),
    "infinite origin": hostile(origin="(inf,0,0)"),
    "no origin": hostile(origin="none"),
    "NaN values": hostile(body=np.full(8, np.nan, dtype="<f4").tobytes()),
    "empty": b"NRRD0004\n\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_volumes_end_soon_in_one_short_error(tmp_path, name):
    path = tmp_path / "h.nrrd"
    path.write_bytes(HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(FileError) as caught:
            read_nrrd(path)
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 6000
