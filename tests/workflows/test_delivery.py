"""From goals to files that a linac delivers: arcs, step and shoot, sliding windows, and the dose of the file."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from radplan.beams.place import place_beams
from radplan.cli.plan import specification
from radplan.delivery.sequencing.sequence import check_sequence
from radplan.engines import aperture_model
from radplan.errors import FileError, InputError, RadplanError
from radplan.io.dicom import check_rtplan, read_plan, read_plan_reference
from radplan.io.plan_file.reading import plan_spec
from radplan.machines import library_machine
from radplan.machines.limits import machine_limits
from radplan.patient.phantoms import phantom
from radplan.workflows.delivery import check_deliverable
from radplan.workflows.planning import run

GOALS = [
    {"structure": "OuterTarget", "objective": "squared_deviation", "parameters": {"reference": 50}, "weight": 1000},
    {"structure": "Core", "objective": "squared_overdosing", "parameters": {"reference": 20}, "weight": 300},
    {"structure": "BODY", "objective": "squared_overdosing", "parameters": {"reference": 30}, "weight": 100},
]
ARCS = {"technique": "vmat", "spacing": 30.0, "effort": 0.2, "beam_time": 120.0}
STEPS = {"technique": "step_and_shoot", "method": "engel", "levels": 3}
SWEEPS = {"technique": "sliding_window", "intermediate_doses": 1, "refine": False}


def asked(delivery):
    return plan_spec(
        {
            "case": "tg119",
            "fractions": 30,
            "engine": {"grid": 10},
            "beams": {"gantry": [0, 120, 240]},
            "solver": {"name": "lbfgs", "options": {"max_iterations": 15}},
            "goals": GOALS,
            "delivery": {"grid": 8, **delivery},
        }
    )


@pytest.mark.parametrize("delivery", [ARCS, STEPS, SWEEPS], ids=lambda given: given["technique"])
def test_from_goals_to_files(delivery, tmp_path):
    outcome = run(asked(delivery), progress=False)
    delivered = outcome.delivered
    assert list(delivered.doses) == ["fluence optimum", "optimised apertures", "exported file"]
    assert not delivered.report.violations
    assert outcome.plan is not delivered.doses["fluence optimum"]
    level = outcome.plan.metrics(structures=["OuterTarget"], names=["D95"])["OuterTarget"]["D95"]
    assert level == pytest.approx(50.0, rel=2e-3)
    assert 0.8 < delivered.agreement.factor < 1.1
    assert delivered.agreement.dice_50 > 0.9
    apertures, exact = delivered.agreement.d10["OuterTarget"]
    assert apertures == pytest.approx(exact, rel=0.08)
    names = {path.name for path in outcome.save(tmp_path)}
    assert {"RP.dcm", "RS.dcm", "RD.dcm", "delivery.json", "plan.json", "dvh.csv"} <= names
    assert not check_rtplan(tmp_path / "RP.dcm", "TrueBeam").findings
    told = json.loads((tmp_path / "delivery.json").read_text())
    assert told["violations"] == 0
    assert told["mu"] == pytest.approx(sum(field["mu"] for field in told["fields"]))
    assert set(told["doses"]["exported file"]) >= {"OuterTarget", "Core"}
    assert set(told["exact_against_apertures"]["d10"]) >= {"OuterTarget", "Core"}
    belongs, image = read_plan_reference(tmp_path / "RP.dcm"), pydicom.dcmread(tmp_path / "RD.dcm")
    assert image.ReferencedRTPlanSequence[0].ReferencedSOPInstanceUID == belongs.instance
    assert image.ReferencedStructureSetSequence[0].ReferencedSOPInstanceUID == belongs.structure_set
    assert belongs.structure_set == pydicom.dcmread(tmp_path / "RS.dcm").SOPInstanceUID
    read = read_plan(tmp_path / "RP.dcm")
    model = aperture_model(outcome.patient, read, outcome.machine, grid=outcome.plan.model.grid)
    dose = 30 * np.asarray(model.forward(np.array(model.variables.start))["physical_dose"])[0]
    stored = np.asarray(outcome.plan["physical_dose"]).reshape(-1)[np.asarray(model.voxels)]
    assert np.abs(dose - stored).max() <= 1e-3 * stored.max()


def test_a_plan_file_gives_the_seed_of_the_search_and_sectors_to_avoid(monkeypatch):
    def stopped(*_, options, **__):
        raise InputError(f"seed {options.seed}, {options.avoid}")

    monkeypatch.setattr("radplan.workflows.delivery.search_arcs", stopped)
    with pytest.raises(InputError, match=r"seed 7, \(\(80.0, 100.0\),\)"):
        run(asked({**ARCS, "seed": 7, "avoid": [[80, 100]]}), progress=False)


def test_intermediate_doses_are_of_sequenced_fields():
    with pytest.raises(
        RadplanError, match="intermediate_doses belong to step_and_shoot and sliding_window, not to vmat"
    ):
        asked({**ARCS, "intermediate_doses": 1})


def test_the_command_line_names_the_technique():
    given = {
        ("case",): "tg119",
        ("delivery", "technique"): "vmat",
        ("delivery", "arcs"): 2,
        ("delivery", "limits"): None,
    }
    wanted = specification(None, given).delivery
    assert (wanted.technique, wanted.arcs, wanted.limits) == ("vmat", 2, "TrueBeam")


@pytest.mark.parametrize(
    ("delivery", "message"),
    [
        ({"technique": "fluence", "arcs": 2}, "arcs belong to technique: vmat"),
        ({"technique": "dmlc"}, "technique"),
        ({"technique": "vmat", "arcs": 0}, "arcs"),
        ({"technique": "vmat", "seed": -1}, "seed"),
        ({"technique": "sliding_window", "seed": 1}, "seed belong to technique: vmat"),
    ],
)
def test_what_a_plan_file_may_not_say(delivery, message):
    with pytest.raises((InputError, FileError), match=message):
        asked(delivery)


def test_what_cannot_be_delivered_is_refused_before_work():
    patient, linac, spec = phantom("tg119"), library_machine("generic_photon_6mv"), asked(ARCS)
    check_deliverable(spec, patient, linac, None)
    with pytest.raises(InputError, match="needs a photon machine with monitor units"):
        check_deliverable(spec, patient, library_machine("generic_proton"), None)
    with pytest.raises(InputError, match="needs a photon machine with monitor units"):
        check_deliverable(spec, patient, replace(linac, reference=None), None)
    with pytest.raises(InputError, match="takes goals, but no robust"):
        check_deliverable(spec.model_copy(update={"robust": "composite"}), patient, linac, None)
    short = spec.model_copy(update={"delivery": spec.delivery.model_copy(update={"beam_time": 20.0})})
    with pytest.raises(InputError, match="too few for 1 arcs"):
        check_deliverable(short, patient, linac, None)


def linac(tmp_path, **changes):
    """Return a file of limits of a linac like the TrueBeam but for the changes."""
    path = tmp_path / "linac.yaml"
    path.write_text(json.dumps({"ours": {"based_on": "TrueBeam", **changes}}))
    return str(path)


@pytest.mark.parametrize(
    ("delivery", "changes", "message"),
    [
        ({"technique": "vmat", "beam_time": 20}, {}, "20 s are too few for 1 arcs"),
        ({"technique": "vmat"}, {"mu_per_degree": [5, 20]}, "at least 5 MU/degree take 188 s"),
        ({"technique": "vmat", "start": 170, "stop": 190}, {}, "crosses the gantry's stop"),
        ({"technique": "vmat"}, {"mlc": "Peacock"}, "no multileaf collimator named 'Peacock'"),
        (STEPS, {"mlc": "Peacock"}, "no multileaf collimator named 'Peacock'"),
        ({"technique": "vmat", "arcs": 2, "collimators": [10]}, {}, "2 arcs need 2 collimators"),
    ],
)
def test_what_no_patient_makes_deliverable_is_refused_before_images_are_read(
    delivery, changes, message, tmp_path, monkeypatch
):
    monkeypatch.setattr("radplan.workflows.planning.named_patient", lambda spec: pytest.fail("images were read"))
    with pytest.raises(RadplanError, match=message):
        run(asked({**delivery, "limits": linac(tmp_path, **changes)}), progress=False)


@pytest.mark.parametrize(
    ("delivery", "changes", "width", "message"),
    [
        (STEPS, {}, 7, "rows of bixels of 7 mm straddle the leaves"),
        (SWEEPS, {"dynamic_gap": 300}, 5, "stay 300 mm apart, more than the 85 mm of the field"),
        (SWEEPS, {"bank_span": 20}, 5, "cannot be split into parts of 10 mm"),
        (STEPS, {"neighbour_gap": 10}, 5, "leaves may not pass their neighbours"),
        (STEPS, {"leaf_travel": [30, 30]}, 5, "needs leaves from"),
    ],
)
def test_fields_that_cannot_be_sequenced_are_refused_before_dose(
    delivery, changes, width, message, tmp_path, monkeypatch
):
    monkeypatch.setattr("radplan.workflows.planning.dose_influence", lambda *_, **__: pytest.fail("dose was asked for"))
    spec = asked({**delivery, "limits": linac(tmp_path, **changes)})
    spec = spec.model_copy(update={"beams": spec.beams.model_copy(update={"bixel_width": width})})
    with pytest.raises(InputError, match=message):
        run(spec, progress=False)


def test_neighbours_matter_only_to_optimised_leaf_ends(tmp_path):
    limits = machine_limits(linac(tmp_path, neighbour_gap=10))
    beams = place_beams(
        phantom("tg119"), library_machine("generic_photon_6mv"), gantry=[0], bixel_width=10.0, mlc=limits.mlc
    )
    check_sequence(beams, limits, "engel", refined=False)
    with pytest.raises(InputError, match="set refine to false"):
        check_sequence(beams, limits, "engel", refined=True)
