"""What goes out comes back: matRad of every version, DICOM in all patient positions, images, doses of beams."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread

import radplan as rp
from radplan.cli.main import main
from radplan.errors import FileError, InputError
from radplan.geometry.frames import PATIENT_POSITIONS
from radplan.io import load_patient
from radplan.io.dicom import Orientation, export_anonymous, read_case, read_ct, read_dose, read_summed_dose, write_dose
from radplan.io.images import read_image, save_images
from radplan.io.matrad.results import matlab_cube, write_results
from radplan.io.reference import read_reference
from radplan.patient import CT, Patient, Structure, Structures
from tests.io.dicom_files import ct_slices, save, small_case, square, structure_set

SCAN = {
    "HFS": (1, 0, 0, 0, 1, 0), "HFP": (-1, 0, 0, 0, -1, 0), "FFS": (-1, 0, 0, 0, 1, 0), "FFP": (1, 0, 0, 0, -1, 0),
    "HFDR": (0, -1, 0, 1, 0, 0), "HFDL": (0, 1, 0, -1, 0, 0), "FFDR": (0, 1, 0, 1, 0, 0), "FFDL": (0, -1, 0, -1, 0, 0),
}  # fmt: skip
"""ImageOrientationPatient of axial slices of a scanner whose rows run to its right and columns to the floor."""


def odd_plan(name: str = "Doe^Jane") -> rp.Plan:
    """A patient without any symmetry, on a grid of three different spacings, with a dose on a coarser one."""
    grid = rp.Grid((7, 9, 11), (2.0, 2.5, 3.0), (-10.0, 5.0, -30.0))
    rng = np.random.default_rng(4)
    hu = np.round(rng.uniform(-1000.0, 2000.0, grid.shape)).astype(np.float32)
    z, y, x = np.indices(grid.shape)
    parts = (
        Structure.from_mask("PTV", grid, (x > 6) & (y > 2) & (y < 6) & (z > 1) & (z < 5), role="target", priority=1),
        Structure.from_mask("Cord", grid, (x < 4) & (y > 5), alpha_x=0.2, beta_x=0.04, color=(0.0, 0.5, 1.0)),
        Structure.from_mask("BODY", grid, np.ones(grid.shape, dtype=bool), role="external"),
    )
    patient = Patient(name, CT(grid, hu), Structures(parts), fractions=20, prescription=40.0)
    dose_grid = grid.with_spacing((4.0, 5.0, 6.0))
    dij = rp.Dij.from_matrices({"physical_dose": rng.uniform(0.5, 2.0, (dose_grid.size, 1))}, dose_grid)
    goals = (
        rp.Goal("PTV", rp.SquaredDeviation(40.0), weight=100.0),
        rp.Goal("PTV", rp.MinDVH(38.0, 0.95), weight=10.0),
        rp.Goal("Cord", rp.MaxDVH(20.0, 0.3), weight=5.0),
        rp.Goal("Cord", rp.Mean(10.0, form="quadratic"), weight=2.0),
        rp.Goal("Cord", rp.EUD(12.0, exponent=8.0), weight=1.0),
    )
    return replace(rp.evaluate(dij, [1.0], patient, fractions=20), goals=goals)


def test_a_plan_comes_back_from_matrad(tmp_path) -> None:
    from scipy.io import loadmat

    plan = odd_plan()
    path = write_results(plan, tmp_path / "plan.mat")
    back = load_patient(path)
    assert back.ct.grid == plan.patient.ct.grid
    assert np.array_equal(back.ct.hu, plan.patient.ct.hu)
    for name, structure in plan.patient.structures.items():
        again = back.structures[name]
        assert np.array_equal(again.voxels, structure.voxels)
        assert (again.role, again.alpha_x, again.effective_priority) == (
            structure.role, structure.alpha_x, structure.effective_priority,
        )  # fmt: skip
    assert [goal.to_spec() for goal in back.goals] == [goal.to_spec() for goal in plan.goals]
    assert back.fractions == 20
    stored = loadmat(path, simplify_cells=True)["resultGUI"]
    first = plan["physical_dose"][0, 0, 0] / 20
    assert stored["physicalDose"][0, 0, 0] == pytest.approx(first, rel=1e-6)
    assert stored["physicalDose"].shape == (9, 11, 7)
    with pytest.raises(InputError, match=r"end in \.mat"):
        write_results(plan, tmp_path / "plan.txt")


def hdf5_of(path, variables) -> None:
    """Write variables as MATLAB 7.3 does: arrays turned round, text as codes, cells as references, classes told."""
    h5py = pytest.importorskip("h5py", reason="the extra images is not installed")
    with h5py.File(path, "w", userblock_size=512) as file:
        references, numbers = file.create_group("#refs#"), itertools.count()

        def put(group, name, value) -> None:
            if isinstance(value, dict):
                made = group.create_group(name)
                made.attrs["MATLAB_class"] = np.bytes_("struct")
                for key, entry in value.items():
                    put(made, key, entry)
                return
            if isinstance(value, str):
                made = group.create_dataset(name, data=np.asarray([[ord(c)] for c in value], dtype=np.uint16))
                made.attrs["MATLAB_class"] = np.bytes_("char")
                return
            array = np.asarray(value)
            if array.dtype == object:
                cell = np.empty(array.shape[::-1], dtype=h5py.ref_dtype)
                for place, entry in np.ndenumerate(array):
                    put(references, label := f"r{next(numbers)}", entry)
                    cell[place[::-1]] = references[label].ref
                made = group.create_dataset(name, data=cell, dtype=h5py.ref_dtype)
                made.attrs["MATLAB_class"] = np.bytes_("cell")
                return
            if array.size == 0:
                made = group.create_dataset(name, data=np.zeros(2, dtype=np.uint64))
                made.attrs["MATLAB_empty"] = np.uint8(1)
            else:
                made = group.create_dataset(name, data=np.atleast_2d(array).T)
            made.attrs["MATLAB_class"] = np.bytes_("double")

        for key, entry in variables.items():
            put(file, key, entry)
    with path.open("r+b") as file:
        file.write(
            b"MATLAB 7.3 MAT-file, Platform: GLNXA64, Created on: Thu Nov 26 2026 HDF5 schema 1.00 .".ljust(124)
            + b"\x00\x02IM"
        )


def test_matrad_files_of_version_7_3_are_read_like_older_ones(tmp_path) -> None:
    from radplan.io.matrad.results import _cst, _ct, _pln

    plan = odd_plan()
    old = load_patient(write_results(plan, tmp_path / "plan.mat"))
    hdf5_of(tmp_path / "new.mat", {"ct": _ct(plan), "cst": _cst(plan), "pln": _pln(plan)})
    new = load_patient(tmp_path / "new.mat")
    assert new.ct.grid == old.ct.grid
    assert np.array_equal(new.ct.hu, old.ct.hu)
    assert [goal.to_spec() for goal in new.goals] == [goal.to_spec() for goal in old.goals]
    assert all(np.array_equal(new.structures[n].voxels, s.voxels) for n, s in old.structures.items())
    assert new.structures["Cord"].color == (0.0, 0.5, 1.0)


def test_other_readers_understand_the_files_of_version_7_3_that_are_tested(tmp_path) -> None:
    mat73 = pytest.importorskip("mat73", reason="mat73, another reader of MATLAB 7.3, is not installed")
    hdf5_of(tmp_path / "new.mat", {"ct": {"cube": np.arange(24.0).reshape(2, 3, 4), "name": "chest"}})
    read = mat73.loadmat(str(tmp_path / "new.mat"))["ct"]
    assert np.array_equal(read["cube"], np.arange(24.0).reshape(2, 3, 4))
    assert read["name"] == "chest"


def test_damaged_and_wandering_files_of_version_7_3_are_refused(tmp_path) -> None:
    h5py = pytest.importorskip("h5py", reason="the extra images is not installed")
    whole = tmp_path / "whole.mat"
    hdf5_of(whole, {"ct": {"cubeDim": [1.0, 1.0, 1.0]}, "cst": np.zeros(0)})
    content = whole.read_bytes()
    cut = tmp_path / "cut.mat"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(FileError, match="cut short or damaged"):
        load_patient(cut)
    with h5py.File(tmp_path / "away.mat", "w", userblock_size=512) as file:
        file["ct"] = h5py.ExternalLink(str(whole), "/ct")
        file["cst"] = np.zeros(3)
    with pytest.raises(FileError, match="leads outside the file"):
        load_patient(tmp_path / "away.mat")


@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_anonymous_files_come_back_in_every_position(tmp_path, position) -> None:
    plan = odd_plan()
    way = Orientation.from_cosines(SCAN[position], position)
    names = export_anonymous(plan, tmp_path, "case-7", way)
    assert {path.name for path in names} >= {"RS.dcm", "RD.dcm", "CT_0001.dcm"}
    back = read_case(tmp_path)
    assert back.series.orientation == way
    assert back.patient.patient_position == position
    grid = plan.patient.ct.grid
    assert back.patient.ct.grid.shape == grid.shape
    assert np.allclose(back.patient.ct.grid.origin, grid.origin, atol=1e-4)
    assert np.allclose(back.patient.ct.grid.spacing, grid.spacing, atol=1e-4)
    assert np.array_equal(back.patient.ct.hu, plan.patient.ct.hu)
    for name in ("PTV", "Cord"):
        assert np.array_equal(back.patient.structures[name].mask(), plan.patient.structures[name].mask())
    dose = read_dose(tmp_path / "RD.dcm", back.series.frame_of_reference)
    assert np.allclose(dose.grid.origin, plan.model.grid.origin, atol=1e-4)
    assert np.abs(dose.dose - plan["physical_dose"]).max() <= dose.quantum / 2 * 1.001


def test_anonymous_files_hold_nothing_of_the_person(tmp_path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    small_case(source)
    export_anonymous(load_patient(source), tmp_path / "out", "case-7")
    secret = dcmread(next(source.glob("*.dcm")))
    kept = {secret.StudyInstanceUID, secret.SeriesInstanceUID, secret.FrameOfReferenceUID, secret.SOPInstanceUID}
    for path in (tmp_path / "out").glob("*.dcm"):
        content = path.read_bytes()
        assert not [word for word in (b"Sorrow", b"secret-7", b"source") if word in content], path.name
        dataset = dcmread(path)
        assert not {str(entry.value) for entry in dataset.iterall() if entry.VR == "UI"} & {str(uid) for uid in kept}
        assert (dataset.PatientID, dataset.PatientIdentityRemoved) == ("case-7", "YES")
    studies = {dcmread(path).StudyInstanceUID for path in (tmp_path / "out").glob("*.dcm")}
    assert len(studies) == 1
    with pytest.raises(InputError, match="1 to 60 characters"):
        export_anonymous(load_patient(source), tmp_path / "other", " ")


def test_hounsfield_units_that_are_no_whole_numbers_come_back_to_half_a_quantum(tmp_path) -> None:
    plan = odd_plan()
    grid = plan.patient.ct.grid
    patient = replace(plan.patient, ct=CT(grid, plan.patient.ct.hu + np.float32(0.3)))
    export_anonymous(patient, tmp_path)
    quantum = float(np.ptp(patient.ct.hu)) / 65535
    assert np.abs(read_case(tmp_path).patient.ct.hu - patient.ct.hu).max() < quantum / 2 * 1.05


def test_uneven_slices_are_resampled_only_when_allowed(tmp_path, caplog) -> None:
    heights = [0.0, 2.0, 4.0, 8.0, 12.0]
    stored = np.stack([np.full((4, 5), round(1000 + 10 * z), dtype=int) for z in heights])
    slices = ct_slices(stored, first=(0.0, 0.0, 0.0), spacing=(2.0, 2.0), step=1.0)
    for dataset, z in zip(slices, heights, strict=True):
        dataset.ImagePositionPatient = [0.0, 0.0, z]
        save(dataset, tmp_path / f"{z}.dcm")
    regions = [("PTV", "PTV", [square(1.0, 5.0, z) for z in heights[1:4]])]
    save(structure_set(regions), tmp_path / "structures.dcm")
    with pytest.raises(FileError, match=r"resample=True"):
        read_ct(tmp_path.glob("[0-9]*.dcm"))
    case = read_case(tmp_path, resample=True)
    assert case.series.ct.grid.shape == (7, 4, 5)
    assert case.series.ct.grid.spacing[2] == 2.0
    assert np.allclose(case.series.ct.hu[:, 0, 0], 10.0 * np.arange(0, 14, 2))
    assert case.series.instances == ()
    assert "resampled to 7 planes every 2 mm" in caplog.text
    assert case.patient.structures["PTV"].mask().any(axis=(1, 2)).tolist() == [
        False,
        True,
        True,
        True,
        True,
        False,
        False,
    ]


def test_doses_of_beams_are_summed(tmp_path) -> None:
    grid, other = (
        rp.Grid((3, 4, 5), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0)),
        rp.Grid((3, 4, 5), (2.0, 2.0, 2.0), (1.0, 0.0, 0.0)),
    )
    ramp = np.indices(grid.shape)[2].astype(float)
    files = [
        write_dose(tmp_path / f"beam{k}.dcm", dose, where, summation="BEAM", plan="1.2.3")
        for k, (dose, where) in enumerate(((ramp, grid), (2.0 * ramp, grid), (ramp, other)))
    ]
    for path in files:  # one frame of reference, as files of one system have
        dataset = dcmread(path)
        dataset.FrameOfReferenceUID = "1.2.4"
        dataset.save_as(path)
    summed = read_summed_dose(files[:2])
    assert summed.summation == "PLAN"
    assert np.abs(summed.dose - 3.0 * ramp).max() <= 2 * summed.quantum
    assert read_reference(files[:2]).dose is not None
    shifted = read_summed_dose(files[1:]).dose[0, 0]
    assert shifted[1:4] == pytest.approx([2.0 + 0.5, 4.0 + 1.5, 6.0 + 2.5], abs=1e-6)
    with pytest.raises(FileError, match="repeats beam0"):
        read_summed_dose([files[0], files[0]])
    alone = write_dose(tmp_path / "plan.dcm", ramp, grid, plan="1.2.3")
    with pytest.raises(FileError, match="holds the dose of a PLAN"):
        read_summed_dose([files[0], alone])


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".mhd"])
def test_images_of_a_plan_come_back(tmp_path, suffix) -> None:
    pytest.importorskip("SimpleITK", reason="the extra images is not installed")
    plan = odd_plan()
    save_images(plan, tmp_path, suffix)
    dose, grid = read_image(tmp_path / f"dose{suffix}")
    assert np.allclose([*grid.origin, *grid.spacing], [*plan.model.grid.origin, *plan.model.grid.spacing], atol=1e-4)
    assert np.array_equal(dose, plan["physical_dose"].astype(np.float32))
    back = load_patient(tmp_path)
    assert np.array_equal(back.ct.hu, plan.patient.ct.hu)
    assert np.array_equal(back.structures["PTV"].mask(), plan.patient.structures["PTV"].mask())


def test_the_verb_writes_for_other_programs(tmp_path, capsys) -> None:
    box = load_patient("box")
    grid = box.ct.grid.with_spacing(30.0)
    dij = rp.Dij.from_matrices({"physical_dose": np.full((grid.size, 1), 0.5)}, grid)
    rp.save_plan(rp.evaluate(dij, [4.0], box, fractions=30), tmp_path / "plan")
    assert main(["export", str(tmp_path / "plan"), "--matrad", str(tmp_path / "p.mat")]) == 0
    assert np.array_equal(load_patient(tmp_path / "p.mat").ct.hu, box.ct.hu)
    assert main(["export", "box", "--images", str(tmp_path / "i")]) == 2
    assert main(["export", "box"]) == 2
    assert "say what to write" in capsys.readouterr().err


def test_cubes_are_turned_as_matlab_indexes_them() -> None:
    cube = np.arange(24).reshape(2, 3, 4)
    assert matlab_cube(cube)[2, 3, 1] == cube[1, 2, 3]
