"""Damaged MATLAB files end in one error and never in SciPy's crash; whole ones pass unchanged."""

from __future__ import annotations

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from radplan.errors import FileError
from radplan.io.matrad.struct import load_variables


def cell(*items):
    row = np.empty((1, len(items)), dtype=object)
    row[0, :] = [None] * len(items)
    for k, item in enumerate(items):
        row[0, k] = item
    return row


CONTENT = {
    "ct": {"cubeHU": cell(np.arange(24.0).reshape(2, 3, 4)), "resolution": {"x": 1.0}, "note": "größer"},
    "cst": cell(1.0, "PTV", cell(np.arange(5)), {"a": 1 + 2j, "b": np.asarray([True, False])}, np.zeros((0, 0))),
    "machine": {"data": [{"energy": float(k), "Z": np.arange(4.0)} for k in range(3)]},
}


@pytest.mark.parametrize("compressed", [True, False])
def test_whole_files_pass(tmp_path, compressed):
    savemat(tmp_path / "w.mat", CONTENT, do_compression=compressed)
    read = load_variables(tmp_path / "w.mat", ("ct", "cst", "machine"), simplify_cells=True)
    assert read["ct"]["cubeHU"].tolist() == CONTENT["ct"]["cubeHU"][0, 0].tolist()
    assert read["ct"]["note"] == "größer"
    assert [entry["energy"] for entry in read["machine"]["data"]] == [0.0, 1.0, 2.0]


def element(kind: int, data: bytes) -> bytes:
    return np.asarray([kind, len(data)], "<u4").tobytes() + data + bytes(-len(data) % 8)


def matrix(kind: int, lengths, name: bytes, *parts: bytes) -> bytes:
    flags = element(6, np.asarray([kind, 0], "<u4").tobytes())
    return element(14, flags + element(5, np.asarray(lengths, "<i4").tobytes()) + element(1, name) + b"".join(parts))


def packed(content: bytes) -> bytes:
    data = zlib.compress(content)
    return np.asarray([15, len(data)], "<u4").tobytes() + data


def nested(depth: int) -> bytes:
    inner = matrix(6, [1, 1], b"", element(9, bytes(8)))
    for _ in range(depth):
        inner = matrix(1, [1, 1], b"", inner)
    return matrix(1, [1, 1], b"ct", inner)


NUMBERS = element(9, bytes(8))
HOSTILE = {
    "more numbers than bytes": matrix(6, [1000, 1000], b"ct", NUMBERS),
    "negative length": matrix(6, [-1, 1], b"ct", NUMBERS),
    "one dimension": matrix(6, [1], b"ct", NUMBERS),
    "numbers of an unknown type": matrix(6, [1, 1], b"ct", element(42, bytes(8))),
    "class of none": matrix(99, [1, 1], b"ct", NUMBERS),
    "cells that are not there": matrix(1, [1000, 1000], b"ct", NUMBERS),
    "a number as a cell": matrix(1, [1, 1], b"ct", NUMBERS),
    "field names of no length": matrix(2, [1, 1], b"ct", element(5, bytes(4)), element(1, b"a")),
    "deep": nested(5000),
    "beyond the file": np.asarray([14, 2**31 - 1], "<u4").tobytes() + bytes(64),
    "bomb of zeros": packed(element(14, bytes(1_200_000_000))),
    "bytes that become numbers": packed(matrix(6, [20000, 20000], b"ct", element(2, bytes(400_000_000)))),
    "text beyond its bytes": matrix(4, [1, 500], b"ct", element(4, bytes(8))),
    "half a deflate": packed(matrix(6, [1, 1], b"ct", NUMBERS))[:-9],
}

CHILD = """
import resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from pathlib import Path
from radplan.errors import FileError
from radplan.io.matrad.struct import load_variables
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
try:
    load_variables(Path(sys.argv[1]), ("ct",))
    print("read")
except FileError as error:
    print("refused", len(str(error)) < 500)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, time.process_time() - start)
"""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_soon_in_one_short_error(tmp_path, name):
    path = tmp_path / "h.mat"
    path.write_bytes(b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + HOSTILE[name])
    if "bomb" not in name and "become" not in name:
        with pytest.raises(FileError) as caught:
            load_variables(path, ("ct",))
        assert len(str(caught.value)) < 500
        return
    said = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], capture_output=True, text=True, timeout=60, check=True
    )
    outcome, measured = said.stdout.strip().split("\n")
    assert outcome == "refused True"
    megabytes, seconds = (float(value) for value in measured.split())
    assert megabytes < 1000
    assert seconds < 5


FUZZ = """
import sys
import numpy as np
from pathlib import Path
from radplan.errors import FileError
from radplan.io.matrad.struct import load_variables
folder, rng, read = Path(sys.argv[1]), np.random.default_rng(11), 0
whole = [path.read_bytes() for path in sorted(folder.glob("*.mat"))]
for number in range(1500):
    damaged = bytearray(whole[number % len(whole)])
    for place in rng.integers(128, len(damaged), int(rng.integers(1, 6))):
        damaged[place] = rng.choice([0, 1, 2, 4, 5, 6, 9, 14, 15, 127, 128, 255, rng.integers(256)])
    (folder / "damaged").write_bytes(damaged)
    try:
        load_variables(folder / "damaged", ("ct", "cst", "machine"), simplify_cells=bool(number % 2))
        read += 1
    except FileError:
        pass
print("survived", 0 < read < 1500)
"""


def test_no_damage_ends_the_process(tmp_path):
    savemat(tmp_path / "a.mat", CONTENT)
    savemat(tmp_path / "b.mat", CONTENT, do_compression=True)
    said = subprocess.run([sys.executable, "-c", FUZZ, str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert (said.returncode, said.stdout.strip()) == (0, "survived True"), said.stderr[-500:]


def test_matrads_own_files_pass(shared):
    for name in ("cases/tg119/BOXPHANTOM.mat", "cases/matrad_machines/protons_Generic.mat"):
        path: Path = shared(name)
        assert load_variables(path, ("ct", "cst", "machine"))
