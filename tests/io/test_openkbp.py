"""OpenKBP patients: what the files say arrives at the right place, and damage is one clear error."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.errors import FileError
from radplan.io.openkbp import DOSE_MASK, LEVELS, read_openkbp, write_openkbp


def _folder(folder, **replaced):
    """Write a patient of a few voxels: flat index = (anterior to posterior, right to left, superior to inferior)."""

    def flat(y, x, down):
        return (y * 128 + x) * 128 + down

    body = [flat(y, x, down) for y in range(60, 66) for x in range(50, 58) for down in range(10, 14)]
    target = [flat(62, 54, 11), flat(62, 55, 11)]
    rows = {
        "ct": [(i, 1034.0) for i in body],
        "possible_dose_mask": [(i, None) for i in body],
        "PTV70": [(i, None) for i in target],
        "LeftParotid": [(flat(63, 56, 10), None)],
        "dose": [(i, 70.5 if i in target else 20.0) for i in body],
    }
    rows.update(replaced)
    folder.mkdir()
    (folder / "voxel_dimensions.csv").write_text("3.906\n3.5\n2.5\n")
    for name, lines in rows.items():
        text = "".join(f"{i},{'' if v is None else v}\n" for i, v in lines)
        (folder / f"{name}.csv").write_text(",data\n" + text)
    return folder


def test_csv_axes_are_turned_to_the_patient(tmp_path):
    case = read_openkbp(_folder(tmp_path / "pt_7"))
    patient = case.patient
    assert patient.name == "pt_7"
    assert patient.ct.grid.shape == (128, 128, 128)
    assert patient.ct.grid.spacing == (3.906, 3.5, 2.5)
    k, j, i = np.unravel_index(patient.structures["PTV70"].voxels, patient.ct.grid.shape)
    assert (set(k), set(j), set(i)) == ({127 - 11}, {62}, {54, 55})
    assert case.dose[116, 62, 54] == np.float32(70.5)
    assert patient.ct.hu[116, 62, 54] == 10.0
    assert patient.ct.hu[0, 0, 0] == -1024.0
    assert patient.prescription == 70.0
    assert patient.fractions == 35
    assert patient.target_names == ("PTV70",)
    # the left parotid lies to the patient's left (+x) of the target and above it
    assert np.unravel_index(patient.structures["LeftParotid"].voxels[0], (128,) * 3) == (117, 63, 56)
    assert patient.structures[DOSE_MASK].voxels.size == 6 * 8 * 4


def test_csv_round_trip(tmp_path):
    case = read_openkbp(_folder(tmp_path / "pt_7"))
    write_openkbp(case, tmp_path / "again")
    again = read_openkbp(tmp_path / "again")
    np.testing.assert_array_equal(again.dose, case.dose)
    np.testing.assert_array_equal(again.patient.ct.hu, case.patient.ct.hu)
    assert list(again.patient.structures) == list(case.patient.structures)
    for name, structure in case.patient.structures.items():
        np.testing.assert_array_equal(again.patient.structures[name].voxels, structure.voxels)
    with pytest.raises(FileError, match="not empty"):
        write_openkbp(case, tmp_path / "again")


def test_load_patient_tells_a_csv_folder_from_dicom(tmp_path):
    assert rp.load_patient(_folder(tmp_path / "pt_7")).prescription == 70.0


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"dose": [(128**3, 1.0)]}, "indices 2097152"),
        ({"dose": [(5, float("nan"))]}, "no finite"),
        ({"PTV70": []}, "none of the targets"),
    ],
)
def test_damaged_csv_is_one_clear_error(tmp_path, replaced, message):
    with pytest.raises(FileError, match=message):
        read_openkbp(_folder(tmp_path / "pt_7", **replaced))


def test_pickles_are_refused(tmp_path):
    whole = {key: np.zeros((2, 2, 2)) for key in ("dose_mask", "hu", "dose", "roi_bits")}
    hostile = np.asarray([print], dtype=object)
    np.savez(tmp_path / "pt.npz", spacing=np.ones(3), corner=hostile, **whole)
    with pytest.raises(FileError, match="holds Python objects, which are not read"):
        read_openkbp(tmp_path / "pt.npz")


def test_npz_of_something_else_says_what_is_missing(tmp_path):
    np.savez(tmp_path / "pt.npz", spacing=np.ones(3), corner=np.zeros(3), dose_mask=np.zeros(8))
    with pytest.raises(FileError, match="lacks hu, dose, roi_bits or roi"):
        read_openkbp(tmp_path / "pt.npz")


def test_both_resolutions_show_the_same_patient(shared):
    """Volumes, means and places agree between the challenge's resolution and the halved copy."""
    full = read_openkbp(shared("cases/openkbp/full/validation/pt_202.npz"))
    half = read_openkbp(shared("cases/openkbp/half/validation/pt_202.npz"))
    assert full.ct_present
    assert half.ct_present
    compared = 0
    for name, structure in full.patient.structures.items():
        if name in ("External", "Brainstem", "SpinalCord"):
            continue  # these two run out of the dose mask's box, which is rounded up to even voxels in the copy
        compared += 1
        other = half.patient.structures[name]
        assert other.volume == pytest.approx(structure.volume, rel=1e-3), name
        fine = structure.grid.points(structure.voxels).mean(axis=0)
        weights = np.ones(other.voxels.size) if other.fraction is None else other.fraction
        coarse = np.average(other.grid.points(other.voxels), axis=0, weights=weights)
        np.testing.assert_allclose(coarse, fine, atol=0.3)
        if name in LEVELS:
            planned = full.dose.reshape(-1)[structure.voxels].mean()
            assert 0.9 * LEVELS[name] < planned < 1.12 * LEVELS[name]
    assert compared >= 6
