"""What a console and a notebook show of the nouns: one line, or a table."""

from __future__ import annotations

import numpy as np
import pytest

import radplan as rp
from radplan.plan import evaluate
from radplan.tables import MetricsTable
from tests import small_case


def test_nouns_are_one_line() -> None:
    patient, machine = rp.load_patient("box"), rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=[0, 90], bixel_width=20.0)
    plan = evaluate(small_case.dij(), np.ones(6), small_case.patient(), fractions=25, beams=small_case.beams())
    shown = [
        repr(noun) for noun in (patient, patient.ct, machine, rp.load_machine("generic_proton"), beams, plan.model)
    ]
    assert all("\n" not in text and len(text) < 120 for text in [*shown, repr(plan)])
    assert shown[0] == "Patient('box', CT 61 x 61 x 61, 2 structures, 60 Gy in 30 fractions)"
    assert shown[1] == "CT(61 x 61 x 61 voxels of 3 x 3 x 3 mm)"
    assert shown[4] == f"Beams(2 of photons at gantry 0, 90, {beams.count} bixels, generic_photon_6mv)"
    assert "6 weights" in shown[5]


def test_notebooks_show_tables_and_names_are_escaped() -> None:
    patient = small_case.patient()
    plan = evaluate(small_case.dij(), np.ones(6), patient, fractions=25, beams=small_case.beams())
    for noun in (patient, small_case.beams(), plan, plan.metrics()):
        assert noun._repr_html_().startswith("<table")
    assert "<b>" not in MetricsTable({"<b>": {"D95": 1.0}})._repr_html_()


def test_metrics_are_a_dict_and_a_frame() -> None:
    pandas = pytest.importorskip("pandas")
    plan = evaluate(small_case.dij(), np.ones(6), small_case.patient(), fractions=25)
    metrics = plan.metrics()
    frame = metrics.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame.loc["PTV", "D95"] == metrics["PTV"]["D95"]
    assert list(frame.index) == list(metrics)


def test_without_pandas_the_table_is_drawn_anyway(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("radplan.tables.find_spec", lambda name: None)
    shown = MetricsTable({"PTV": {"D95": 50.0}, "Cord": {"D2": 7.0}}, "dose")._repr_html_()
    assert "<tr><td>PTV</td><td>50.00</td><td></td></tr>" in shown
