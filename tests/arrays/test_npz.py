"""Archives of arrays from outside are looked at before anything is unpacked."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from radplan.arrays.npz import read_npz
from radplan.errors import FileError
from radplan.geometry.grid import Grid
from radplan.io.load import load_machine
from radplan.io.plan_file import plan_spec
from radplan.machines import MACHINES
from radplan.workflows.setup import background_dose


def stored(values) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asanyarray(values))
    return stream.getvalue()


def claiming(shape: str, dtype: str = "<f8", body: bytes = b"") -> bytes:
    head = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head.encode() + body


def archive(path, parts: dict[str, bytes]):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in parts.items():
            file.writestr(f"{name}.npy", content)
    return path


def test_what_numpy_writes_comes_back(tmp_path):
    arrays = {"a": np.arange(6.0).reshape(2, 3), "b": np.asarray("text"), "c": np.asfortranarray(np.eye(3)), "d": 5}
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    read = read_npz(tmp_path / "a.npz")
    assert {name: values.tolist() for name, values in read.items()} == {
        name: np.asarray(values).tolist() for name, values in arrays.items()
    }
    assert list(read_npz(tmp_path / "a.npz", ("c", "none"))) == ["c"]


GRID_PARTS = {"shape": stored([2, 2, 2]), "spacing": stored([1.0, 1, 1]), "origin": stored([0.0, 0, 0])}
DOSE = stored(np.ones((2, 2, 2)))
ZEROS = stored(np.zeros(200_000_000, dtype=np.uint8))

HOSTILE = {
    "claims terabytes": {"dose": claiming("(1000000000000,)")},
    "claims less than it holds": {"dose": claiming("(1,)", body=bytes(80))},
    "negative": {"dose": claiming("(-1,)")},
    "objects": {"dose": claiming("(1,)", "|O", bytes(8))},
    "no header": {"dose": b"\x93NUMPY\x01\x00\x05\x00xxxxx"},
    "another version": {"dose": b"\x93NUMPY\x09\x00" + bytes(200)},
    "a header of a megabyte": {"dose": claiming("(" + "1," * 30_000 + ")")},
    "unpacks to gigabytes": {f"part{k}": ZEROS for k in range(4)},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_end_soon_in_one_short_error(tmp_path, name):
    path = archive(tmp_path / "h.npz", HOSTILE[name])
    tracemalloc.start()
    try:
        with pytest.raises(FileError) as caught:
            read_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
    assert len(str(caught.value)) < 500


def test_what_is_no_archive_is_refused(tmp_path):
    for name, content in {"empty": b"", "text": b"no archive", "npy": DOSE}.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        with pytest.raises(FileError, match="is no archive of arrays"):
            read_npz(path)
    with pytest.raises(FileError, match="no such file"):
        read_npz(tmp_path / "none.npz")
    whole = archive(tmp_path / "whole.npz", {"dose": DOSE}).read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(300):
        damaged = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            damaged[place] = rng.integers(256)
        (tmp_path / "damaged.npz").write_bytes(damaged)
        try:
            read_npz(tmp_path / "damaged.npz")
        except FileError as error:
            assert len(str(error)) < 500  # noqa: PT017


@pytest.mark.parametrize(
    "header", ["[]", '"x"', "[" * 100_000, "{}", '{"format": 5}', "9" * 5000, '{"format": "radplan photon machine 1"}']
)
def test_machines_with_another_header_are_refused(tmp_path, header):
    with pytest.raises(FileError):
        load_machine(archive(tmp_path / "m.npz", {"header": stored(np.asarray(header))}))


def test_machines_with_damaged_entries_are_refused(tmp_path):
    for kind in ("generic_photon_6mv", "generic_proton"):
        parts = read_npz(MACHINES[kind])
        for name in parts:
            for wrong in (np.asarray("text"), np.zeros(0)):
                path = archive(tmp_path / "m.npz", {k: stored(wrong if k == name else v) for k, v in parts.items()})
                try:
                    load_machine(path)
                except FileError as error:
                    assert str(error).startswith(str(path))  # noqa: PT017


@pytest.mark.parametrize(
    "parts",
    [
        {"dose": DOSE, **GRID_PARTS, "shape": stored(1)},
        {"dose": DOSE, **GRID_PARTS, "shape": stored([2.0, 2, 3])},
        {"dose": DOSE, **GRID_PARTS, "spacing": stored([1.0, 0, 1])},
        {"dose": DOSE, **GRID_PARTS, "origin": stored(["a", "b", "c"])},
        {"dose": DOSE, **GRID_PARTS, "origin": stored([0.0, np.nan, 0])},
        {"dose": stored(np.full((2, 2, 2), np.nan)), **GRID_PARTS},
        {"dose": stored(np.ones(8)), **GRID_PARTS},
        {"dose": stored(np.ones((2, 2, 2)) * 1j), **GRID_PARTS},
        {"dose": DOSE},
    ],
)
def test_backgrounds_that_are_no_dose_are_refused(tmp_path, parts):
    spec = plan_spec({"background": str(archive(tmp_path / "b.npz", parts))})
    with pytest.raises(FileError):
        background_dose(spec, Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)), None)
