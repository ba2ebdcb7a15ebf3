"""Machine parameters by a network: what it starts from, what it learns through, and the arc that a linac delivers."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import FileError, InputError

torch = pytest.importorskip("torch")
pytest.importorskip("lightning_fabric")

from radplan.ai.aperture_planner import (  # noqa: E402
    ApertureInputs,
    ApertureTask,
    load_aperture_planner,
)
from radplan.ai.arc_cohort import reference_arcs  # noqa: E402
from radplan.ai.fitting import fit  # noqa: E402
from radplan.ai.spec import ApertureSpec, read_spec  # noqa: E402
from radplan.delivery.check import check_delivery  # noqa: E402
from radplan.machines.limits import machine_limits  # noqa: E402

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
    return ApertureInputs.of(case, _spec(), LIMITS), dose


def test_an_untrained_network_opens_what_the_target_covers_at_the_prescribed_mean(planned):
    inputs, dose = planned
    net = ApertureTask(_spec(), LIMITS, [planned], [planned]).network()
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
    task = ApertureTask(_spec(), LIMITS, [planned], [planned])
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
    plan = planner.arc(planned[0], LIMITS)
    check_delivery(plan, LIMITS).raise_for_errors()
    assert plan.fields[0].points[-1].meterset > 0
    (model / "model.json").write_text("{}")
    with pytest.raises(FileError, match="format"):
        load_aperture_planner(model)


def test_control_points_must_be_even_and_the_spec_ships(folder, tmp_path):
    assert isinstance(read_spec("pelvis-apertures"), ApertureSpec)
    odd = _spec(arc={"control_points": 7, "pixels": 11, "pitch": 15.0, "grid": 16.0, "cutoff": 30.0})
    with pytest.raises(InputError, match="even"):
        fit(odd, folder, tmp_path)
