"""The Dij: images per scenario, pullback, restriction, voxel parameters, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from radplan import arrays
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.influence import Dij, ForwardModel, Scenarios, Variables

GRID = Grid((2, 3, 4), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
VOXELS = np.asarray([1, 5, 7, 20])


@pytest.fixture
def matrices(rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    return {name: [rng.random((4, 3)) for _ in range(2)] for name in ("physical_dose", "let_dose")}


def make(matrices: dict[str, list[np.ndarray]], device: str = "numpy") -> Dij:
    cases = Scenarios(("nominal", "shift"), (0.6, 0.4))
    return Dij.from_matrices(
        matrices,
        GRID,
        VOXELS,
        scenarios=cases,
        voxel_parameters={"alpha_x": np.arange(4.0)},
        device=device,
        dtype="float64",
        beam_index=np.asarray([0, 0, 1]),
    )


def test_is_a_forward_model_and_matches_dense_algebra(matrices, xp_device) -> None:
    dij = make(matrices, xp_device.name)
    assert isinstance(dij, ForwardModel)
    x = xp_device.asarray([1.0, 2.0, 3.0])
    got = dij.forward(x, ["let_dose"])
    assert set(got) == {"let_dose"}
    expected = np.stack([m @ [1.0, 2.0, 3.0] for m in matrices["let_dose"]])
    np.testing.assert_allclose(arrays.to_numpy(got["let_dose"]), expected, rtol=1e-12)
    c = np.asarray([[1.0, -1.0, 0.5, 2.0], [0.0, 3.0, 1.0, 1.0]])
    back = dij.pullback(x, {"let_dose": xp_device.asarray(c)})
    np.testing.assert_allclose(
        arrays.to_numpy(back), sum(m.T @ c[s] for s, m in enumerate(matrices["let_dose"])), rtol=1e-12
    )


def test_restrict_keeps_rows_and_parameters(matrices, xp_device) -> None:
    part = make(matrices, xp_device.name).restrict(np.asarray([5, 20]))
    x = xp_device.asarray([1.0, 2.0, 3.0])
    expected = (matrices["physical_dose"][1] @ [1.0, 2.0, 3.0])[[1, 3]]
    np.testing.assert_allclose(arrays.to_numpy(part.forward(x)["physical_dose"])[1], expected, rtol=1e-12)
    assert arrays.to_numpy(part.voxel_parameters["alpha_x"]).tolist() == [[1.0, 3.0]]
    with pytest.raises(InputError, match="not rows of this model"):
        part.restrict(np.asarray([1]))


def test_voxel_parameters_and_beams(matrices) -> None:
    dij = make(matrices).with_voxel_parameters(rbe=1.1)
    assert dij.voxel_parameters["rbe"].tolist() == [[1.1] * 4]
    with pytest.raises(InputError, match="'rbe' must have shape"):
        dij.with_voxel_parameters(rbe=np.ones(3))
    assert dij.beam_weights(np.asarray([1.0, 2.0, 3.0]), 0).tolist() == [1.0, 2.0, 0.0]
    with pytest.raises(InputError, match="no beam 7"):
        dij.beam_weights(np.ones(3), 7)


def test_refusals(matrices) -> None:
    dij = make(matrices)
    with pytest.raises(UnknownNameError, match="did you mean 'let_dose'"):
        dij.forward(np.ones(3), ["letdose"])
    with pytest.raises(InputError, match="sorted"):
        Dij.from_matrices({"physical_dose": np.ones((2, 1))}, GRID, [3, 1])
    with pytest.raises(InputError, match=r"shape \(3, 2\), expected \(24, 2\)"):
        Dij.from_matrices({"physical_dose": np.ones((3, 2))}, GRID)
    with pytest.raises(InputError, match="2 operators for 1 scenarios"):
        Dij.from_matrices({"physical_dose": [np.ones((24, 2))] * 2}, GRID)
    with pytest.raises(InputError, match="at least one variable"):
        Variables(0)
    with pytest.raises(InputError, match="sum to 1"):
        Scenarios(("a", "b"), (0.5, 0.6))


def test_variables_project_to_their_bounds(xp_device) -> None:
    x = xp_device.asarray([-1.0, 0.5, 9.0])
    assert arrays.to_numpy(Variables(3, lower=0.0, upper=np.asarray([1.0, 1.0, 2.0])).project(x)).tolist() == [
        0.0,
        0.5,
        2.0,
    ]
