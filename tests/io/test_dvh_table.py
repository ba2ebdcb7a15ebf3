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
    ],
)
def test_other_files_are_refused(tmp_path, text, match):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(FileError, match=match):
        read_dvh_table(path)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(FileError, match="no such DVH table"):
        read_dvh_table(tmp_path / "none.csv")
