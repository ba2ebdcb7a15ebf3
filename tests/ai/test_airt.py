"""Arcs by networks: the case they see, reference fluence, training, sequencing, files, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from radplan.errors import FileError, InputError, UnknownNameError

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from radplan.ai.airt_net import ArcInputs, dose_error  # noqa: E402
from radplan.ai.airt_planner import load_airt_planner, sequenced_arc  # noqa: E402
from radplan.ai.airt_task import AirtTask, ArcSample, wrong  # noqa: E402
from radplan.ai.arc_cohort import reference_arcs  # noqa: E402
from radplan.ai.arc_reference import (  # noqa: E402
    aperture_fluence,
    sequencing_loss,
    with_best_units,
    with_units_of_dose,
)
from radplan.ai.fitting import fit  # noqa: E402
from radplan.ai.loop import Training  # noqa: E402
from radplan.ai.nets.fluence_net import Discriminator, FluenceNet  # noqa: E402
from radplan.ai.spec import AirtSpec, read_spec  # noqa: E402
from radplan.cli.main import main  # noqa: E402
from radplan.delivery.check import check_delivery  # noqa: E402
from radplan.machines.limits import machine_limits  # noqa: E402


def _spec(steps=12, **changed):
    data = {
        "kind": "airt",
        "name": "tiny",
        "data": {"train": [0, 1], "choose": [2, 2], "test": [3, 3]},
        "network": {"widths": [4, 8], "pool": 2, "head": [8], "fluence": [4, 8]},
        "arc": {"control_points": 8, "pixels": 11, "pitch": 15.0, "grid": 16.0, "cutoff": 30.0},
        "options": {"spacing": 8.0},
        "optimiser": {"rate": 0.01, "warmup": 2, "mean": 0.5},
        "budget": {"steps": steps},
        "interval": 1.0,
    }
    return AirtSpec.model_validate(data | changed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("arcs")


@pytest.fixture(scope="module")
def cases(folder):
    return reference_arcs(_spec(), (0, 2), folder)


@pytest.fixture(scope="module")
def samples(cases):
    return [ArcSample.of(case, fluence) for case, fluence in cases]


@pytest.fixture(scope="module")
def model(folder, cases, tmp_path_factory):
    return fit(_spec(), folder, tmp_path_factory.mktemp("run"))


def test_even_fluence_gives_the_target_its_prescription(cases):
    case, _ = cases[0]
    dose = np.asarray(case.dij.forward(case.weights(np.ones(case.shape)))["physical_dose"])[0]
    assert float(dose @ case.shares[0]) == pytest.approx(case.prescription)
    assert case.prescription == pytest.approx(3.0)
    np.testing.assert_allclose(case.shares.sum(axis=1), 1.0)


def test_pixels_and_bixels_are_the_same_ones(cases):
    """Fluence in one pixel is dose on the ray through that pixel, as the projector sees it."""
    case, _ = cases[0]
    for number in (0, 5):
        own = case.open[case.open // case.arc.pixels**2 == number]
        chosen = int(own[own.size // 2])
        fluence = np.zeros(case.shape)
        fluence.reshape(-1)[chosen] = 1.0
        dose = np.asarray(case.dij.forward(case.weights(fluence))["physical_dose"])[0]
        seen = case.bev.apply(case.volume(dose))[number]
        assert int(seen.argmax()) == chosen % case.arc.pixels**2
    np.testing.assert_array_equal(case.fluence(case.weights(case.maps[0])), case.maps[0])


def test_reference_fluence_serves_the_goals_and_apertures_give_it(cases):
    for case, fluence in cases:
        problem = case.problem
        cost, even = (float(problem.at(case.weights(f)).value) for f in (fluence, np.ones(case.shape)))
        assert cost < 0.9 * even
        assert sequencing_loss(case, fluence) < 0.2
        assert (fluence >= 0).all()


def test_apertures_lose_nothing_of_what_they_give_and_units_only_better_it(cases):
    case, _ = cases[0]
    fluence = np.zeros(case.shape)
    opened = case.maps[0] > 0
    fluence[opened] = 2.0
    assert sequencing_loss(case, fluence) == pytest.approx(0.0, abs=1e-9)
    np.testing.assert_allclose(aperture_fluence(case, fluence), fluence)
    problem = case.problem
    costs = [float(problem.at(case.weights(f)).value) for f in (fluence, with_best_units(case, fluence, 10))]
    assert costs[1] < costs[0]


def test_units_are_found_again_from_the_dose_of_apertures(cases):
    """Dose of known monitor units, but for the target's, which is as prescribed: nothing else comes nearer."""
    case, _ = cases[0]
    fluence = case.maps[0] * np.linspace(0.5, 1.5, 8)[:, None, None]
    dose = np.asarray(case.dij.forward(case.weights(fluence))["physical_dose"])[0] / case.prescription
    given = with_units_of_dose(case, fluence, np.where(case.shares[0] > 0, 1.0, dose))
    reached = np.asarray(case.dij.forward(case.weights(given))["physical_dose"])[0] / case.prescription
    target = case.shares[0]
    assert target @ (reached - 1.0) ** 2 < target @ (dose - 1.0) ** 2
    assert float(target @ reached) == pytest.approx(1.0, abs=0.02)
    assert (given >= 0).all()


def test_what_pixels_have_to_do_with_an_error_is_its_slope(cases, rng):
    """The slope of e @ dose by fluence, over that of the target's dose."""
    case, _ = cases[0]
    error = rng.standard_normal(case.shares.shape[1])
    inside = case.shares[0] / case.shares[0].max()
    seen, reach = case.blamed(np.stack([error, inside]))
    direction = case.maps[0] * rng.random(case.shape) * (reach > 0.999)
    dose = np.asarray(case.dij.forward(case.weights(direction))["physical_dose"])[0]
    # where a pixel reaches the target well, maps are divided by just what the target's own map is
    assert reach.max() == pytest.approx(1.0, abs=1e-5)
    slopes = case.fluence(np.asarray(case.dij.pullback(np.zeros(case.open.size), {"physical_dose": inside[None]})))
    assert float((seen * slopes * direction).sum() * case.unit) == pytest.approx(
        float(error @ dose) / case.unit, rel=1e-3
    )


def test_reference_plans_are_made_once_and_damaged_ones_named(folder, cases, tmp_path):
    files = sorted(folder.glob("arc-*.npz"))
    times = [path.stat().st_mtime_ns for path in files]
    (again,) = reference_arcs(_spec(), (0, 0), folder)
    np.testing.assert_array_equal(again[1], cases[0][1])
    assert [path.stat().st_mtime_ns for path in files] == times
    copy = tmp_path / files[0].name
    copy.write_bytes(b"nonsense")
    with pytest.raises(FileError, match="no reference fluence"):
        reference_arcs(_spec(), (0, 0), tmp_path)


def test_error_by_hand():
    shares = torch.tensor([[0.5, 0.5, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]])
    dose = torch.tensor([1.1, 0.8, 0.5, 0.7])
    error = dose_error(dose, torch.tensor([0.0, 0.0, 0.4, 0.0]), shares, torch.tensor([0.0, 0.25]))
    torch.testing.assert_close(error, torch.tensor([[0.2, -0.2, 0.0, 0.0], [0.0, 0.0, 0.2, 0.0]]))
    # the target: root of (0.04 + 0.04) / 2; the organ: 0.5 - 0.75 * 0.4
    wanted = 0.2 + 0.2
    assert float(wrong(dose, torch.tensor([0.0, 0.0, 0.4, 0.0]), shares, torch.tensor([0.0, 0.25]))) == pytest.approx(
        wanted
    )


def test_the_goals_error_is_the_slope_of_their_cost(samples, rng):
    case = samples[0].inputs.case
    dose = samples[0].dose.numpy().astype(np.float64)
    direction = np.where(rng.random(dose.size) < 0.1, rng.standard_normal(dose.size), 0.0)
    rows = np.searchsorted(np.asarray(case.dij.voxels), np.asarray(case.problem.model.voxels))

    def cost(values):
        return float(case.problem.from_images(None, {"physical_dose": case.prescription * values[rows][None]}).value)

    step = 1e-4
    wanted = (cost(dose + step * direction) - cost(dose - step * direction)) / (2 * step)
    even = np.asarray(case.dij.forward(case.weights(np.ones(case.shape)))["physical_dose"])[0] / case.prescription
    assert np.sqrt(np.mean(case.goal_error(even) ** 2)) == pytest.approx(1.0)
    given = case.goal_error(dose) @ direction * case._even_slope * case.prescription
    assert given == pytest.approx(wanted, rel=1e-5)
    net = AirtTask(_spec(network={"fluence": [4], "widths": [4], "error": "goals"}), samples[:1], samples[2:]).network()
    with torch.no_grad():
        seen = net(samples[0].inputs, torch.zeros(5))["error"].numpy()
    assert (
        np.abs(seen).max()
        > np.abs(
            dose_error(*[torch.tensor(even, dtype=torch.float32)] * 2, samples[0].inputs.shares, torch.zeros(5)).numpy()
        ).max()
    )


def test_dose_of_fluence_is_the_engines_with_its_gradient(samples, rng):
    inputs = samples[0].inputs
    fluence = torch.tensor(rng.random(inputs.case.shape), dtype=torch.float32, requires_grad=True)
    dose = inputs.dose_of(fluence)
    wanted = np.asarray(inputs.case.dij.forward(inputs.case.weights(fluence.detach().numpy()))["physical_dose"])[0]
    np.testing.assert_allclose(dose.detach().numpy(), wanted / inputs.case.prescription, rtol=2e-5, atol=1e-7)
    direction = torch.tensor(rng.random(inputs.case.shape), dtype=torch.float32)
    cotangent = torch.tensor(rng.random(dose.numel()), dtype=torch.float32)
    (dose @ cotangent).backward()
    # linear: the slope along a direction is the dose of that direction
    assert float((fluence.grad * direction).sum()) == pytest.approx(
        float(inputs.dose_of(direction) @ cotangent), rel=1e-4
    )


def test_the_gantry_has_no_end():
    torch.manual_seed(0)
    net = FluenceNet(2, (4, 8), start=0.5).eval()
    torch.nn.init.normal_(net.head[-1].weight)
    maps = torch.randn(2, 8, 5, 5)

    def turning(joined: int) -> float:
        """Change of the answer when the patient is turned by half, in units of its spread."""
        net.round = joined
        with torch.no_grad():
            first, turned = net(maps), net(torch.roll(maps, 4, dims=1))
        assert tuple(first.shape) == (8, 5, 5)
        return float((torch.roll(turned, -4, dims=0) - first).abs().mean() / first.std())

    # instance normalisation still sees where the joined ends stop
    assert turning(net.round) < 0.25 * turning(0)


def test_networks_begin_as_even_fluence_and_no_correction(samples):
    task = AirtTask(_spec(), samples[:2], samples[2:])
    torch.manual_seed(0)
    net = task.network()
    with torch.no_grad():
        result = net(samples[0].inputs, torch.zeros(5))
    torch.testing.assert_close(result["first"], samples[0].inputs.maps[0])
    torch.testing.assert_close(result["last"], result["first"])
    assert sum(p.numel() for p in net.parameters()) < 50_000


def test_on_one_patient_the_correction_evens_the_dose_and_spares_what_is_asked(samples):
    task = AirtTask(_spec(), samples[:1], samples[2:])
    torch.manual_seed(0)
    net, inputs = task.network(), samples[0].inputs
    optimiser = torch.optim.Adam(net.correction.parameters(), 0.02)
    target, _, rectum, *_ = inputs.shares
    asked = {share: torch.tensor([0.0, 0.0, share, 0.0, 0.0]) for share in (0.0, 0.15, 0.3)}
    for step in range(80):
        sparing = asked[(0.0, 0.3)[step % 2]]
        result = net(inputs, sparing)
        optimiser.zero_grad()
        wrong(result["last_dose"], result["first_dose"], inputs.shares, sparing).backward()
        optimiser.step()
    with torch.no_grad():
        results = [net(inputs, sparing) for sparing in asked.values()]
    spread = [
        float((target @ (dose - target @ dose) ** 2).sqrt())
        for dose in (results[0]["first_dose"], results[0]["last_dose"])
    ]
    assert spread[1] < 0.9 * spread[0]
    means = [float(rectum @ result["last_dose"]) for result in results]
    assert means[0] > means[1] > means[2]
    assert means[2] < 0.93 * means[0]


def test_a_judge_learns_to_tell_maps_and_leaves_the_rest_alone(samples):
    task = AirtTask(_spec(), samples[:2], samples[2:])
    torch.manual_seed(0)
    net = task.network()
    sample = samples[0]
    optimiser = torch.optim.Adam(net.judge.parameters(), 0.05)
    losses = []
    for _ in range(12):
        result = net(sample.inputs, torch.zeros(5), real=sample.fluence)
        optimiser.zero_grad()
        result["judged"].backward()
        optimiser.step()
        losses.append(float(result["judged"].detach()))
    assert losses[-1] < 0.7 * losses[0]
    net.zero_grad()
    net(sample.inputs, torch.zeros(5), real=sample.fluence)["cheat"].backward()
    assert all(p.grad is None for p in net.judge.parameters())
    assert any(p.grad is not None and p.grad.any() for p in net.correction.parameters())
    assert Discriminator((4, 8))(torch.zeros(3, 5, 5)).shape == (3,)


def test_a_stopped_training_goes_on_as_if_nothing_had_happened(samples, tmp_path):
    spec = _spec(10)
    task = AirtTask(spec, samples[:2], samples[2:])
    whole = Training(spec, task, tmp_path / "whole")
    whole.run()
    Training(spec, task, tmp_path / "cut").run(until=8)
    again = Training(spec, task, tmp_path / "cut")
    again.run()
    for key, value in whole.net.state_dict().items():
        torch.testing.assert_close(again.net.state_dict()[key], value, rtol=1e-6, atol=1e-6)


def test_training_betters_the_dose_and_its_model_says_so(model):
    lines = [json.loads(line) for line in (model.parent / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["event"] == "look"
    scores = json.loads((model.parent / "scores.json").read_text())
    assert scores["n"] == 1
    assert set(scores["figures"]) == {"first", "last", "reference"}
    card = json.loads((model / "model.json").read_text())
    assert card["spec"]["network"]["shaping"] is False
    assert card["trained_with_judge"] is True


def test_a_proposal_becomes_an_arc_that_a_linac_delivers(model, cases):
    planner = load_airt_planner(model)
    case, _ = cases[0]
    inputs = ArcInputs.of(case)
    result = planner.answer(case, inputs, np.zeros(5))
    assert result.proposed.shape == case.anatomy.grid.shape
    assert result.last.shape == case.shape
    limits = machine_limits("TrueBeam")
    plan = sequenced_arc(case, result.last, planner.machine, limits, spacing=10.0, polish=10)
    check_delivery(plan, limits).raise_for_errors()
    assert plan.fields[0].points[-1].meterset > 0


def test_fluence_between_control_points_keeps_its_monitor_units(cases):
    case, fluence = cases[0]
    limits = machine_limits("TrueBeam")
    from radplan.ai.arc_cohort import arc_machine

    plans = [sequenced_arc(case, fluence, arc_machine(_spec()), limits, spacing=s, polish=0) for s in (5.0, 10.0)]
    units = [plan.fields[0].points[-1].meterset for plan in plans]
    assert units[0] == pytest.approx(units[1], rel=0.1)
    given = aperture_fluence(case, fluence).max(axis=(1, 2)).sum() * case.unit
    assert units[0] == pytest.approx(given, rel=0.25)


@pytest.mark.slow
def test_ai_plan_writes_the_arc_and_the_dose_of_its_file(model, tmp_path, capsys):
    from tests.ai.small_cohort import pelvis_folder

    case = pelvis_folder(tmp_path / "case")
    arguments = [
        "ai-plan",
        str(model),
        str(case),
        "--spare",
        "rectum=5%",
        "--no-figures",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 0
    assert {"RP.dcm", "RD.dcm", "delivery.json"} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert "no violation" in capsys.readouterr().out


def test_bad_models_organs_and_options_are_one_clear_error(model, cases, tmp_path, capsys):
    planner = load_airt_planner(model)
    with pytest.raises(UnknownNameError, match="Rectum"):
        planner.propose(cases[0][0].patient, {"rektum": 0.1})
    with pytest.raises(InputError, match=r"share in \[0, 1\)"):
        planner.propose(cases[0][0].patient, {"rectum": 1.0})
    with pytest.raises(InputError, match="target"):
        planner.propose(
            cases[0][0].patient.__class__("x", cases[0][0].patient.ct, type(cases[0][0].patient.structures)([]))
        )
    out = str(tmp_path / "o")
    assert main(["ai-plan", str(model), "box", "--wish", "rectum:mean=-5%", "--out", out]) == 2
    assert "takes no --wish" in capsys.readouterr().err
    assert main(["ai-plan", "openkbp-small", "box", "--spare", "rectum=5%", "--out", out]) == 2
    assert "takes no --spare" in capsys.readouterr().err
    assert main(["ai-plan", str(model), "box", "--machine", "generic_proton", "--out", out]) == 2
    assert "no photon machine" in capsys.readouterr().err
    assert main(["predict", str(model), "box", "--out", out]) == 2
    assert "radplan ai-plan" in capsys.readouterr().err


def test_specifications_of_arcs_say_what_is_wrong(tmp_path):
    assert isinstance(read_spec("pelvis-airt"), AirtSpec)
    with pytest.raises(InputError, match="take no cache"):
        fit(_spec(), tmp_path, tmp_path / "run", cache=tmp_path / "cache")
    path = tmp_path / "spec.yaml"
    head = "kind: airt\nname: x\ndata: {train: [0, 1], choose: [2, 2], test: [3, 3]}\nbudget: {steps: 1}\n"
    path.write_text(head + "arc: {pixels: 10}\n")
    with pytest.raises(FileError, match="must be odd"):
        read_spec(path)
    path.write_text(head + "device: cuda\n")
    with pytest.raises(FileError, match="device: Input should be 'cpu', got 'cuda'"):
        read_spec(path)
