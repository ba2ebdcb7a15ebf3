"""The planner that is steered by DVHs: its data, what it is taught, that it follows wishes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

from radplan.errors import FileError, InputError, UnknownNameError
from tests.ai.small_cohort import SHAPE, small_cohort
from tests.ai.small_patients import small_case

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from radplan.ai.cards import MODELS, save_model  # noqa: E402
from radplan.ai.dvh import Wish  # noqa: E402
from radplan.ai.dvh_planner import load_dvh_planner  # noqa: E402
from radplan.ai.dvh_scores import Followed, followed, monotone, table  # noqa: E402
from radplan.ai.dvh_task import CodeScale, DvhTask, disorder, mean_between, nearest_plan  # noqa: E402
from radplan.ai.fitting import fit  # noqa: E402
from radplan.ai.loading import load_model  # noqa: E402
from radplan.ai.loop import Training  # noqa: E402
from radplan.ai.planned import cohort_layout, dvh_code, mirrored_patient, planned_patients  # noqa: E402
from radplan.ai.spec import DvhSpec, read_spec  # noqa: E402
from radplan.cli.main import main  # noqa: E402
from radplan.io.load import load_patient  # noqa: E402


def _spec(steps=30, **changed):
    data = {
        "kind": "dvh",
        "name": "tiny",
        "data": {"train": [0, 1], "choose": [2, 2], "test": [3, 4]},
        "network": {"widths": [8, 8], "pool": 2, "head": 16},
        "optimiser": {"rate": 0.01, "warmup": 2, "mean": 0.5},
        "budget": {"steps": steps},
        "interval": 1.0,
        "voxels": 300,
        "unsteered": 0.4,
        "organs": ["Bladder", "Rectum"],
        "structures": ["PTV", "Bladder", "Rectum", "External"],
    }
    return DvhSpec.model_validate(data | changed)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    return small_cohort(tmp_path_factory.mktemp("cohort"), patients=5)


@pytest.fixture(scope="module")
def model(cohort, tmp_path_factory):
    return fit(_spec(), cohort, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def patients(cohort):
    spec = _spec()
    return planned_patients(cohort, (0, 4), spec, cohort_layout(spec, cohort, 0))


def test_a_cohort_is_read_as_it_was_written(cohort, patients):
    first = patients[0]
    assert first.name.endswith("_000000")
    assert first.shape == SHAPE
    assert first.doses.shape == (4, first.voxels.size)  # the fifth plan was rejected
    names = _spec().structures
    target, rectum = (first.parts[names.index(name)].astype(float) for name in ("PTV", "Rectum"))
    for dose in first.doses.astype(float):
        assert (dose * target).sum() / target.sum() == pytest.approx(1.0, abs=1e-3)
    means = (first.doses.astype(float) * rectum).sum(axis=1) / rectum.sum()
    np.testing.assert_allclose(means / means[0], [1, 2, 3, 4], rtol=2e-3)


def test_the_cache_holds_what_was_read(cohort, patients, tmp_path):
    spec = _spec()
    layout = cohort_layout(spec, cohort, 0)
    for _ in range(2):
        again = planned_patients(cohort, (0, 0), spec, layout, tmp_path)[0]
        for name in ("voxels", "channels", "parts", "doses", "codes"):
            np.testing.assert_array_equal(getattr(again, name), getattr(patients[0], name))
    assert len(list(tmp_path.iterdir())) == 1


def test_codes_are_dvhs_and_the_nearest_plan_is_the_own_one(patients):
    first = patients[0]
    for k, code in enumerate(first.codes):
        np.testing.assert_allclose(code, dvh_code(first.doses[k].astype(float), first.parts), atol=0.01)
        assert nearest_plan(first, code) == k
    scale = CodeScale.of(patients)
    given = scale.given(first.codes)
    assert given.shape == (4, scale.bins)
    assert (given[:, -1] == 1).all()
    assert not scale.nothing().any()
    every = np.sqrt(np.concatenate([p.codes for p in patients]).astype(np.float64))
    np.testing.assert_allclose(scale.mean, every.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(scale.spread, every.std(axis=0), atol=1e-6)


def test_a_hundredth_of_a_volume_is_heard_as_a_tenth_and_less_than_nothing_as_less():
    scale = CodeScale(np.zeros(3), np.ones(3))
    np.testing.assert_allclose(scale.given([[0.01, 0.25, -0.04]]), [[0.1, 0.5, -0.2, 1.0]], rtol=1e-6)


def test_a_mirrored_patient_sees_its_plans_where_they_are(cohort, patients):
    layout = cohort_layout(_spec(), cohort, 0)
    first = patients[0]
    twice = mirrored_patient(mirrored_patient(first, layout), layout)
    np.testing.assert_array_equal(twice.voxels, first.voxels)
    np.testing.assert_array_equal(twice.channels, first.channels)
    x = np.unravel_index(mirrored_patient(first, layout).voxels, SHAPE)[2]
    assert ((SHAPE[2] - 1 - x) == np.unravel_index(first.voxels, SHAPE)[2]).all()


def test_training_lets_the_network_follow_and_more_is_more(model):
    scores = json.loads((model.parent / "scores.json").read_text())
    assert scores["n"] == 2
    assert scores["plans"] == 8
    pairs = scores["monotone_percent"]["Rectum"]
    assert pairs["pairs"] > 50
    assert pairs["network"] >= 90
    lines = [json.loads(line) for line in (model.parent / "log.jsonl").read_text().splitlines()]
    assert lines[0]["event"] == "start"
    assert lines[-1]["voxels"] < 20


def test_a_stopped_training_goes_on_as_if_nothing_had_happened(cohort, patients, tmp_path):
    spec = _spec(8, order_weight=1.0)
    task = DvhTask(spec, cohort_layout(spec, cohort, 0), patients[:2], patients[2:3])
    whole = Training(spec, task, tmp_path / "whole")
    whole.run()
    Training(spec, task, tmp_path / "cut").run(until=5)
    again = Training(spec, task, tmp_path / "cut")
    assert again.step == 5
    again.run()
    for key, value in whole.net.state_dict().items():
        torch.testing.assert_close(again.net.state_dict()[key], value, rtol=1e-6, atol=1e-6)


def test_a_training_begins_with_the_weights_of_another_model(model, cohort, patients):
    layout = cohort_layout(_spec(), cohort, 0)
    start = DvhTask(_spec(start=str(model)), layout, patients[:2], patients[2:3]).network()
    for key, value in load_dvh_planner(model)._net.state_dict().items():
        torch.testing.assert_close(start.state_dict()[key], value)


@pytest.mark.parametrize("count", [100, 1000, 1234])
def test_means_near_d1_and_d95_of_an_even_fall_are_these(count):
    # Why: of doses that rise evenly from 0 to 1 with the volume, D1 % is 0.99 and D95 % is 0.05.
    doses = (torch.arange(count) + 0.5) / count
    shuffled = doses[torch.randperm(count, generator=torch.Generator().manual_seed(1))]
    plans, weights = torch.stack([shuffled, 2.0 * shuffled]), torch.full((count,), 1.0 / count)
    np.testing.assert_allclose(mean_between(plans, weights, 0.005, 0.015), [0.99, 1.98], atol=1.0 / count)
    np.testing.assert_allclose(mean_between(plans, weights, 0.92, 0.98), [0.05, 0.10], atol=1.0 / count)


def test_means_between_shares_of_a_volume_count_voxels_by_their_parts():
    dose = torch.tensor([[3.0, 2.0, 1.0]], requires_grad=True)
    weights = torch.tensor([0.0075, 0.0025, 0.99])
    # of the hottest 0.5 to 1.5 % a quarter lies in the first voxel, a quarter in the second, a half in the third
    given = mean_between(dose, weights, 0.005, 0.015)
    assert given.item() == pytest.approx(0.25 * 3 + 0.25 * 2 + 0.5 * 1, rel=1e-5)
    given.sum().backward()
    np.testing.assert_allclose(dose.grad, [[0.25, 0.25, 0.5]], rtol=1e-4)


def test_answers_out_of_order_cost_what_they_lack():
    shares = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    dose = torch.tensor([[0.2, 0.4, 0.5], [0.1, 0.3, 0.6], [0.9, 0.9, 0.9]], requires_grad=True)
    asked = torch.tensor([[0.4, 0.7], [0.6, 0.6], [torch.nan, torch.nan]])
    # means 0.3 and 0.2 where 0.4 and 0.6 were asked lack 0.02 + 0.1; 0.5 and 0.6 where 0.7 and 0.6 were, 0.01 + 0.1
    lack = disorder(dose, shares, asked)
    assert lack.item() == pytest.approx((0.12 + 0.11) / 6)
    lack.backward()
    wanted = torch.tensor([[0.5, 0.5, -1.0], [-0.5, -0.5, 1.0], [0.0, 0.0, 0.0]]) / 6
    torch.testing.assert_close(dose.grad, wanted)


def test_a_wish_moves_the_rectum_as_it_says(model, cohort):
    planner = load_dvh_planner(model)
    patient = load_patient(cohort / "case" / "000004")
    less = planner.steer(patient, [Wish.parse("rectum:mean=-30%")])
    more = planner.steer(patient, [Wish.parse("Rectum:mean=+30%")])
    rectum = patient.structures["Rectum"].mask()
    assert less.dose[rectum].mean() < 0.95 * more.dose[rectum].mean()
    np.testing.assert_array_equal(less.usual, more.usual)
    np.testing.assert_array_equal(planner.predict(patient)[0], less.usual)
    target = patient.structures["PTV"].mask()
    assert less.dose[target].mean() == pytest.approx(planner.level, rel=1e-3)
    assert not less.dose[~patient.structures["External"].mask()].any()
    asked, before = (less.mean(curves, "Rectum") for curves in (less.asked, less.before))
    assert asked == pytest.approx(0.7 * before, rel=0.03)
    assert less.mean(less.reached, "Rectum") == pytest.approx(less.dose[rectum].mean(), rel=0.03)


def test_bad_wishes_models_and_patients_are_one_clear_error(model, cohort, tmp_path, capsys):
    planner, patient = load_dvh_planner(model), load_patient(cohort / "case" / "000004")
    with pytest.raises(UnknownNameError, match="Rectum"):
        planner.steer(patient, [Wish.parse("rektum:mean=-20%")])
    with pytest.raises(InputError, match="was trained on voxels of"):
        planner.steer(patient, grid=patient.ct.grid.with_spacing(3.0))
    with pytest.raises(InputError, match="steer the model tiny"):
        planner.steer(small_case(1).patient, grid=small_case(1).patient.ct.grid.with_spacing(8.0))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            load_model(model, "cuda")
    other = save_model(tmp_path / "other", "some other format", "other", {}, {})
    with pytest.raises(FileError, match="expected 'radplan dose proposer 1' or 'radplan DVH planner 2'"):
        load_model(other)
    case = str(cohort / "case" / "000004")
    assert main(["predict", str(model), case, "--wish", "rectum:D50=-20%", "--out", str(tmp_path / "p")]) == 2
    assert main(["predict", "openkbp-small", case, "--wish", "rectum:mean=-20%", "--out", str(tmp_path / "p")]) == 2
    assert "not steered by DVHs" in capsys.readouterr().err


def test_predict_tells_what_was_asked_and_reached(model, cohort, tmp_path, capsys):
    case = str(cohort / "case" / "000004")
    arguments = [
        "predict",
        str(model),
        case,
        "--wish",
        "rectum:mean=-20%",
        "--no-figures",
        "--out",
        str(tmp_path / "p"),
    ]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert "Rectum" in said
    assert "asked" in said
    assert (tmp_path / "p" / "dose.npz").is_file()


def test_specifications_of_cohorts_say_what_is_wrong(tmp_path):
    assert isinstance(read_spec("pelvis-dvh"), DvhSpec)
    path = tmp_path / "spec.yaml"
    head = "name: x\nnetwork: {widths: [8, 8]}\nbudget: {steps: 1}\n"
    path.write_text(head + "kind: dvh\ndata: {train: [0, 5], choose: [5, 6], test: [7, 8]}\n")
    with pytest.raises(FileError, match="one of train, choose and test"):
        read_spec(path)
    path.write_text(head + "kind: dhv\n")
    with pytest.raises(FileError, match="no training of the kind 'dhv'"):
        read_spec(path)


def test_cohorts_that_cannot_be_read_say_so(cohort, tmp_path):
    spec = _spec()
    layout = cohort_layout(spec, cohort, 0)
    with pytest.raises(FileError, match="no patient of a cohort"):
        planned_patients(cohort, (4, 5), spec, layout)
    none = small_cohort(tmp_path / "none", patients=1, plans=1)
    done = none / "case" / "000000" / "done.json"
    done.write_text(json.dumps({"variants": [{"rejected": ["hot"]}]}))
    with pytest.raises(InputError, match="not rejected"):
        planned_patients(none, (0, 0), spec, layout)
    (none / "case" / "000000" / "variant_000.npz").write_bytes(b"nonsense")
    done.write_text(json.dumps({"variants": [{"rejected": []}]}))
    with pytest.raises(FileError, match="no plan of a cohort"):
        planned_patients(none, (0, 0), spec, layout)


def test_the_table_is_planned_less_predicted_by_patient():
    planned = np.zeros((2, 2, 1))
    planned[0, :, 0] = [0.50, 0.52]
    planned[1, :, 0] = [1.00, 1.00]
    first = Followed("a", planned, planned - 0.01, planned[:, :1], *(np.zeros((1, 1)),) * 3)
    second = Followed(
        "b",
        planned,
        planned + np.asarray([[0.01, 0.03], [0.0, 0.0]])[..., None],
        planned[:, :1],
        *(np.zeros((1, 1)),) * 3,
    )
    row = table([first, second], ["Rectum"])["Rectum"]
    # patients' means are 1 and -2 %, values 1, 1, -1, -3 about -0.5: squares 2.25, 2.25, 0.25, 6.25
    assert row["mean"] == pytest.approx(-0.5)
    assert row["mean_sd"] == pytest.approx(np.sqrt(2.75), abs=1e-3)
    assert row["mean_patients_sd"] == pytest.approx(1.5)
    assert row["maximum"] == pytest.approx(0.5)
    # without steering the planned 0.50 and 0.52 are 0 and 2 % away from 0.50, for both patients
    unsteered = table([first, second], ["Rectum"], unsteered=True)["Rectum"]
    assert unsteered["mean"] == pytest.approx(1.0)
    assert unsteered["mean_sd"] == pytest.approx(1.0)


def test_monotone_counts_pairs_that_are_apart():
    asked = np.asarray([[0.100], [0.102], [0.2]])
    result = Followed("a", *(np.zeros((2, 1, 1)),) * 3, asked, np.asarray([[1.0], [3.0], [2.0]]), asked)
    row = monotone([result], ["Rectum"])["Rectum"]
    assert row == {"network": 50.0, "labels": 100.0, "pairs": 2}


def test_following_is_perfect_when_the_network_is(patients):
    class Perfect:
        def __call__(self, channels, voxels, shape, wanted, codes):
            return torch.tensor(np.asarray(self.doses[int(self.turn.pop(0))], dtype=np.float32))[None, wanted]

    net, spec = Perfect(), _spec()
    net.doses = patients[0].doses
    net.turn = [*[*range(4)] * 3, 0, *[0] * 30]
    row = table(followed(net, CodeScale.of(patients), spec, patients[:1], "cpu"), spec.structures)
    assert max(abs(v) for r in row.values() for v in r.values()) < 0.05


def test_every_seed_is_asked_for_the_same(model, patients):
    planner = load_dvh_planner(model)
    specs = [_spec(seed=seed, rounds=0) for seed in (0, 1)]
    first, second = (followed(planner._net, planner.scale, spec, patients, "cpu") for spec in specs)
    np.testing.assert_array_equal([r.asked for r in first], [r.asked for r in second])


@pytest.mark.parametrize("name", ["pelvis-dvh", "pelvis-airt", "pelvis-apertures", "openkbp-small"])
def test_models_that_ship_are_small_and_say_where_they_come_from(name):
    folder = MODELS / name
    assert sum(path.stat().st_size for path in folder.iterdir()) < 4_000_000
    card = json.loads((folder / "model.json").read_text())
    assert {"sha256", "spec", "data", "limits", "trained"} <= set(card)
    assert card["data"]["licence"]
    assert not set(card["data"]["train"]) & set(card["data"]["test"])
    load_model(name)


def test_the_model_that_ships_follows_a_wish_on_a_pelvis_it_has_not_seen():
    from radplan.autoplan.cohort.generate import GENERATORS, draw

    pelvis, _ = draw(GENERATORS.get("pelvis")(spacing=8.0), 99, 0)
    planner = load_dvh_planner("pelvis-dvh")
    assert planner.fractions == 20  # the cohort's, 60 Gy in 20
    grid = planner.fitting(pelvis.ct.grid)
    means = []
    for change in (-20, 20):
        result = planner.steer(pelvis, [Wish.parse(f"rectum:mean={change}%")], grid)
        means.append(result.mean(result.reached, "Rectum"))
        assert result.mean(result.reached, "PTV") == pytest.approx(planner.level, rel=0.01)
    assert means[0] < 0.9 * means[1]
