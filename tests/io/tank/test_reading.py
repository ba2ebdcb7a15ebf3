"""Files of a tank session: PTW's .mcc, tables of points, tables of output factors, and damaged ones."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import FileError, InputError
from radplan.io.tank import read_tank

HEAD = "curve,energy_MV,ssd_mm,field_x_mm,field_y_mm,depth_mm,position_mm,dose,leaf_axis\n"


def block(**changed):
    """One scan of an .mcc file."""
    entries = {
        "MODALITY": "X", "ENERGY": "6.00", "SSD": "900.00", "FIELD_INPLANE": "100.00", "FIELD_CROSSPLANE": "80.00",
        "CROSSPLANE_AXIS": "MLC", "SCAN_CURVETYPE": "CROSSPLANE_PROFILE", "SCAN_DEPTH": "50.00", **changed,
    }  # fmt: skip
    lines = [f"\t\t{name}={value}" for name, value in entries.items()]
    rows = [f"\t\t\t{x:.1f}\t\t{1e-3 * (10 - abs(x)):.4E}" for x in (4.0, 2.0, 0.0, -2.0, -4.0)]
    return "\n".join(["\tBEGIN_SCAN  1", *lines, "\t\tBEGIN_DATA", *rows, "\t\tEND_DATA", "\tEND_SCAN  1"])


def mcc(path, *blocks):
    path.write_text("BEGIN_SCAN_DATA\n" + "\n".join(blocks) + "\nEND_SCAN_DATA\n", encoding="latin-1")
    return path


def test_a_scan_is_read_as_it_was_measured(tmp_path):
    (scan,) = read_tank(mcc(tmp_path / "a.mcc", block())).scans
    assert (scan.curve, scan.energy, scan.ssd, scan.depth, scan.leaf_axis) == ("crossplane", 6.0, 900.0, 50.0, "x")
    assert scan.field == (80.0, 100.0)  # x is crossplane, y is inplane
    assert scan.position.tolist() == [-4.0, -2.0, 0.0, 2.0, 4.0]
    np.testing.assert_allclose(scan.dose, [0.006, 0.008, 0.01, 0.008, 0.006])


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"MODALITY": "EL"}, "no photon beam"),
        ({"SCAN_CURVETYPE": "DIAGONAL_PROFILE"}, "DIAGONAL_PROFILE is no depth dose"),
        ({"WEDGE_ANGLE": "60.00"}, "wedge"),
        ({"COLL_OFFSET_INPLANE": "20.00"}, "beside the axis"),
        ({"SCAN_OFFAXIS_CROSSPLANE": "30.00"}, "not through the axis"),
        ({"MEAS_MEDIUM": "AIR"}, "measured in AIR"),
    ],
)
def test_what_does_not_serve_is_left_out_and_said(tmp_path, changed, why):
    data = read_tank(mcc(tmp_path / "a.mcc", block(), block(**changed)))
    assert len(data.scans) == 1
    assert len(data.notes) == 1
    assert why in data.notes[0]


def test_several_energies_must_be_told_apart(tmp_path):
    path = mcc(tmp_path / "a.mcc", block(), block(ENERGY="10.00"))
    with pytest.raises(InputError, match=r"several energies \(6, 10 MV\)"):
        read_tank(path)
    assert read_tank(path, energy=10.0).energy == 10.0
    with pytest.raises(InputError, match="no curve is of 15 MV; the files hold curves of 6, 10 MV"):
        read_tank(path, energy=15.0)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.mcc", "nothing", "is no PTW .mcc file"),
        ("a.mcc", "BEGIN_SCAN_DATA\n" + block(ENERGY="six"), "scan 1: cannot be read as a curve"),
        ("a.mcc", "BEGIN_SCAN_DATA\n" + block().replace("SSD=900.00", ""), "scan 1: lacks SSD"),
        ("a.csv", "a,b\n1,2\n", "is no table of tank data"),
        ("a.csv", "", "is no table of tank data"),
        ("a.csv", HEAD + "inplane,6,900,100,100,50,x,1,\n", "row 2: cannot be read"),
        ("a.csv", HEAD + "spiral,6,900,100,100,50,0,1,\n", "curve must be one of"),
        (
            "a.csv",
            HEAD + "depth dose,6,900,100,100,50,10,1,\n",
            "row 2: cannot be read: a depth dose states a depth of",
        ),
        ("a.csv", ",05x05\nsix,0.9\n", "expected an energy"),
        ("a.csv", ",05x05\n6 MV,-1\n", "6 MV, 05x05: cannot be read"),
        ("a.txt", "", "is no tank data"),
    ],
)
def test_a_damaged_file_is_named_with_its_fault(tmp_path, name, text, why):
    (tmp_path / name).write_text(text)
    with pytest.raises(FileError) as error:
        read_tank(tmp_path / name)
    assert str(tmp_path / name) in str(error.value)
    assert why in str(error.value)


def test_tables_of_points_and_of_factors(tmp_path):
    points = "".join(f"inplane,6,900,100,100,50,{x},{10 - abs(x)},y\n" for x in range(-3, 4))
    (tmp_path / "curves.csv").write_text(HEAD + points + "output factor,6,950,20,20,50,,0.835,\n")
    (tmp_path / "factors.csv").write_text(",05x05,10x10\n6 MV,0.906,1\n10 MV,0.93,1\n")
    data = read_tank(tmp_path, energy=6.0)
    assert data.scans[0].leaf_axis == "y"
    assert data.scans[0].dose.tolist() == [7.0, 8.0, 9.0, 10.0, 9.0, 8.0, 7.0]
    listed = [(f.field, f.ssd, f.depth, f.value) for f in data.output_factors]
    assert listed == [
        ((20.0, 20.0), 950.0, 50.0, 0.835),
        ((50.0, 50.0), 900.0, 100.0, 0.906),
        ((100.0, 100.0), 900.0, 100.0, 1.0),
    ]


@pytest.mark.parametrize("row", ["{0},0", "{0},", ",{0}", "{0},{0}"])
def test_depths_of_a_depth_dose_stand_in_either_column(tmp_path, row):
    text = "".join(f"depth dose,6,900,100,100,{row.format(depth)},{100 - depth},\n" for depth in range(0, 60, 10))
    (tmp_path / "curves.csv").write_text(HEAD + text)
    (scan,) = read_tank(tmp_path).scans
    assert (scan.depth, scan.position.tolist()) == (None, [0.0, 10.0, 20.0, 30.0, 40.0, 50.0])


def test_the_measured_tank(shared):
    data = read_tank(shared("cases/water-tank-6mv"))
    data.check()
    assert [scan.curve for scan in data.scans].count("crossplane") == 4
    assert (data.energy, data.leaf_axis, len(data.scans), len(data.output_factors)) == (6.0, "x", 9, 2)
    assert "AbsoluteDose.csv" in data.notes[0]  # a folder's odd file costs no other
