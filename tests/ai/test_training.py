"""Networks and their training: what they calculate, that loss falls, that a stopped training goes on unchanged."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from radplan.ai.data import OPENKBP_LAYOUT, sample_of
from radplan.errors import CalculationError, FileError, InputError, UnknownNameError
from radplan.io.openkbp import DOSE_MASK
from tests.ai.small_patients import halved_case, small_case

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from radplan.ai import checkpoint, losses  # noqa: E402
from radplan.ai.channels import network_channels  # noqa: E402
from radplan.ai.features import Anatomy  # noqa: E402
from radplan.ai.fit import fitted_trees  # noqa: E402
from radplan.ai.loop import Training  # noqa: E402
from radplan.ai.nets.blocks import InstanceNorm  # noqa: E402
from radplan.ai.nets.resunet import DoseNet  # noqa: E402
from radplan.ai.proposer import load_proposer, openkbp_scores, save_proposer  # noqa: E402
from radplan.ai.spec import TrainSpec, read_spec, shipped_specs  # noqa: E402
from radplan.ai.train import DoseTask, dose_net  # noqa: E402


@pytest.fixture(scope="module")
def samples():
    return [sample_of(small_case(s), OPENKBP_LAYOUT) for s in range(3)] + [
        sample_of(halved_case(small_case(7)), OPENKBP_LAYOUT)
    ]


def _spec(steps=12, **changed):
    data = {
        "name": "tiny",
        "data": {"train": ["*"], "choose": ["*"]},
        "network": {"widths": [8, 8], "pool": 2, "head": [16]},
        "optimiser": {"rate": 0.01, "warmup": 2, "mean": 0.5},
        "budget": {"steps": steps},
        "interval": 1.0,
    }
    return TrainSpec.model_validate(data | changed)


def _training(spec, samples, folder, tell=None):
    choose = [sample for sample in samples if np.isfinite(sample.dose).all()][:1]
    return Training(spec, DoseTask(spec, OPENKBP_LAYOUT, samples, choose), folder, tell)


def test_channels_leave_torch_its_threads():
    case = small_case(1)
    anatomy = Anatomy.from_patient(case.patient, OPENKBP_LAYOUT.structures, DOSE_MASK)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        network_channels(anatomy, OPENKBP_LAYOUT)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_norm_is_instance_normalisation_and_keeps_the_order_of_memory():
    norm = InstanceNorm(4, affine=True)
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(1, 4, 5, 6, 7, generator=torch.manual_seed(0)).contiguous(memory_format=torch.channels_last_3d)
    wanted = torch.nn.functional.instance_norm(x, weight=norm.weight, bias=norm.bias)
    torch.testing.assert_close(norm(x), wanted, rtol=1e-5, atol=1e-6)
    assert norm(x).is_contiguous(memory_format=torch.channels_last_3d)
    two = torch.cat([x, 2 * x + 1])
    torch.testing.assert_close(norm(two)[:1], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("pool", [1, 2, 4])
def test_dose_of_some_voxels_is_that_of_all(pool):
    torch.manual_seed(1)
    net = DoseNet(3, (4, 8), pool, (8,)).eval()
    shape = (5, 7, 9)
    voxels = torch.arange(0, 315, 2)
    channels = torch.randn(3, voxels.numel())
    with torch.no_grad():
        every = net(channels, voxels, shape, torch.arange(voxels.numel()))
        some = net(channels, voxels, shape, torch.tensor([3, 50, 120]))
    assert (every > 0).all()
    torch.testing.assert_close(some, every[[3, 50, 120]])


def test_the_network_sees_neighbours_and_the_perceptron_its_own_voxel():
    torch.manual_seed(1)
    net = DoseNet(2, (4, 4), 2, (8,)).eval()
    voxels, shape = torch.arange(8 * 8 * 8), (8, 8, 8)
    channels = torch.zeros(2, 512)
    with torch.no_grad():
        before = net(channels, voxels, shape, voxels)
        channels[0, 0] = 5.0
        change = (net(channels, voxels, shape, voxels) - before).abs()
    assert change[0] > 0
    assert change[9] > 0


def test_dvh_loss_by_hand():
    predicted = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 0.0])
    planned = torch.tensor([2.0, 1.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 0.0])
    members = torch.tensor([1] * 9 + [2])
    groups = losses.groups_of(members, 2)
    assert [group.numel() for group in groups] == [9, 0]
    # sorted, only the hottest of nine differs, by 1; D99 and D95 (ranks 0, 0) agree, D1 (rank 8) differs by 1
    assert float(losses.dvh_loss(predicted, planned, groups, 1)) == pytest.approx(1 / 9 + 1 / 3)
    # as an organ: hottest but one agrees, means differ by 1/9
    assert float(losses.dvh_loss(predicted, planned, groups, 0)) == pytest.approx(1 / 9 + 0.5 / 9)
    assert float(losses.dvh_loss(predicted, planned, [groups[1]], 0)) == 0.0


def test_pooled_values_are_means_of_children():
    values = torch.tensor([1.0, 3.0, 10.0])
    assert losses.pooled(values, torch.tensor([0, 0, 1]), 2).tolist() == [2.0, 10.0]


def test_loss_falls_and_the_state_chosen_is_the_best(samples, tmp_path):
    lines = []
    trainer = _training(_spec(30), samples, tmp_path, lines.append)
    first = trainer.task.score(samples[:1], trainer.trained(), "cpu")[0].dose
    best = trainer.run()
    assert best["dose_score"] < 0.6 * first
    assert lines[-1]["event"] == "look"
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == lines


@pytest.mark.parametrize("voxels", [None, 300])
def test_a_stopped_training_goes_on_as_if_nothing_had_happened(samples, tmp_path, voxels):
    spec = _spec(12, voxels=voxels)
    whole = _training(spec, samples, tmp_path / "whole")
    whole.run()
    _training(spec, samples, tmp_path / "cut").run(until=7)
    again = _training(spec, samples, tmp_path / "cut")
    assert again.step == 7
    again.run()
    for key, value in whole.net.state_dict().items():
        torch.testing.assert_close(again.net.state_dict()[key], value, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(again.mean[key], whole.mean[key], rtol=1e-6, atol=1e-6)


_TRAINING = """
import sys
from radplan.ai.data import OPENKBP_LAYOUT, sample_of
from radplan.ai.spec import TrainSpec
from radplan.ai.loop import Training
from radplan.ai.train import DoseTask
from tests.ai.small_patients import small_case
samples = [sample_of(small_case(seed), OPENKBP_LAYOUT) for seed in range(3)]
spec = TrainSpec.model_validate_json(sys.argv[2])
def tell(line):
    print(line["event"], flush=True)
Training(spec, DoseTask(spec, OPENKBP_LAYOUT, samples, samples[:1]), sys.argv[1], tell).run()
print("done", flush=True)
"""


def _started(folder, spec):
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", _TRAINING, str(folder), spec.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=root)


def test_a_killed_training_goes_on_as_if_nothing_had_happened(tmp_path):
    spec = _spec(30, interval=0.1)
    with _started(tmp_path / "whole", spec) as whole:
        assert whole.communicate()[0].splitlines()[-1] == "done"
    with _started(tmp_path / "cut", spec) as cut:
        looks = 0
        while looks < 4:
            looks += cut.stdout.readline().startswith("look")
        time.sleep(float(np.random.default_rng().uniform(0, 0.1)))
        cut.kill()
    reached = checkpoint.last_checkpoint(tmp_path / "cut").name
    assert reached < "step-00000030"
    with _started(tmp_path / "cut", spec) as again:
        assert again.communicate()[0].splitlines()[-1] == "done"
    ends = [
        checkpoint.read_checkpoint(tmp_path / name / "step-00000030", ("weights", "mean"))[0]
        for name in ("whole", "cut")
    ]
    for group in ("weights", "mean"):
        for key, value in ends[0][group].items():
            torch.testing.assert_close(ends[1][group][key], value, rtol=1e-6, atol=1e-6)


def test_a_checkpoint_of_another_specification_is_refused(samples, tmp_path):
    _training(_spec(2), samples, tmp_path).run()
    with pytest.raises(InputError, match="another specification"):
        _training(_spec(3), samples, tmp_path)


def test_a_loss_that_is_no_number_names_the_patient(samples, tmp_path):
    from dataclasses import replace

    broken = replace(samples[0], dose=np.full_like(samples[0].dose, np.nan))
    with pytest.raises(CalculationError, match="patient small_0"):
        _training(_spec(3), [broken], tmp_path).run()


def test_a_training_begins_with_the_weights_of_another_model(samples, tmp_path):
    spec = _spec(4)
    net = dose_net(spec, OPENKBP_LAYOUT)
    first = save_proposer(tmp_path / "first", spec, OPENKBP_LAYOUT, net.state_dict(), {}, half=False)
    trainer = _training(_spec(4, start=str(first)), samples, tmp_path / "run")
    for key, value in net.state_dict().items():
        torch.testing.assert_close(trainer.net.state_dict()[key], value, rtol=0, atol=0)
    wider = _spec(4, start=str(first), network={"widths": [8, 16], "pool": 2, "head": [16]})
    with pytest.raises(InputError, match="do not fit"):
        _training(wider, samples, tmp_path / "wider")
    with pytest.raises(UnknownNameError, match="openkbp-small"):
        _training(_spec(4, start="openkbp-smal"), samples, tmp_path / "none")


def test_trees_beside_the_network_give_the_mean_of_both_doses(samples, tmp_path):
    spec = _spec(4, trees={"share": 0.25, "iterations": 5, "leaves": 7, "voxels": 200})
    trees = fitted_trees(spec, samples)
    assert trees.roots.size == 5
    assert fitted_trees(_spec(4), samples) is None
    facts = {"spacing": {"low": [3.5, 3.5, 1.5], "high": [5.5, 5.5, 3.5]}}
    weights = dose_net(spec, OPENKBP_LAYOUT).state_dict()
    both = save_proposer(tmp_path / "both", spec, OPENKBP_LAYOUT, weights, facts, trees=trees)
    alone = save_proposer(tmp_path / "alone", _spec(4), OPENKBP_LAYOUT, weights, facts)
    anatomy = Anatomy.from_patient(small_case(5).patient, OPENKBP_LAYOUT.structures, DOSE_MASK)
    wanted = 0.75 * load_proposer(alone).propose(anatomy) + 0.25 * trees.propose(anatomy)
    np.testing.assert_allclose(load_proposer(both).propose(anatomy), wanted, rtol=1e-4, atol=1e-3)
    trees.save(both / "trees.npz")
    with (both / "trees.npz").open("ab") as stream:
        stream.write(b"more")
    with pytest.raises(FileError, match="sha256"):
        load_proposer(both)
    (both / "trees.npz").unlink()
    with pytest.raises(FileError, match="cannot be read"):
        load_proposer(both)


def test_half_written_checkpoints_are_not_taken_for_whole_ones(tmp_path):
    tensors = {"weights": {"a": torch.ones(2)}}
    checkpoint.save_checkpoint(tmp_path, 3, tensors, {"x": 1})
    (tmp_path / ".draft-1").mkdir()
    (tmp_path / ".draft-1" / "weights.safetensors").write_bytes(b"half")
    assert checkpoint.last_checkpoint(tmp_path).name == "step-00000003"
    checkpoint.save_checkpoint(tmp_path, 5, tensors, {"x": 2})
    assert sorted(p.name for p in tmp_path.glob("step-*")) == ["step-00000005"]
    read, state = checkpoint.read_checkpoint(checkpoint.last_checkpoint(tmp_path), ("weights",))
    assert read["weights"]["a"].tolist() == [1.0, 1.0]
    assert state == {"x": 2, "step": 5}


def test_weights_that_are_pickles_or_damaged_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FileError, match="pickle"):
        checkpoint.read_tensors(path)
    path.write_bytes(b"nonsense that is no file of tensors")
    with pytest.raises(FileError, match="safetensors"):
        checkpoint.read_tensors(path)


def _saved(folder, spec=None):
    spec = spec or _spec()
    facts = {"spacing": {"low": [3.5, 3.5, 1.5], "high": [5.5, 5.5, 3.5]}}
    torch.manual_seed(4)
    net = dose_net(spec, OPENKBP_LAYOUT)
    return save_proposer(folder, spec, OPENKBP_LAYOUT, net.state_dict(), facts), net


def test_a_saved_model_proposes_dose_where_dose_counts(tmp_path):
    model, _ = _saved(tmp_path / "model")
    proposer = load_proposer(model)
    case = small_case(5)
    dose, grid = proposer.predict(case.patient)
    inside = case.patient.structures["External"].mask()
    assert grid == case.patient.ct.grid
    assert dose[inside].min() > 0
    assert not dose[~inside].any()
    halved = grid.with_spacing((5.0, 5.0, 3.0))
    other, placed = proposer.predict(case.patient, halved)
    assert other.shape == placed.shape == halved.shape


def test_bad_models_and_patients_are_one_clear_error(tmp_path):
    model, _ = _saved(tmp_path / "model")
    with pytest.raises(InputError, match="trained on voxels of"):
        load_proposer(model).predict(small_case(5, spacing=(1.0, 1.0, 1.0)).patient)
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="no CUDA device"):
            load_proposer(model, "cuda")
    with pytest.raises(UnknownNameError, match="openkbp"):
        load_proposer("no-such-model")
    card = json.loads((model / "model.json").read_text())
    (model / "model.json").write_text(json.dumps(card | {"sha256": "0"}))
    with pytest.raises(FileError, match="sha256"):
        load_proposer(model)
    (model / "model.json").write_text(json.dumps(card | {"format": "other"}))
    with pytest.raises(FileError, match="format"):
        load_proposer(model)
    wider = card["spec"] | {"network": card["spec"]["network"] | {"widths": [8, 16]}}
    (model / "model.json").write_text(json.dumps(card | {"spec": wider}))
    with pytest.raises(InputError, match="do not fit"):
        load_proposer(model)


def test_specifications_say_what_is_wrong(tmp_path):
    assert {"openkbp-small", "openkbp-full"} <= set(shipped_specs())
    for name in shipped_specs():
        assert read_spec(name).name == name
    path = tmp_path / "spec.yaml"
    path.write_text("name: x\ndata: {train: [a], choose: [b]}\nnetwork: {widths: [8]}\nbudget: {}\n")
    with pytest.raises(FileError, match="at least one of steps"):
        read_spec(path)
    path.write_text("name: x\ndata: {train: [a], choose: [b]}\nnetwork: {widths: [8], wide: 1}\nbudget: {steps: 1}\n")
    with pytest.raises(FileError, match=r"network\.wide"):
        read_spec(path)
    with pytest.raises(UnknownNameError, match="openkbp-small"):
        read_spec("openkbp-smal")


def test_several_processes_take_no_single_device():
    with pytest.raises(ValueError, match="cuda:1 is one device for 2 processes"):
        _spec(4, device="cuda:1", processes=2)


def test_a_perfect_proposer_scores_zero(shared):
    from radplan.io.openkbp import read_openkbp

    path = shared("cases/openkbp/full/test/pt_248.npz")
    dose = read_openkbp(path).dose
    results, seconds = openkbp_scores(lambda anatomy: dose, [path])
    assert results[0].dose == 0.0
    assert set(results[0].dvh.values()) == {0.0}
    assert len(seconds) == 1


def test_the_model_that_ships_scores_what_its_card_says(shared):
    model = load_proposer("openkbp-small")
    path = shared("cases/openkbp/full/test/pt_248.npz")
    results, _ = openkbp_scores(model.propose, [path])
    # constant dose scores 20.8 Gy, the card's own mean over the test patients is near 3
    assert results[0].dose < 4.5
    assert np.mean(list(results[0].dvh.values())) < 4.0
