"""Models and problems as torch functions: values, gradients against finite differences, devices, refusals."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from radplan.ai import as_torch
from radplan.arrays import as_device, to_numpy
from radplan.beams import ControlPoint, TreatmentField
from radplan.engines import ApertureOptions, PhotonPencilBeam, aperture_model, dose_influence
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.influence import Dij, Scenarios
from radplan.machines import library_machine
from radplan.machines.limits import MachineLimits
from radplan.machines.mlc import MLC
from radplan.optim import Goal, Problem, SquaredDeviation
from radplan.patient.phantoms import phantom
from tests import small_case

VOXELS, WEIGHTS = 12, 5
DEVICES = ["numpy", "torch:cpu", "array_api_strict"]


def random_dij(device="numpy", dtype="float64"):
    rng = np.random.default_rng(4)
    matrices = {name: [rng.random((VOXELS, WEIGHTS)) for _ in range(2)] for name in ("physical_dose", "let_dose")}
    grid, cases = Grid((2, 2, 3), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0)), Scenarios(("nominal", "far"), (0.5, 0.5))
    return Dij.from_matrices(matrices, grid, scenarios=cases, device=device, dtype=dtype)


def start(dtype=torch.float64, seed=2):
    return torch.tensor(np.random.default_rng(seed).random(WEIGHTS), dtype=dtype, requires_grad=True)


@pytest.mark.parametrize("device", DEVICES)
def test_gradients_of_a_dij(device):
    model = random_dij(device)
    assert torch.autograd.gradcheck(as_torch(model, "physical_dose"), (start(),))
    both = as_torch(model)
    assert torch.autograd.gradcheck(lambda x: tuple(both(x).values()), (start(),))
    assert torch.autograd.gradcheck(lambda x: both(x)["let_dose"], (start(),))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_those_of_the_model(device, dtype):
    model = random_dij(device, dtype)
    x = start(getattr(torch, dtype))
    found = as_torch(model)(x)
    expected = random_dij(dtype=dtype).forward(x.detach().numpy())
    assert list(found) == ["physical_dose", "let_dose"]
    for name, values in found.items():
        assert values.shape == (2, VOXELS)
        assert values.dtype == x.dtype
        np.testing.assert_allclose(values.detach(), expected[name], rtol=1e-5)
    (found["physical_dose"].sum() + 2.0 * found["let_dose"].sum()).backward()
    ones = np.ones((2, VOXELS))
    expected_slope = random_dij().pullback(x.detach().numpy(), {"physical_dose": ones, "let_dose": 2.0 * ones})
    np.testing.assert_allclose(x.grad, expected_slope, rtol=1e-5)
    assert x.grad.dtype == x.dtype


def test_a_batch_is_its_rows():
    layer = as_torch(random_dij(), "physical_dose")
    x = torch.stack([start(seed=1), start(seed=2), start(seed=3)]).detach().requires_grad_()
    dose = layer(x)
    assert dose.shape == (3, 2, VOXELS)
    (dose**2).sum().backward()
    for row, slope in zip(x.detach(), x.grad, strict=True):
        alone = row.clone().requires_grad_()
        (layer(alone) ** 2).sum().backward()
        np.testing.assert_allclose(slope, alone.grad)


def on_the_fly(device):
    return dose_influence(
        small_case.patient(), small_case.beams(), library_machine("generic_photon_6mv"), grid=15.0,
        engine=PhotonPencilBeam(), stored=False, device=device, dtype="float64",
    )  # fmt: skip


def apertures(device):
    collimator = MLC("test", np.asarray([-10.0, 0.0, 10.0]), 0.01, 0.2)
    limits = MachineLimits("test", "test", 25.0, 6.0, {"flat": 600.0}, (0.1, 20.0), (200.0, 150.0), 0.5)
    shapes = [np.asarray([[-8.0, 6.0], [-3.0, 9.0]]), np.asarray([[-4.0, 6.0], [-3.0, 13.0]])]
    points = tuple(
        ControlPoint(mu, 0.0, 10.0, 0.0, (0, 0, 0), (-30, 30), (-15, 15), leaves)
        for mu, leaves in zip((0.0, 50.0), shapes, strict=True)
    )
    field = TreatmentField("test", 1, points, 1000.0, collimator.boundaries)
    options = ApertureOptions(lateral_cutoff=20.0, margin=5.0)
    linac = library_machine("generic_photon_6mv")
    return aperture_model(phantom("box"), [field], linac, collimator, 30.0, options, device, "float64", limits=limits)


@pytest.mark.parametrize("made", [on_the_fly, apertures])
def test_gradients_of_models_that_calculate(made):
    model = made("numpy")
    values = np.broadcast_to(np.asarray(model.variables.start, dtype=np.float64), (model.variables.count,)).copy()
    x = torch.tensor(values, requires_grad=True)
    assert torch.autograd.gradcheck(as_torch(model), (x,), eps=1e-4, atol=1e-6, rtol=1e-5, fast_mode=True)
    dose = as_torch(model)(x)
    (dose**2).sum().backward()
    single = as_torch(model)(x.detach().float())
    assert single.dtype == torch.float32
    np.testing.assert_allclose(single, dose.detach(), rtol=1e-4, atol=1e-6)
    there = torch.tensor(values, requires_grad=True)
    (as_torch(made("torch:cpu"))(there) ** 2).sum().backward()
    np.testing.assert_allclose(there.grad, x.grad, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("device", DEVICES)
def test_a_problem_is_its_cost(device):
    members = {"all": (np.arange(VOXELS), None)}
    problem = Problem(random_dij(device), [Goal("all", SquaredDeviation(60.0), 3.0)], fractions=30, weights=members)
    layer = as_torch(problem)
    assert torch.autograd.gradcheck(layer, (start(),))
    x = start()
    cost = layer(x)
    (2.0 * cost).backward()
    value, slope = problem.value_and_gradient(problem.model.device.asarray(x.detach().numpy(), "float64"))
    assert cost.item() == pytest.approx(float(value))
    np.testing.assert_allclose(x.grad, 2.0 * to_numpy(slope))
    assert layer(torch.stack([x, x])).shape == (2,)


def test_a_layer_behind_a_network_learns():
    torch.manual_seed(1)
    layer = as_torch(random_dij(dtype="float32"), "physical_dose")
    network = torch.nn.Sequential(torch.nn.Linear(3, WEIGHTS), torch.nn.Softplus(), layer)
    assert "5 variables -> physical_dose" in repr(network)
    given, wanted = torch.ones(3), torch.ones(2, VOXELS)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = torch.mean((network(given) - wanted) ** 2)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_nothing_is_taken_that_does_not_fit():
    model = random_dij()
    layer = as_torch(model)
    with pytest.raises(InputError, match="wants a torch tensor, got ndarray"):
        layer(np.ones(WEIGHTS))
    with pytest.raises(InputError, match=r"float32 or float64, got torch\.int64"):
        layer(torch.ones(WEIGHTS, dtype=torch.int64))
    with pytest.raises(InputError, match=r"x must have shape \(5,\) or \(batch, 5\), got \(3,\)"):
        layer(torch.ones(3))
    with pytest.raises(InputError, match="empty batch"):
        layer(torch.ones(0, WEIGHTS))
    with pytest.raises(InputError, match=r"x is on meta, but the model is on 'numpy': take x\.to\('cpu'\)"):
        layer(torch.ones(WEIGHTS, device="meta"))
    with pytest.raises(UnknownNameError, match="no image named 'dose'"):
        as_torch(model, "dose")
    problem = Problem(model, [Goal("all", SquaredDeviation(1.0))], weights={"all": (np.arange(VOXELS), None)})
    with pytest.raises(InputError, match="a problem gives its cost"):
        as_torch(problem, "physical_dose")
    x = start()
    for loss in (layer(x)["let_dose"].sum(), as_torch(problem)(x)):
        with pytest.raises(InputError, match="no derivative of its own: do without create_graph=True"):
            torch.autograd.grad(loss, x, create_graph=True)


def test_images_without_a_gradient_cost_no_pullback(monkeypatch):
    model = random_dij()
    asked = []
    pullback = Dij.pullback
    monkeypatch.setattr(Dij, "pullback", lambda self, x, c: asked.append(list(c)) or pullback(self, x, c))
    as_torch(model)(start())["let_dose"].sum().backward()
    assert asked == [["let_dose"]]


def test_torch_is_imported_on_first_use_and_its_absence_named():
    code = (
        "import sys, numpy as np, radplan, radplan.ai; assert 'torch' not in sys.modules\n"
        "sys.modules['torch'] = None\n"
        "from radplan import Dij, Grid\n"
        "dij = Dij.from_matrices({'physical_dose': np.ones((1, 1))}, Grid((1, 1, 1), (1, 1, 1), (0, 0, 0)))\n"
        "try: radplan.ai.as_torch(dij)\n"
        "except radplan.RadplanError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "as_torch needs torch, which cannot be imported" in done.stdout
    assert "pip install 'radplan[torch]'" in done.stdout


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu():
    model = random_dij("torch:cuda")
    x = start().detach().cuda().requires_grad_()
    assert torch.autograd.gradcheck(as_torch(model, "physical_dose"), (x,))
    with pytest.raises(InputError, match="x is on cpu, but the model is on"):
        as_torch(model)(start())


def test_a_torch_target_without_a_number_has_the_one_its_tensors_have(monkeypatch):
    """Tensors put on "cuda" say "cuda:0", which torch holds to be another device."""
    made = SimpleNamespace(device=torch.device("cuda", 0))
    monkeypatch.setattr(torch, "empty", lambda *shape, device: made)
    assert as_device("torch:cuda").native == made.device


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_without_a_number_takes_tensors():
    assert as_torch(random_dij("torch:cuda"), "physical_dose")(start().cuda()).shape == (2, VOXELS)
