"""DVH tables: our own comes back, OnkoDICOM's is read, anything else is refused."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import FileError
from radplan.io.dvh_table import read_dvh_table
from radplan.io.save import save_plan
from radplan.plan import evaluate
from tests import small_case


def test_our_own_table_comes_back(tmp_path):
    plan = evaluate(small_case.dij(), np.ones(6), small_case.patient(), fractions=25)
    save_plan(plan, tmp_path)
    table = read_dvh_table(tmp_path / "dvh.csv")
    for name, curve in plan.dvh().items():
        np.testing.assert_allclose(table[name].percent, curve.percent, atol=1e-4)
        np.testing.assert_allclose(table[name].levels, curve.levels, atol=1e-4)
        assert (table[name].quantity, table[name].unit) == ("physical_dose", "Gy")


def test_a_row_per_structure(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("Patient ID,ROI,Volume (mL),0cGy,10cGy,20cGy\nx,PTV ,20.0,100,40,\nx,cord,5,100,0.5,0\n")
    table = read_dvh_table(path)
    assert list(table) == ["PTV", "cord"]
    assert table["PTV"].levels.tolist() == [0.0, 0.1, 0.2]
    assert table["PTV"].percent.tolist() == [100.0, 40.0, 0.0]
    assert table["cord"].volume == 5.0


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no DVH"),
        ("a,b\n1,2\n", "is no DVH table"),
        ("ROI,0cGy\nPTV,100\n", "is no DVH table"),
        ("ROI,Volume (mL),10cGy,0cGy\nPTV,20,100,90\n", "is no DVH table"),
        ("ROI,Volume (mL),0cGy\nPTV,large,100\n", "is no DVH table"),
        ("physical_dose [Gy],PTV [%]\n0,100\n1\n", "is no DVH table"),
        ("ROI,Volume (mL),0cGy,10cGy,20cGy\nPTV,250,0,20,80\n", "'PTV' rises with the level: is it a differential DVH"),
        ("ROI,Volume (mL),0cGy,10cGy,20cGy\nPTV,250,0,0,0\n", "'PTV' begins with 0 % at level 0: is it a differ"),
        ("ROI,Volume (mL),0cGy,10cGy\nPTV,250,250,10\n", "'PTV' rises to 250 %, more than all: are volumes in cm3"),
        ("ROI,Volume (mL),0cGy,10cGy\nPTV,60,60,10\n", "'PTV' begins with 60 % at level 0: are volumes parts of 1, or"),
        ("ROI,Volume (mL),0cGy,10cGy\nPTV,60,1,0.5\n", "'PTV' begins with 1 % at level 0: are volumes parts of 1"),
        ("ROI,Volume (mL),0cGy,10cGy\nPTV,60,100,-20\n", "'PTV' falls to -20 %"),
        ("ROI,Volume (mL),0cGy,10cGy\nPTV,60,100,nan\n", "'PTV' holds a level or volume that is NaN"),
        ("ROI,Volume (mL),0cGy,10cGy\nPTV,-5,100,10\n", "'PTV' has a volume of -5 cm3"),
        ("ROI,Volume (mL),0cGy,10cGy\nPTV,5,100,10\nPTV,6,100,20\n", "structure 'PTV' stands twice"),
        ("physical_dose [Gy],PTV [%]\n10,0\n0,100\n", "the levels of 'PTV' do not rise"),
        ("physical_dose [Gy],PTV [%]\n-1,100\n0,90\n", "the levels of 'PTV' do not rise from 0 or more"),
        ("physical_dose [Gy],PTV [%],PTV [%]\n0,100,100\n1,0,0\n", "structure 'PTV' stands twice"),
    ],
)
def test_other_files_are_refused(tmp_path, text, match):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(FileError, match=match):
        read_dvh_table(path)


def test_rounding_is_no_fault(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("physical_dose [Gy],PTV [%]\n0,99.9\n1,100.02\n2,50\n3,50.01\n4,-0.0001\n")
    assert read_dvh_table(path)["PTV"].percent[2] == 50.0


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileError, match="no such DVH table"):
        read_dvh_table(tmp_path / "none.csv")


def test_an_empty_structure_is_left_out(tmp_path):
    file = tmp_path / "table.csv"
    file.write_text("ROI,Volume (mL),0cGy,10cGy\nCouch,0.0,0.0,0.0\nPTV,20.0,100,40\n")
    assert list(read_dvh_table(file)) == ["PTV"]
