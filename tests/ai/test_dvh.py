"""Differentiable DVHs against exact ones and finite differences; wishes; the network they steer."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import InputError, UnknownNameError

torch = pytest.importorskip("torch")

from radplan.ai.dvh import DvhLayer, Wish, dvh_curve, dvh_levels  # noqa: E402
from radplan.ai.nets.dvh_unet import DvhUNet  # noqa: E402


def test_soft_curves_tend_to_the_exact_ones(rng):
    dose = rng.uniform(0, 1.1, 400)
    parts = np.stack([rng.random(400), (np.arange(400) < 100).astype(float), np.zeros(400)])
    levels = dvh_levels()
    layer = DvhLayer(torch.tensor(parts), levels, softness=1e-8)
    curves = layer(torch.tensor(dose)).numpy()
    for k in range(2):
        np.testing.assert_allclose(curves[k], dvh_curve(dose, parts[k] / parts[k].sum(), levels), atol=1e-6)
    assert not curves[2].any()
    batch = layer(torch.tensor(np.stack([dose, dose[::-1].copy()])))
    assert tuple(batch.shape) == (2, 3, 32)
    np.testing.assert_allclose(batch[0].numpy(), curves)


def test_the_gradient_is_that_of_finite_differences(rng):
    dose = torch.tensor(rng.uniform(0, 1, 30), requires_grad=True)
    layer = DvhLayer(torch.tensor(rng.random((2, 30))), dvh_levels(8), softness=0.05)
    weights = torch.tensor(rng.random((2, 8)))
    (layer(dose) * weights).sum().backward()
    step = 1e-5
    for i in range(30):
        ends = []
        for sign in (1, -1):
            moved = dose.detach().clone()
            moved[i] += sign * step
            ends.append(float((layer(moved) * weights).sum()))
        assert float(dose.grad[i]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-8)


def test_a_wish_scales_the_mean(rng):
    dose = rng.uniform(0.1, 0.8, 2000)
    shares = np.full(2000, 1 / 2000)
    levels = np.linspace(0, 1.1, 400)[1:]
    curves = {"rectum": dvh_curve(dose, shares, levels), "bladder": dvh_curve(0.5 * dose, shares, levels)}
    moved = Wish.parse(" rectum:mean=-20%").applied(curves, levels)
    np.testing.assert_allclose(moved["rectum"], dvh_curve(0.8 * dose, shares, levels), atol=0.01)
    np.testing.assert_array_equal(moved["bladder"], curves["bladder"])
    assert (np.diff(moved["rectum"]) <= 0).all()
    with pytest.raises(UnknownNameError, match="rectum"):
        Wish("rectu", -0.1).applied(curves, levels)
    for text in ("rectum", "rectum:mean=20", "rectum:D50=-20%", "rectum:mean=-100%"):
        with pytest.raises(InputError):
            Wish.parse(text)


def _anatomy(shape=(7, 9, 10), channels=3):
    voxels = torch.arange(0, shape[0] * shape[1] * shape[2], 2)
    return torch.randn(channels, voxels.numel()), voxels, shape


@pytest.mark.parametrize("conditioning", ["concat", "film", "both", "none"])
def test_networks_of_all_kinds_take_odd_sizes_and_many_codes(conditioning):
    torch.manual_seed(0)
    net = DvhUNet(3, 8, widths=(4, 8, 8), head=8, conditioning=conditioning).eval()
    channels, voxels, shape = _anatomy()
    wanted = torch.tensor([0, 5, 100])
    codes = torch.stack([torch.zeros(8), torch.ones(8)])
    with torch.no_grad():
        both = net(channels, voxels, shape, wanted, codes)
        alone = net(channels, voxels, shape, wanted, codes[1:])
    assert tuple(both.shape) == (2, 3)
    assert (both > 0).all()
    torch.testing.assert_close(both[1:], alone, rtol=1e-4, atol=1e-5)
    same = torch.allclose(both[0], both[1], rtol=1e-5)
    # concatenation acts from the start, FiLM is the identity until it is trained, and none never acts
    assert same == (conditioning in ("film", "none"))
    with pytest.raises(InputError, match="codes have shape"):
        net(channels, voxels, shape, wanted, torch.zeros(2, 9))


def test_a_network_with_a_first_guess_begins_there():
    net = DvhUNet(3, 8, widths=(4, 8), head=8, prior=1)
    channels, voxels, shape = _anatomy()
    with torch.no_grad():
        dose = net(channels, voxels, shape, torch.arange(voxels.numel()), torch.ones(1, 8))
    # the guess is at most the target's mean
    torch.testing.assert_close(dose[0], torch.nn.functional.softplus(4 * channels[1].clamp(max=1.0)) / 4)


def test_a_network_that_knows_the_distance_sees_the_edge_as_one_channel_more():
    torch.manual_seed(0)
    net = DvhUNet(3, 8, widths=(4, 8), head=8, distance=2).eval()
    other = DvhUNet(4, 8, widths=(4, 8), head=8).eval()
    other.load_state_dict(net.state_dict())
    channels, voxels, shape = _anatomy()
    edge = torch.tanh(channels[2:] * 50.0 / 4.0)  # distances are in 50 mm, the edge is 4 mm wide
    with torch.no_grad():
        seen = net(channels, voxels, shape, torch.arange(20), torch.ones(1, 8))
        told = other(torch.cat([channels, edge]), voxels, shape, torch.arange(20), torch.ones(1, 8))
    torch.testing.assert_close(seen, told)


def test_air_around_the_patient_changes_nothing():
    torch.manual_seed(0)
    net = DvhUNet(3, 8, widths=(4, 8), head=8).eval()
    channels, voxels, shape = _anatomy()
    z, y, x = (torch.as_tensor(part) for part in np.unravel_index(voxels.numpy(), shape))
    wider = (shape[0] + 5, shape[1] + 3, shape[2] + 9)
    moved = ((z + 2) * wider[1] + y + 1) * wider[2] + x + 4
    with torch.no_grad():
        near = net(channels, voxels, shape, torch.arange(40), torch.ones(1, 8))
        far = net(channels, moved, wider, torch.arange(40), torch.ones(1, 8))
    torch.testing.assert_close(far, near)


@pytest.mark.parametrize("conditioning", ["concat", "film"])
def test_a_network_learns_to_follow_the_code(conditioning):
    """Dose in an organ shall be 1 and half the code's first number, elsewhere 1."""
    torch.manual_seed(0)
    net = DvhUNet(2, 4, widths=(8, 8), pool=1, head=16, conditioning=conditioning)
    organ = torch.zeros(4, 6, 6)
    organ[:, 1:4, 1:4] = 1
    organ = organ.reshape(-1)
    voxels = torch.arange(organ.numel())
    channels = torch.stack([organ, torch.ones_like(organ)])
    optimiser = torch.optim.Adam(net.parameters(), 0.03)
    draw = torch.Generator().manual_seed(1)
    for _ in range(30):
        asked = 2 * torch.rand(6, 1, generator=draw) - 1
        codes = torch.cat([asked, torch.zeros(6, 3)], dim=1)
        loss = (
            (net(channels, voxels, (4, 6, 6), voxels, codes) - torch.where(organ > 0, 1 + asked / 2, 1.0)).abs().mean()
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        codes = torch.tensor([[level, 0, 0, 0] for level in (-0.8, 0.0, 0.8)])
        doses = net(channels, voxels, (4, 6, 6), voxels, codes)[:, organ > 0].mean(dim=1)
    assert doses[0] < doses[1] < doses[2]
    assert doses[2] - doses[0] > 0.1
