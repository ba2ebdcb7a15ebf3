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


@pytest.mark.parametrize("conditioning", ["concat", "film", "both", "none"])
def test_networks_of_all_kinds_take_odd_sizes(conditioning):
    torch.manual_seed(0)
    net = DvhUNet(3, 8, width=4, conditioning=conditioning, levels=3).eval()
    anatomy = torch.randn(2, 3, 7, 9, 10)
    with torch.no_grad():
        first, other = net(anatomy, torch.zeros(2, 8)), net(anatomy, torch.ones(2, 8))
    assert tuple(first.shape) == (2, 1, 7, 9, 10)
    assert (first > 0).all()
    # concatenation acts from the start, FiLM is the identity until it is trained, and none never acts
    assert bool((first != other).any()) == (conditioning in ("concat", "both"))
    with pytest.raises(InputError, match="code has shape"):
        net(anatomy, torch.zeros(2, 9))


@pytest.mark.parametrize("conditioning", ["concat", "film"])
def test_a_network_learns_to_follow_the_code(conditioning):
    """Dose in an organ shall be what the code's first number says, elsewhere 1."""
    torch.manual_seed(0)
    net = DvhUNet(2, 4, width=4, conditioning=conditioning, levels=2, dropout=0.0)
    organ = torch.zeros(1, 1, 4, 6, 6)
    organ[..., 1:4, 1:4] = 1
    anatomy = torch.cat([organ, torch.ones_like(organ)], dim=1)
    optimiser = torch.optim.Adam(net.parameters(), 0.02)
    draw = torch.Generator().manual_seed(1)
    for _ in range(80):
        wish = torch.rand(1, generator=draw)
        code = torch.cat([wish, torch.zeros(3)])[None]
        loss = (net(anatomy, code) - torch.where(organ > 0, wish, torch.ones(1))).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        doses = [float(net(anatomy, torch.tensor([[wish, 0, 0, 0]]))[organ > 0].mean()) for wish in (0.2, 0.5, 0.8)]
    assert doses[0] < doses[1] < doses[2]
    assert doses[2] - doses[0] > 0.1
