"""Machine parameters by a network: what it starts from, what it learns through, and the arc that a linac delivers."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest

from radplan.cli.main import main
from radplan.errors import FileError, InputError
from radplan.io.load import load_patient

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from radplan.ai.aperture_planner import (  # noqa: E402
    ApertureInputs,
    ApertureTask,
    load_aperture_planner,
)
from radplan.ai.arc_cohort import reference_arcs  # noqa: E402
from radplan.ai.fitting import fit  # noqa: E402
from radplan.ai.loading import load_model  # noqa: E402
from radplan.ai.spec import ApertureSpec, read_spec  # noqa: E402
from radplan.delivery.check import check_delivery  # noqa: E402
from radplan.machines.limits import machine_limits  # noqa: E402
from tests.ai.small_cohort import pelvis_folder  # noqa: E402

LIMITS = machine_limits("TrueBeam")


def _spec(**changed):
    data = {
        "kind": "apertures",
        "name": "tiny",
        "data": {"train": [0, 0], "choose": [1, 1], "test": [2, 2]},
        "network": {"widths": [4, 8], "hidden": 8},
        "arc": {"control_points": 8, "pixels": 11, "pitch": 15.0, "grid": 16.0, "cutoff": 30.0},
        "options": {"spacing": 8.0},
        "optimiser": {"rate": 0.01, "warmup": 2, "mean": 0.5},
        "budget": {"steps": 3},
        "interval": 1.0,
    }
    return ApertureSpec.model_validate(data | changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("arcs")


@pytest.fixture(scope="module")
def planned(folder):
    ((case, fluence),) = reference_arcs(_spec(), (0, 0), folder)
    dose = np.asarray(case.dij.forward(case.weights(fluence))["physical_dose"])[0] / case.prescription
    return ApertureInputs.of(case, _spec()), dose


def test_an_untrained_network_opens_what_the_target_covers_at_the_prescribed_mean(planned):
    inputs, dose = planned
    net = ApertureTask(_spec(), [planned], [planned]).network()
    opened = inputs.openings(net(inputs.maps))
    np.testing.assert_allclose(opened[0].detach().numpy(), inputs.layout.leaves, atol=1e-4)
    given = inputs.dose_of(opened).detach().numpy()
    assert float(given @ inputs.case.shares[0]) == pytest.approx(1.0, abs=1e-3)
    assert dose.shape == given.shape


def test_rows_of_maps_and_leaf_pairs_are_the_same_ones(planned):
    """A pair opens only where the map of its row and control point sees the target."""
    inputs, _ = planned
    seen = inputs.maps[1].numpy() > 0
    first = np.unique(inputs.layout.openings, return_index=True)[1] % len(seen)
    for leaves, number in zip(inputs.layout.leaves, first, strict=True):
        pairs = np.flatnonzero(np.ptp(leaves, axis=1) > 5.0)
        columns = (np.arange(11) - 5) * 15.0
        for pair in pairs[2:-2]:
            row = seen[number, inputs.rows[pair]]
            assert row.any()
            middle = float(columns[row].mean())
            assert abs(middle - float(leaves[pair].mean())) < 15.0


def test_it_learns_through_the_dose_of_apertures(planned):
    inputs, _ = planned
    task = ApertureTask(_spec(), [planned], [planned])
    torch.manual_seed(0)
    net = task.network()
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    losses = []
    for _ in range(10):
        name, loss = task.loss(net, 0, np.random.default_rng(0), "cpu", 0.0)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert name == inputs.case.patient.name
    assert losses[-1] < 0.95 * losses[0]
    assert all(p.grad is not None and p.grad.any() for p in net.parameters())
    leaves, jaws, units = inputs.openings(net(inputs.maps))
    assert (leaves[..., 1] >= leaves[..., 0]).all()
    assert (units > 0).all()
    assert jaws[0] < jaws[1]


def test_a_trained_network_gives_an_arc_within_the_limits(planned, folder, tmp_path):
    model = fit(_spec(), folder, tmp_path / "run")
    planner = load_aperture_planner(model)
    plan = planner.arc(planned[0])
    check_delivery(plan, LIMITS).raise_for_errors()
    assert plan.fields[0].points[-1].meterset > 0
    scores = json.loads((model / "model.json").read_text())["test"]
    assert (scores["n"], scores["patients"]) == (1, ["pelvis_000002"])
    assert scores["figures"]["network"]["target mean"] == pytest.approx(1.0, abs=0.2)
    assert 0 < scores["mean_difference"] < 0.3
    (model / "model.json").write_text("{}")
    with pytest.raises(FileError, match="format"):
        load_aperture_planner(model)


@pytest.fixture(scope="module")
def pelvis(tmp_path_factory):
    return pelvis_folder(tmp_path_factory.mktemp("pelvis") / "case")


def test_ai_plan_writes_the_arc_of_the_shipped_network(pelvis, tmp_path, capsys):
    """Leaves and units of the file are the network's, and its dose meets the target at the prescribed mean."""
    out = tmp_path / "out"
    command = ["ai-plan", "pelvis-apertures", str(pelvis), "--grid", "8", "--no-figures", "--out", str(out)]
    assert main(command) == 0
    assert {"RP.dcm", "RD.dcm", "delivery.json"} <= {path.name for path in out.iterdir()}
    told = capsys.readouterr().out
    assert "no violation" in told
    assert list(pydicom.dcmread(out / "RD.dcm").PixelSpacing) == [8.0, 8.0]
    doses = json.loads((out / "delivery.json").read_text())["doses"]["exported file"]
    assert doses["PTV"]["Dmean"] == pytest.approx(60.0, abs=0.05)
    assert doses["Rectum"]["Dmean"] < 35.0
    planner = load_aperture_planner("pelvis-apertures")
    case = planner.propose(load_patient(pelvis))
    file = pydicom.dcmread(out / "RP.dcm")
    points = file.BeamSequence[0].ControlPointSequence
    assert len(points) == len(case.arc.fields[0].points) == 97
    given = np.asarray(points[12].BeamLimitingDevicePositionSequence[-1].LeafJawPositions, dtype=float)
    np.testing.assert_allclose(given.reshape(2, -1).T, case.arc.fields[0].points[12].leaves, atol=0.06)


def test_what_a_network_of_machine_parameters_does_not_take_is_one_error(pelvis, tmp_path, capsys):
    for option, said in (
        (("--spare", "rectum=5%"), "takes no --spare"),
        (("--bixel-width", "5"), "takes no --bixel-width"),
        (("--technique", "step_and_shoot"), "takes no --technique"),
        (("--limits", "VersaHD"), "moves the leaves of TrueBeam"),
        (("--machine", "generic_photon_10mv"), "plans for generic_photon_6mv"),
    ):
        assert main(["ai-plan", "pelvis-apertures", str(pelvis), *option, "--out", str(tmp_path / "o")]) == 2
        assert said in capsys.readouterr().err
    assert main(["predict", "pelvis-apertures", str(pelvis), "--out", str(tmp_path / "o")]) == 2
    assert "radplan ai-plan" in capsys.readouterr().err
    with pytest.raises(InputError, match="on the CPU"):
        load_model("pelvis-apertures", "cuda")


def test_control_points_must_be_even_and_the_spec_ships(folder, tmp_path):
    assert isinstance(read_spec("pelvis-apertures"), ApertureSpec)
    odd = _spec(arc={"control_points": 7, "pixels": 11, "pitch": 15.0, "grid": 16.0, "cutoff": 30.0})
    with pytest.raises(InputError, match="even"):
        fit(odd, folder, tmp_path)
