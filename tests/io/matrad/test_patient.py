"""matRad patients: what the reader makes of good files and what it says of bad ones."""

from __future__ import annotations

import contextlib
import logging

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from radplan.errors import FileError, InputError, UnknownNameError
from radplan.io import load_machine, load_patient
from radplan.io.matrad.patient import read_patient

NY, NX, NZ = 4, 3, 2


def objective(kind, parameters, penalty=1.0, **more):
    return {
        "className": f"DoseObjectives.matRad_{kind}",
        "parameters": cell(*parameters),
        "penalty": penalty,
        **more,
    }


def cell(*items):
    out = np.empty((1, len(items)), dtype=object)
    for i, item in enumerate(items):
        out[0, i] = item
    return out


def case(**changes):
    hu = np.zeros((NY, NX, NZ))
    hu[1, 2, 1] = 77.0
    ct = {
        "cubeHU": cell(hu),
        "resolution": {"x": 3.0, "y": 2.0, "z": 5.0},
        "cubeDim": np.asarray([NY, NX, NZ]),
        "numOfCtScen": 1,
    }
    properties = {"Priority": 1, "alphaX": 0.2, "betaX": 0.04, "visibleColor": np.asarray([1.0, 0.5, 0.0])}
    everything = np.arange(1, NY * NX * NZ + 1)
    rows = [
        [
            "PTV",
            "TARGET",
            np.asarray([2, 1 + 1 + NY * 2 + NY * NX * 1]),
            properties,
            cell(objective("SquaredDeviation", [60])),
        ],
        ["BODY", "OAR", everything, {**properties, "Priority": 3}, np.zeros((0, 0))],
    ]
    data = {"ct": ct, "rows": rows}
    for key, value in changes.items():
        data[key] = value(data[key])
    cst = np.empty((len(data["rows"]), 6), dtype=object)
    for i, (name, kind, voxels, props, goals) in enumerate(data["rows"]):
        cst[i] = [i, name, kind, cell(voxels.reshape(-1, 1).astype(float)), props, goals]
    return {"ct": data["ct"], "cst": cst}


def write(folder, **changes):
    path = folder / "case.mat"
    savemat(path, case(**changes), do_compression=True)
    return path


def with_goals(*goals):
    def change(rows):
        rows[0][4] = cell(*goals)
        return rows

    return change


def test_cubes_and_voxel_lists_come_to_z_y_x(tmp_path):
    patient = read_patient(write(tmp_path))
    assert patient.ct.grid.shape == (NZ, NY, NX)
    assert patient.ct.hu[1, 1, 2] == 77.0
    assert patient.ct.grid.origin == (-0.5 * NX * 3.0, -0.5 * NY * 2.0, -0.5 * NZ * 5.0)
    target = patient.structures["PTV"]
    assert [np.unravel_index(v, (NZ, NY, NX)) for v in target.voxels] == [(0, 1, 0), (1, 1, 2)]
    assert (target.priority, target.alpha_x, target.beta_x, target.color) == (1, 0.2, 0.04, (1.0, 0.5, 0.0))
    assert (patient.fractions, patient.prescription, patient.hu_table.name) == (30, 60.0, "matrad")


def test_axes_come_from_the_ct_or_from_dicom(tmp_path):
    def axes(ct):
        return {**ct, "x": 7 + 3.0 * np.arange(NX), "y": 2.0 * np.arange(NY), "z": 5.0 * np.arange(NZ)}

    def dicom(ct):
        return {**ct, "dicomInfo": {"ImagePositionPatient": np.asarray([1.0, 2.0, 3.0])}}

    assert read_patient(write(tmp_path, ct=axes)).ct.grid.origin == (7.0, 0.0, 0.0)
    assert read_patient(write(tmp_path, ct=dicom)).ct.grid.origin == (1.0, 2.0, 3.0)


def test_the_structure_that_holds_all_others_is_the_external(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        patient = read_patient(write(tmp_path))
    assert patient.external.name == "BODY"
    assert patient.external.priority == 3
    assert "BODY holds all other structures" in caplog.text


def test_every_objective_becomes_a_goal(tmp_path):
    written = [
        objective("SquaredDeviation", [60], 800),
        objective("SquaredOverdosing", [30]),
        objective("SquaredUnderdosing", [55]),
        objective("MeanDose", [5, 2]),
        objective("MeanDose", []),
        objective("EUD", [20, 8]),
        objective("MaxDVH", [40, 10]),
        objective("MinDVH", [57, 95]),
    ]
    goals = read_patient(write(tmp_path, rows=with_goals(*written))).goals
    goals = [goal.to_spec() for goal in goals]
    assert [(goal["objective"], goal["parameters"]) for goal in goals] == [
        ("squared_deviation", {"reference": 60.0}),
        ("squared_overdosing", {"reference": 30.0}),
        ("squared_underdosing", {"reference": 55.0}),
        ("mean", {"reference": 5.0, "form": "quadratic"}),
        ("mean", {"reference": 0.0, "form": "linear"}),
        ("eud", {"reference": 20.0, "exponent": 8.0, "form": "deviation"}),
        ("max_dvh", {"reference": 40.0, "volume": 0.1}),
        ("min_dvh", {"reference": 57.0, "volume": 0.95}),
    ]
    assert goals[0]["weight"] == 800.0
    assert all(goal["structure"] == "PTV" and goal["quantity"] == "physical_dose" for goal in goals)


def test_every_goal_builds_the_objective_of_its_name(tmp_path):
    from radplan.optim.objectives import OBJECTIVES

    written = [
        objective("MeanDose", [5, 2]),
        objective("EUD", [20, 8]),
        objective("MaxDVH", [40, 10]),
        objective("MinDVH", [57, 95]),
    ]
    goals = read_patient(write(tmp_path, rows=with_goals(*written))).goals
    kinds = ("mean", "eud", "max_dvh", "min_dvh")
    assert [type(goal.objective) for goal in goals] == [OBJECTIVES.get(kind) for kind in kinds]


def test_objectives_of_matrad_2(tmp_path):
    kinds = ["square deviation", "square overdosing", "mean", "EUD", "max DVH objective"]
    fields = [
        ("type", object),
        ("penalty", object),
        ("dose", object),
        ("EUD", object),
        ("volume", object),
        ("robustness", object),
    ]
    old = np.empty((len(kinds), 1), dtype=fields)
    for i, kind in enumerate(kinds):
        old[i, 0] = (kind, 10.0 + i, np.nan if kind in ("mean", "EUD") else 50.0, 7.0, 20.0, "none")

    def change(rows):
        rows[0][4] = old
        return rows

    goals = [goal.to_spec() for goal in read_patient(write(tmp_path, rows=change)).goals]
    assert [(goal["objective"], goal["weight"], goal["parameters"]) for goal in goals] == [
        ("squared_deviation", 10.0, {"reference": 50.0}),
        ("squared_overdosing", 11.0, {"reference": 50.0}),
        ("mean", 12.0, {"reference": 0.0, "form": "linear"}),
        ("eud", 13.0, {"reference": 0.0, "exponent": 7.0, "form": "deviation"}),
        ("max_dvh", 14.0, {"reference": 50.0, "volume": 0.2}),
    ]


def test_what_is_left_out_is_announced(tmp_path, caplog):
    constraint = {"className": "DoseConstraints.matRad_MinMaxDose", "parameters": cell(0.0, 65.0), "penalty": 1.0}
    robust = objective("SquaredDeviation", [60], robustness="COWC")
    with caplog.at_level(logging.WARNING):
        goals = read_patient(write(tmp_path, rows=with_goals(constraint, robust))).goals
    assert [goal.objective.name for goal in goals] == ["squared_deviation"]
    assert "the constraint DoseConstraints.matRad_MinMaxDose on PTV is left out" in caplog.text
    assert "robustness COWC" in caplog.text


def test_fractions_come_from_the_plan_in_the_file(tmp_path):
    path = tmp_path / "case.mat"
    savemat(path, {**case(), "pln": {"numOfFractions": 25}})
    assert read_patient(path).fractions == 25


def drop(key):
    return lambda ct: {k: v for k, v in ct.items() if k != key}


def replaced(index, column, value):
    def change(rows):
        rows[index][column] = value
        return rows

    return change


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ct": drop("cubeHU")}, "ct has no cubeHU"),
        ({"ct": drop("resolution")}, r"ct has no field resolution \(it has: cubeHU, cubeDim"),
        ({"ct": lambda ct: {**ct, "resolution": {"x": 3.0, "y": 2.0}}}, "ct.resolution has no field z"),
        (
            {"ct": lambda ct: {**ct, "resolution": {"x": 3.0, "y": 2.0, "z": "five"}}},
            "ct.resolution.z must be a number",
        ),
        ({"ct": lambda ct: {**ct, "cubeDim": np.asarray([9, 9, 9])}}, r"ct.cubeDim says \(9, 9, 9\)"),
        ({"ct": lambda ct: {**ct, "cubeHU": cell(np.full((NY, NX, NZ), np.nan))}}, "24 values that are NaN"),
        (
            {
                "ct": lambda ct: {
                    **ct,
                    "x": np.asarray([0.0, 3.0, 7.0]),
                    "y": np.arange(NY) * 2.0,
                    "z": np.arange(NZ) * 5.0,
                }
            },
            "ct.x is not evenly spaced at ct.resolution.x = 3 mm: steps of 3 to 4 mm",
        ),
        (
            {"rows": with_goals(objective("SquaredDeviation", ["much"]))},
            "reference in .*SquaredDeviation of PTV must be a number",
        ),
        (
            {"rows": with_goals(objective("SquaredDeviation", [60], -5.0))},
            "weight of the goal on 'PTV' must be a number >= 0 and finite, got -5.0",
        ),
        ({"rows": with_goals(objective("MeanDose", [60, 3]))}, r"must be 1 \(linear\) or 2 \(quadratic\), got 3"),
    ],
)
def test_a_contradiction_is_one_error_that_names_file_and_place(tmp_path, changes, message):
    with pytest.raises(FileError, match=message) as caught:
        read_patient(write(tmp_path, **changes))
    assert str(caught.value).startswith(str(tmp_path / "case.mat"))


def test_files_that_are_no_matrad_patients(tmp_path):
    def refuses(content, message):
        path = tmp_path / "bad.mat"
        path.write_bytes(content)
        with pytest.raises(FileError, match=message):
            read_patient(path)

    refuses(b"", "is not a MATLAB v5 to v7 .mat file")
    refuses(b"PK" * 400, "is not a MATLAB v5 to v7 .mat file")
    refuses(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(600), "cut short or damaged")
    refuses(b"\x89HDF\r\n\x1a\n".ljust(600), "cut short or damaged")
    with pytest.raises(FileError, match="no such file"):
        read_patient(tmp_path / "none.mat")
    savemat(tmp_path / "other.mat", {"x": 1})
    with pytest.raises(FileError, match="holds no variable ct or cst; expected ct and cst"):
        read_patient(tmp_path / "other.mat")
    savemat(tmp_path / "other.mat", {"ct": 1, "cst": 2})
    with pytest.raises(FileError, match="ct must be a struct, got int"):
        read_patient(tmp_path / "other.mat")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_truncated_file_is_one_error(tmp_path, share):
    path = write(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(FileError, match=r"case\.mat: (is cut short or damaged|is no matRad patient|is not a MATLAB)"):
        read_patient(path)


@pytest.mark.parametrize(
    ("rows", "cause"),
    [
        (replaced(0, 2, np.asarray([0, 3])), "the voxels of PTV run from 0 to 3; the CT has 24"),
        (replaced(0, 2, np.asarray([1, 25])), "the voxels of PTV run from 1 to 25"),
        (replaced(0, 2, np.asarray([1.5, 3])), "voxels of PTV must be whole numbers"),
        (replaced(0, 1, "TARGT"), r"cst row 1 \(PTV\) has the type 'TARGT'; expected one of TARGET"),
        (replaced(0, 3, 5.0), r"cst row 1 \(PTV\), column 5 must be a struct"),
    ],
)
def test_one_odd_row_is_left_out_and_named(tmp_path, caplog, rows, cause):
    patient = read_patient(write(tmp_path, rows=rows))
    assert "BODY" in patient.structures
    assert "PTV" not in patient.structures
    assert "PTV" not in [goal.structure for goal in patient.goals]
    with pytest.raises(UnknownNameError, match=f"no structure named 'PTV': the file lists it, but .*{cause}"):
        patient.structures["PTV"]
    assert "cst row 1 is left out" in caplog.text


def test_names_that_repeat_are_told_apart_by_row(tmp_path, caplog):
    patient = read_patient(write(tmp_path, rows=replaced(0, 0, "BODY")))
    assert {"BODY (row 1)"} < set(patient.structures)
    assert "BODY" not in patient.structures
    assert "cst row 1 shares its name with others and is called BODY (row 1)" in caplog.text


def test_an_unknown_objective_is_left_out_and_told(tmp_path, caplog):
    patient = read_patient(write(tmp_path, rows=with_goals(objective("SquaredDevation", [60]))))
    assert "PTV" in patient.structures
    assert "an objective on PTV is of the unknown kind" in caplog.text


def test_damaged_bytes_never_end_in_another_error(tmp_path, rng):
    path = write(tmp_path)
    content = bytearray(path.read_bytes())
    for _ in range(60):
        damaged = bytearray(content)
        for place in rng.integers(128, len(content), 3):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        with contextlib.suppress(FileError):  # a change may hit nothing that matters
            read_patient(path)


def test_load_patient_takes_names_and_files(tmp_path):
    assert load_patient("box").name == "box"
    assert load_patient(write(tmp_path)).name == "case"
    with pytest.raises(
        UnknownNameError, match="no patient file or built-in phantom named 'tg118'; did you mean 'tg119'"
    ):
        load_patient("tg118")
    with pytest.raises(FileError, match=r"no such file; expected a DICOM folder, a matRad .mat file, an OpenKBP"):
        load_patient(tmp_path / "none.mat")
    (tmp_path / "case.txt").write_text("a patient")
    with pytest.raises(InputError, match="cannot read a patient from"):
        load_patient(tmp_path / "case.txt")


def test_load_machine_takes_names_and_files(tmp_path):
    assert load_machine("generic_photon_6mv").radiation == "photons"
    with pytest.raises(UnknownNameError, match="did you mean 'generic_photon_6mv'"):
        load_machine("generic_photon_6MV")
    with pytest.raises(FileError, match="no such file"):
        load_machine(tmp_path / "none.mat")
    (tmp_path / "machine.txt").write_text("6 MV")
    with pytest.raises(InputError, match="cannot read a machine from"):
        load_machine(tmp_path / "machine.txt")


@pytest.fixture(scope="module")
def scanned(shared):
    return read_patient(shared("cases/tg119/TG119.mat"))


def test_tg119_as_matrad_has_it(scanned):
    # Voxel counts, isocentre and goals: matRad 3.2.2 with its own phantom.
    assert {name: s.voxels.size for name, s in scanned.structures.items()} == {
        "Core": 1320,
        "OuterTarget": 7458,
        "BODY": 601736,
    }
    assert scanned.ct.grid == type(scanned.ct.grid)((129, 167, 167), (3.0, 3.0, 2.5), (-250.0, -250.0, -160.0))
    centre = scanned.ct.grid.points(scanned.structures["OuterTarget"].voxels).mean(axis=0)
    assert centre == pytest.approx([-1.6911, -16.5853, 0.1421], abs=1e-4)
    assert [(g.structure, g.objective.reference, g.weight) for g in scanned.goals] == [
        ("Core", 25.0, 300.0),
        ("OuterTarget", 50.0, 1000.0),
        ("BODY", 30.0, 100.0),
    ]
    assert (scanned.external.name, scanned.fractions, scanned.prescription) == ("BODY", 30, 50.0)


@pytest.mark.parametrize(("phantom", "oracle"), [("TG119", "photons_TG119_5beam"), ("BOXPHANTOM", "photons_BOX_1beam")])
def test_nearest_masks_after_overlap_are_matrads(shared, phantom, oracle):
    # Index lists written by matRad 3.2.2 after overlap and resampling to its 5 mm dose grid.
    path = shared(f"oracle/{oracle}.mat")
    patient = read_patient(shared(f"cases/tg119/{phantom}.mat"))
    out = loadmat(path, squeeze_me=True, struct_as_record=False, variable_names=["out"])["out"]
    grid = patient.ct.grid.with_spacing(5.0)
    ny, nx, nz = (int(n) for n in out.doseGrid.dims)
    assert grid.shape == (nz, ny, nx)
    for voi in out.voi:
        y, x, z = np.unravel_index(voi.ix_dosegrid_1based.astype(np.int64) - 1, (ny, nx, nz), order="F")
        theirs = np.sort((z * ny + y) * nx + x)
        ours, weights = patient.structure_weights(
            voi.name, grid, overlap_with=list(patient.structures), method="nearest"
        )
        assert np.array_equal(ours, theirs)
        assert weights == pytest.approx(1 / theirs.size)
