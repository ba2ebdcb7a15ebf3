"""Damaged DICOM files: whatever is broken, reading ends soon, with a patient or with one error that names the file."""

from __future__ import annotations

import shutil
import time
import warnings
from functools import partial
from io import BytesIO

import numpy as np
import pydicom
import pytest

from radplan.errors import FileError
from radplan.geometry.grid import Grid
from radplan.io.dicom import describe_folder, read_dose, read_patient, write_dose
from tests.io.dicom_files import small_case

LIMIT = 10.0
"""Longest that any damaged file may take [s]."""

BATCHES, PER_BATCH = 18, 30
"""540 damaged folders and 270 damaged doses."""


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    return small_case(tmp_path_factory.mktemp("healthy"))


def flipped(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    for _ in range(int(rng.integers(1, 12))):
        damaged[int(rng.integers(len(damaged)))] ^= int(rng.integers(1, 256))
    return bytes(damaged)


def flipped_in_header(content: bytes, rng: np.random.Generator) -> bytes:
    damaged = bytearray(content)
    damaged[int(rng.integers(128, 1400)) % len(damaged)] = int(rng.integers(256))
    return bytes(damaged)


def truncated(content: bytes, rng: np.random.Generator) -> bytes:
    return content[: int(rng.integers(len(content)))]


def overwritten(content: bytes, rng: np.random.Generator) -> bytes:
    start, count = int(rng.integers(len(content))), int(rng.integers(1, 64))
    return content[:start] + rng.bytes(count) + content[start + count :]


def doubled(content: bytes, rng: np.random.Generator) -> bytes:
    start, count = int(rng.integers(len(content))), int(rng.integers(1, 400))
    return content[: start + count] + content[start:]


def with_tag_edited(content: bytes, rng: np.random.Generator) -> bytes:
    """Delete, empty or garble one element, at the top or inside a sequence, so that the file itself stays whole."""
    dataset = pydicom.dcmread(BytesIO(content))
    holder = dataset
    while True:
        element = list(holder)[int(rng.integers(len(holder)))]
        if element.VR != "SQ" or not element.value or rng.random() < 0.3:
            break
        holder = element.value[int(rng.integers(len(element.value)))]
    choice = rng.integers(3)
    if choice == 0:
        del holder[element.tag]
    elif choice == 1:
        holder[element.tag].value = [] if element.VR == "SQ" else None
    elif element.VR in GARBAGE:
        garbage = GARBAGE[element.VR]
        holder[element.tag].value = garbage[int(rng.integers(len(garbage)))]
    out = BytesIO()
    dataset.save_as(out)
    return out.getvalue()


GARBAGE = {
    "DS": ["-1", "0", "1e9", "1e300", "nan", ["1", "2"]],
    "IS": ["-1", "0", "65535", "999999999", ["1", "2"]],
    "US": [0, 1, 8, 7777, 65535],
    "UI": ["1.2.3", ""],
    "CS": ["CT", "HFP", "RTDOSE", "POINT", "MONOCHROME1", "?"],
    "LO": ["PTV", "\\", "\0"],
}

DAMAGES = (flipped, flipped_in_header, truncated, overwritten, doubled, with_tag_edited)


def damage(content: bytes, number: int, rng: np.random.Generator) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return DAMAGES[number % len(DAMAGES)](content, rng)


def outcome(read, where) -> bool:
    """Return whether reading succeeded; else check that one plain error names the place and a cause."""
    start = time.perf_counter()
    try:
        read()
        succeeded = True
    except FileError as error:
        succeeded = False
        place, _, cause = str(error).partition(": ")
        assert str(where) in place
        assert len(cause) > 5
    assert time.perf_counter() - start < LIMIT
    return succeeded


@pytest.mark.parametrize("batch", range(BATCHES))
def test_damaged_folders(healthy, tmp_path, batch):
    rng = np.random.default_rng(1000 + batch)
    files = sorted(healthy.iterdir())
    folder = tmp_path / "case"
    shutil.copytree(healthy, folder)
    failures = 0
    for number in range(PER_BATCH):
        # Half of the damage goes to the structure set, which has most ways to be wrong.
        victim = files[-1] if rng.random() < 0.5 else files[int(rng.integers(len(files) - 1))]
        content = victim.read_bytes()
        (folder / victim.name).write_bytes(damage(content, batch * PER_BATCH + number, rng))
        failures += not outcome(partial(read_patient, folder), folder)
        (folder / victim.name).write_bytes(content)
    assert failures > 0
    assert read_patient(folder).structures["PTV"].volume == pytest.approx(187.5)


def test_damaged_files_in_a_listing(healthy, tmp_path):
    rng = np.random.default_rng(5)
    for number, file in enumerate(sorted(healthy.iterdir()) * 6):
        (tmp_path / f"{number}.dcm").write_bytes(damage(file.read_bytes(), number, rng))
    assert f"{tmp_path}: " in describe_folder(tmp_path)


@pytest.mark.parametrize("batch", range(BATCHES // 2))
def test_damaged_doses(tmp_path, batch):
    rng = np.random.default_rng(3000 + batch)
    grid = Grid((3, 4, 5), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))
    content = write_dose(tmp_path / "dose.dcm", rng.uniform(0, 60, grid.shape), grid).read_bytes()
    failures = 0
    for number in range(PER_BATCH):
        path = tmp_path / "damaged.dcm"
        path.write_bytes(damage(content, batch * PER_BATCH + number, rng))
        failures += not outcome(partial(read_dose, path), path)
    assert failures > 0
