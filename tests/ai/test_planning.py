"""From a proposed dose to a file that a linac delivers."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("lightning_fabric")

from radplan.ai.data import OPENKBP_LAYOUT
from radplan.ai.planning import plan_proposal
from radplan.ai.proposer import load_proposer, save_proposer
from radplan.ai.spec import TrainSpec
from radplan.ai.train import dose_net
from radplan.cli.main import main
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.io.load import load_machine
from radplan.io.plan_file.reading import plan_spec
from radplan.patient import CT, Patient, Structure, Structures


def _neck() -> Patient:
    grid = Grid((26, 56, 56), (2.5, 2.5, 3.6), (-68.75, -68.75, -45.0))
    x, y, z = (grid.points()[:, k].reshape(grid.shape) for k in range(3))
    neck = x**2 + y**2 <= 65**2
    target = (np.abs(x) <= 15) & (np.abs(y + 10) <= 12) & (np.abs(z) <= 12)
    parts = [
        Structure.from_mask("PTV70", grid, target, "target"),
        Structure.from_mask("SpinalCord", grid, np.hypot(x, y - 30) <= 8, "oar"),
        Structure.from_mask("Body", grid, neck, "external"),
    ]
    return Patient("neck", CT(grid, np.where(neck, 0.0, -1000.0)), Structures(parts), prescription=70.0)


def _spec(technique="sliding_window"):
    delivery = {"technique": technique, "grid": 6.0, "refine": False, "compare": False}
    return plan_spec({"beams": {"bixel_width": 10}, "engine": {"grid": 6}, "delivery": delivery})


@pytest.mark.slow
def test_a_proposed_dose_becomes_a_file_whose_dose_is_calculated(tmp_path):
    patient, machine = _neck(), load_machine("generic_photon_6mv")
    result = plan_proposal(load_proposer("openkbp-small"), _spec(), patient, machine, iterations=60)
    assert len(result.delivered.delivery.fields) == 9
    doses = result.doses()
    assert list(doses) == ["proposed", "fluence", "exported file"]
    # what is delivered comes near to what was proposed: the target's mean by its monitor units, the rest by its shapes
    assert doses["exported file"]["PTV70"]["Dmean"] == pytest.approx(doses["proposed"]["PTV70"]["Dmean"], rel=0.01)
    assert doses["exported file"]["PTV70"]["D95"] == pytest.approx(doses["proposed"]["PTV70"]["D95"], rel=0.08)
    assert abs(doses["exported file"]["SpinalCord"]["Dmean"] - doses["proposed"]["SpinalCord"]["Dmean"]) < 6
    assert "PTV70" in result.table()


def test_what_cannot_be_planned_is_refused(tmp_path, capsys):
    patient, machine = _neck(), load_machine("generic_photon_6mv")
    proposer = load_proposer("openkbp-small")
    with pytest.raises(InputError, match="sliding_window or step_and_shoot"):
        plan_proposal(proposer, _spec("fluence"), patient, machine)
    spec = TrainSpec.model_validate(
        {"name": "t", "data": {"train": ["*"], "choose": ["*"]}, "network": {"widths": [4]}, "budget": {"steps": 1}}
    )
    facts = {"spacing": {"low": [3.0, 3.0, 1.5], "high": [5.5, 5.5, 5.0]}, "radiation": "protons"}
    weights = dose_net(spec, OPENKBP_LAYOUT).state_dict()
    other = load_proposer(save_proposer(tmp_path / "m", spec, OPENKBP_LAYOUT, weights, facts))
    with pytest.raises(InputError, match="is for protons"):
        plan_proposal(other, _spec(), patient, machine)
    assert main(["ai-plan", "openkbp-small", "box", "--machine", "generic_proton"]) == 2
    assert "no photon machine" in capsys.readouterr().err
    assert main(["predict", "no-such-model", "box", "--out", str(tmp_path / "o")]) == 2
    assert "openkbp-small" in capsys.readouterr().err
