"""GDP-HMM patients are read from their pickles, and pickles that do more than hold arrays are refused."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest

import radplan as rp
from radplan.errors import FileError
from radplan.io.gdp_hmm import is_gdp_hmm, read_gdp_hmm


def patient() -> dict:
    hu = np.full((4, 6, 8), -1000.0, dtype=np.float32)
    hu[:, 1:5, 1:7] = 0.0
    target, body = np.zeros(hu.shape, np.uint8), (hu > -500).astype(np.uint8)
    target[1:3, 2:4, 3:5] = 1
    return {
        "img": hu, "dose": target.astype(np.int32) * 7000, "dose_scale": 0.01, "PTV": target, "Body": body,
        "spacing": np.asarray([2.5, 2.5, 2.0]), "origin": (-10.0, -5.0, 3.0), "isVMAT": False, "angle_list": [0, 120],
        "isocenter": [1.5, 2.5, 3.5], "angle_plate": np.zeros(hu.shape, np.float32),
    }  # fmt: skip


def test_a_patient_is_read_as_written(tmp_path: Path) -> None:
    file = tmp_path / "case.npz"
    np.savez(file, patient())
    assert is_gdp_hmm(file)
    case = read_gdp_hmm(file)
    assert case.patient.ct.grid == rp.Grid((4, 6, 8), (2.5, 2.5, 2.0), (-10.0, -5.0, 3.0))
    assert case.dose.max() == pytest.approx(70.0)
    assert case.patient.structures["PTV"].role == "target"
    assert case.patient.structures["PTV"].voxels.size == 8
    assert case.gantry == (0.0, 120.0)
    assert list(case.plates) == ["angle_plate"]
    assert rp.load_patient(file).structures["External"].role == "external"


class _Calls:
    def __reduce__(self):
        return os.system, ("touch harm",)


def written(path: Path, payload: bytes) -> Path:
    data = io.BytesIO()
    np.lib.format.write_array_header_1_0(data, {"descr": "|O", "fortran_order": False, "shape": ()})
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", data.getvalue() + payload)
    return path


def test_a_pickle_that_calls_is_refused_and_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = written(tmp_path / "hostile.npz", pickle.dumps({"img": _Calls()}))
    with pytest.raises(FileError, match=r"asks for (posix|nt)\.system"):
        read_gdp_hmm(file)
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize("payload", [b"", b"\x80\x04.", pickle.dumps([1, 2]), b"cbuiltins\neval\n(S'1'\ntR."])
def test_damaged_files_are_one_short_error(payload: bytes, tmp_path: Path) -> None:
    with pytest.raises(FileError):
        read_gdp_hmm(written(tmp_path / "bad.npz", payload))


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    held = patient()
    del held["spacing"]
    np.savez(tmp_path / "less.npz", held)
    with pytest.raises(FileError, match="lacks spacing"):
        read_gdp_hmm(tmp_path / "less.npz")
