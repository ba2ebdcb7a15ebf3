"""Plans in a water cylinder: point doses by factors beside the engine, fluence, and the command line."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from radplan.cli.main import main
from radplan.errors import InputError
from radplan.machines import library_machine
from radplan.recalc import recalculate
from radplan.recalc.point_dose import equivalent_side, point_doses, square_dose


@pytest.fixture(scope="module")
def open_fields(shared):
    path = shared("cases/vmat-plans/06MV_plan.dcm")
    return recalculate(path, "cylinder", grid=30.0, fractions=1)


def test_open_fields_agree_with_the_factors(open_fields):
    """Ten square fields of 2 to 40 cm, 15 cm deep in water: factors in closed form against the aperture engine."""
    doses = point_doses(open_fields)
    assert [round(dose.side, -1) for dose in doses] == [20, 30, 40, 50, 70, 100, 150, 200, 300, 400]
    for dose in doses:
        assert abs(dose.difference) <= 0.005
        product = (
            dose.mu * dose.calibration * dose.open_share * dose.head_scatter * dose.phantom_scatter * dose.tmr
            * dose.off_axis * dose.inverse_square
        )  # fmt: skip
        assert product == pytest.approx(dose.by_hand, rel=1e-9)
        assert dose.depth == pytest.approx(150.0, abs=2.0)
        assert not dose.shadowed
    assert [dose.head_scatter for dose in doses] == sorted(dose.head_scatter for dose in doses)


def test_a_point_off_the_axis(open_fields):
    """30 mm beside the isocentre of the 20x20 the profile has risen; beside the 2x2 there is no field."""
    doses = point_doses(open_fields, (30.0, 0.0, 0.0))
    by_name = {dose.name: dose for dose in doses}
    assert by_name["20x20"].off_axis > 1.005
    assert abs(by_name["20x20"].difference) <= 0.01
    assert by_name["02x02"].shadowed
    assert by_name["02x02"].difference is None
    with pytest.raises(InputError, match="point must be a world position"):
        point_doses(open_fields, (0.0, np.nan, 0.0))


def test_the_beam_quality_comes_back():
    """The machine was made for TPR20,10 = 0.685, which fits the measured 6 MV tank best."""
    dose = square_dose(library_machine("generic_photon_6mv"), [100.0, 200.0], 100.0)
    assert float(dose[1] / dose[0]) == pytest.approx(0.685, abs=0.005)


def test_equivalent_squares(open_fields):
    from radplan.delivery.fluence import FieldFluence

    x, y = np.arange(-99.5, 100.0), np.arange(-59.5, 60.0)
    opened = np.where((np.abs(x) < 80.0)[None, :] & (np.abs(y) < 20.0)[:, None], 7.0, 0.0)
    assert equivalent_side(FieldFluence(opened, x, y), 7.0) == pytest.approx(2 * 160.0 * 40.0 / 200.0, rel=1e-3)


def test_the_command_line_writes_what_a_check_needs(shared, tmp_path, capsys):
    plan = shared("cases/vmat-plans/24mm_x_20mm_rectangle.dcm")
    out = tmp_path / "qa"
    assert main(["recalc", str(plan), "--phantom", "--grid", "20", "--fractions", "1", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "all fields: by hand" in told
    with (out / "point_dose.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[0]["open_share"]) == pytest.approx(1.0, abs=1e-6)
    assert abs(float(rows[0]["difference"])) <= 0.01
    maps = np.load(out / "fluence.npz")
    assert maps["fluence_1"].max() == pytest.approx(301.94, rel=1e-3)
    assert (out / "fluence.png").stat().st_size > 5000
    assert main(["recalc", str(plan), "--out", str(tmp_path / "none")]) == 2
    assert "--phantom" in capsys.readouterr().err
    assert main(["recalc", str(plan), "--patient", "box", "--point", "0,0,0"]) == 2
    assert main(["recalc", str(plan), "--phantom", "--range-shifter", "RS=40"]) == 2
    assert "--range-shifter: not an option for a plan of photons" in capsys.readouterr().err
