"""A real patient planned from one file, against the clinical plan of the same patient.

OnkoDICOM's test data (LGPL-2.1): CT, structures and the DVH table of the clinical plan, seven dynamic 6 MV fields,
41.4 Gy in 23 fractions. With both plans at PTV D95 = 40.7 Gy the organs shall not get more than there. Bixel plans know
no leaves, so that some of the advantage is lost on delivery.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from radplan.cli import main as cli
from radplan.io.dicom import read_case, read_dose
from radplan.io.dvh_table import read_dvh_table

EXAMPLE = Path(__file__).resolve().parents[2] / "docs/examples/thorax.yaml"
TABLE = "DVH_c2e419db-ec3d-3951-9579-a615f31783be.csv"


@pytest.fixture(scope="module")
def planned(shared, tmp_path_factory):
    case, out = shared("cases/thorax-imrt"), tmp_path_factory.mktemp("thorax")
    assert cli.main(["plan", str(case), "--plan", str(EXAMPLE), "--out", str(out)]) == 0
    return case, out, json.loads((out / "plan.json").read_text())


@pytest.mark.slow
def test_organs_get_no_more_than_in_the_clinic(planned):
    metrics = planned[2]["metrics"]
    assert metrics["PTV4140"]["D95"] == pytest.approx(40.7, abs=1e-3)
    assert metrics["PTV4140"]["Dmean"] <= 43.5
    assert metrics["LUNGS"]["V20Gy"] <= 29.0
    assert metrics["LUNGS"]["Dmean"] <= 16.0
    assert metrics["HEART"]["Dmean"] <= 24.3
    assert metrics["SPINALCORD"]["Dmax"] <= 40.0
    assert metrics["LIVER"]["Dmean"] <= 16.0
    assert metrics["BODY"]["Dmax"] <= 1.07 * 41.4


@pytest.mark.slow
def test_the_table_of_the_clinical_plan_is_read(planned):
    # From the table's own numbers, to what is known of the clinical plan.
    table = read_dvh_table(planned[0] / TABLE)
    lungs, target = table["common lung"], table["PTV_41.4"]
    assert np.interp(20.0, lungs.levels, lungs.percent) == pytest.approx(29.2, abs=0.1)
    assert np.trapezoid(lungs.percent, lungs.levels) / 100 == pytest.approx(16.0, abs=0.05)
    assert np.interp(-95.0, -target.percent, target.levels) == pytest.approx(40.7, abs=0.05)


@pytest.mark.slow
def test_the_dose_lies_on_the_patients_images(planned):
    case, out, _ = planned
    series = read_case(case).series
    image = read_dose(out / "rtdose.dcm", series.frame_of_reference)
    assert image.grid == series.ct.grid.with_spacing(4.0)
    with np.load(out / "dose.npz") as saved:
        # Splines ring below zero by a few millionths of the maximum, which RTDOSE cannot hold.
        assert saved["dose"].min() > -1e-3
        np.testing.assert_allclose(image.dose, np.maximum(saved["dose"], 0.0), atol=image.quantum)


@pytest.mark.slow
def test_files_and_figures_are_there(planned):
    names = {path.name for path in planned[1].iterdir()}
    assert names >= {"plan.json", "dose.npz", "weights.npz", "images.npz", "dvh.csv", "rtdose.dcm"}
    assert names >= {"dvh.png", "slices.png", "files.json"}
