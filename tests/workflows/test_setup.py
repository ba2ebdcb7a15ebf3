"""What a plan file asks for is made of the patient, or refused with the nearest name."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from radplan.errors import FileError, InputError, UnknownNameError
from radplan.io.load import load_machine, load_patient
from radplan.io.plan_file.reading import plan_spec
from radplan.io.save import save_plan
from radplan.patient.ct import CT
from radplan.patient.patient import Patient
from radplan.patient.phantoms import phantom
from radplan.patient.structures import Structures
from radplan.plan import evaluate
from radplan.workflows.setup import (
    background_dose,
    filled,
    matching,
    named_patient,
    prepare_patient,
    task,
    wanted_goals,
)
from tests import small_case

MEAN = {"objective": "mean"}


def prepared(**data):
    return prepare_patient(plan_spec(data), small_case.patient())


def test_helpers_are_made_in_order_and_stay_out_of_tables():
    patient = prepared(
        structures={"Near": "PTV + 5 mm", "Shell": "Near - PTV", "Cord5": {"shape": "Cord", "role": "oar"}}
    )
    voxel = small_case.GRID.voxel_volume
    assert patient.structures["Near"].volume - patient.structures["PTV"].volume == pytest.approx(
        patient.structures["Shell"].volume, abs=1e-3 * voxel
    )
    assert (patient.structures["Shell"].role, patient.structures["Shell"].effective_priority) == ("ignored", 2)
    assert (patient.structures["Cord5"].role, patient.structures["Cord5"].effective_priority) == ("oar", 2)


def test_helpers_may_be_targets_of_beams():
    wish = {
        "structures": {"Boost": "PTV - 2 mm"},
        "beams": {"targets": ["Boost"]},
        "goals": [{**MEAN, "structure": "PTV"}],
    }
    task(plan_spec(wish), prepare_patient(plan_spec(wish), small_case.patient()))
    with pytest.raises(UnknownNameError, match="did you mean 'Boost'"):
        task(plan_spec({**wish, "beams": {"targets": ["Bost"]}}), prepared(structures={"Boost": "PTV - 2 mm"}))


def test_a_pattern_stands_for_each_structure_it_fits():
    wish = plan_spec(
        {
            "structures": {"Lung_R": "Cord + 1 mm", "Lung_L": "Cord + 2 mm"},
            "goals": [{"structure": "Lung_*", "objective": "mean", "weight": 3.0}],
            "constraints": [{"structure": "Lung_[LR]", "objective": "mean", "upper": 20.0}],
        }
    )
    made = task(wish, prepare_patient(wish, small_case.patient()))
    assert [(goal.structure, goal.weight) for goal in made.goals] == [("Lung_R", 3.0), ("Lung_L", 3.0)]
    assert [entry.structure for entry in made.constraints] == ["Lung_R", "Lung_L"]


def test_a_name_that_looks_like_a_pattern_is_the_name():
    assert matching("PTV[1]", ["PTV1", "PTV[1]"]) == ["PTV[1]"]


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"structures": {"Ring": "PVT + 5 mm"}}, "did you mean 'PTV'"),
        ({"structures": {"PTV": "Cord"}}, "already has a structure 'PTV'"),
        ({"structures": {"Ring": "PTV +"}}, "structure expression"),
        ({"densities": [{"structure": "Crd", "density": 1.0}]}, "did you mean 'Cord'"),
        ({"external": {"threshold": -400}}, "already has a structure 'BODY'"),
        ({"external": {"threshold": -400, "name": "Skin"}}, "one external contour"),
        ({"external": {"threshold": 5000}}, "no voxel of the CT lies above"),
        ({"goals": [{**MEAN, "structure": "PTW"}]}, "did you mean 'PTV'"),
        ({"goals": [{**MEAN, "structure": "Lung_*"}]}, r"no structure named 'Lung_\*'"),
        ({"normalize": {"structure": "PTw", "D95": 50}}, "did you mean 'PTV'"),
        ({"metrics": ["V20Grey"]}, "no metric is written 'V20Grey'"),
        ({"hu_table": "schnieder"}, "schneider"),
    ],
)
def test_what_does_not_fit_is_refused(wish, match):
    spec = plan_spec({"goals": [{**MEAN, "structure": "PTV"}], **wish})
    with pytest.raises((InputError, UnknownNameError), match=match):
        task(spec, prepare_patient(spec, small_case.patient()))


def test_an_external_contour_is_found_where_none_was_drawn(caplog):
    drawn = small_case.patient()
    bare = Patient("bare", drawn.ct, Structures([drawn.structures["PTV"]]))
    with caplog.at_level(logging.WARNING):
        patient = prepare_patient(plan_spec({"external": {}}), bare)
    assert patient.external.name == "BODY"
    np.testing.assert_array_equal(patient.external.mask(), drawn.external.mask())
    assert not caplog.records


def test_densities_replace_those_of_the_ct():
    patient = prepared(densities=[{"structure": "Cord", "density": 1.4}, {"structure": "PTV - Cord", "hu": -1000}])
    density = patient.density()
    assert np.unique(density[patient.structures["Cord"].mask()]) == pytest.approx([1.4])
    assert density[patient.structures["PTV"].mask()].max() < 0.01


def test_metal_beyond_the_hu_table_is_clipped_or_given_a_density(tmp_path):
    drawn = small_case.patient()
    hu = drawn.ct.hu.copy()
    hu[drawn.structures["Cord"].mask()] = 20000.0
    metal = Patient("metal", CT(small_case.GRID, hu), drawn.structures)
    assert prepare_patient(plan_spec({}), metal).density().max() == pytest.approx(2.5378)
    (tmp_path / "own.hlut").write_text("-1000 0.0\n0 1.0\n3071 2.6\n")
    own = prepare_patient(plan_spec({"hu_table": str(tmp_path / "own.hlut")}), metal)
    assert own.density().max() == pytest.approx(2.6)
    filled = prepare_patient(plan_spec({"densities": [{"structure": "Cord", "density": 4.0}]}), metal)
    assert filled.density().max() == pytest.approx(4.0)


def test_goals_travel_with_the_patient_unless_the_file_has_some():
    assert wanted_goals(plan_spec({}), load_patient("box")) == [goal.to_spec() for goal in load_patient("box").goals]
    written = wanted_goals(plan_spec({"goals": [{**MEAN, "structure": "BODY"}]}), phantom("box"))
    assert written == [{**MEAN, "structure": "BODY"}]


def test_goals_for_photons_are_told_when_ions_follow_them(caplog):
    box = load_patient("box")
    for machine, case, told in (
        ("generic_photon_6mv", "other", False),
        ("generic_proton", "other", True),
        ("generic_proton", "box", False),
    ):
        caplog.clear()
        filled(plan_spec({"case": case}), box, load_machine(machine), wanted_goals(plan_spec({}), box))
        assert ("made for photons" in caplog.text) is told


def test_phantoms_have_goals_of_their_own_for_ions():
    spec = plan_spec({"case": "tg119"})
    ions = {
        goal["structure"]: goal["parameters"]["reference"] for goal in wanted_goals(spec, phantom("tg119"), "protons")
    }
    photons = {goal["structure"]: goal["parameters"] for goal in wanted_goals(spec, load_patient("tg119"))}
    assert ions == {"OuterTarget": 50.0, "Core": 25.0, "Ring": 50.0, "BODY": 30.0}
    assert photons["Core"] == {"reference": 15.0}
    own = plan_spec({"case": "tg119", "goals": [{**MEAN, "structure": "BODY"}]})
    assert wanted_goals(own, phantom("tg119"), "protons") == [{**MEAN, "structure": "BODY"}]


def test_dicom_choices_belong_to_dicom_folders():
    with pytest.raises(InputError, match="box is none"):
        named_patient(plan_spec({"case": "box", "dicom": {"series": "1.2.3"}}))
    with pytest.raises(InputError, match="no case to plan"):
        named_patient(plan_spec({}))


def test_the_dose_of_an_earlier_plan_is_brought_to_the_grid(tmp_path):
    from radplan.io.dicom import write_dose

    earlier = evaluate(small_case.dij(), np.ones(6), small_case.patient(), fractions=25)
    save_plan(earlier, tmp_path)
    write_dose(tmp_path / "dose.dcm", earlier["physical_dose"], small_case.GRID)
    for name in ("dose.npz", "dose.dcm"):
        found = background_dose(plan_spec({"background": str(tmp_path / name)}), small_case.GRID, None)
        np.testing.assert_allclose(found, earlier["physical_dose"], rtol=1e-5)
    coarse = small_case.GRID.with_spacing(10.0)
    assert background_dose(plan_spec({"background": str(tmp_path / "dose.npz")}), coarse, None).shape == coarse.shape
    assert background_dose(plan_spec({}), coarse, None) is None


def test_a_background_that_is_no_dose_is_refused(tmp_path):
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    (tmp_path / "text.npz").write_text("no archive")
    for name in ("other.npz", "text.npz", "none.npz", "none.dcm"):
        with pytest.raises(FileError, match=name):
            background_dose(plan_spec({"background": str(tmp_path / name)}), small_case.GRID, None)
