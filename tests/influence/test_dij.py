"""The Dij: images per scenario, pullback, restriction, voxel parameters, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

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


DENSE = np.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0], [0.1, 0.1]])
LINE = Grid((1, 1, 4), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0))
KINDS = {
    "big-endian": lambda: DENSE.astype(">f8"),
    "big-endian single": lambda: DENSE.astype(">f4"),
    "half": lambda: DENSE.astype(np.float16),
    "long double": lambda: DENSE.astype(np.longdouble),
    "whole": lambda: (10 * DENSE).astype(np.int16),
    "column-major": lambda: np.asfortranarray(DENSE),
    "list": DENSE.tolist,
    "sparse": lambda: scipy.sparse.coo_matrix(DENSE),
    "one per scenario": lambda: [DENSE.tolist()],
    "tensor": lambda: pytest.importorskip("torch").tensor(DENSE, requires_grad=True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_matrices_of_any_kind_are_taken(kind):
    dij = Dij.from_matrices({"physical_dose": KINDS[kind]()}, LINE, dtype="float64")
    factor = 10.0 if kind == "whole" else 1.0
    expected = factor * DENSE @ np.asarray([1.0, 2.0])
    np.testing.assert_allclose(dij.forward(np.asarray([1.0, 2.0]))["physical_dose"][0], expected, rtol=1e-3)


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (DENSE * 1j, "a matrix must hold real numbers in rows and columns, got complex128"),
        (DENSE[0], "got float64 of shape"),
        (np.asarray([["a", "b"]] * 4), "got <U1 of shape"),
        ([], "got float64 of shape"),
    ],
)
def test_what_is_no_matrix_is_refused_in_a_sentence(matrix, message):
    with pytest.raises(InputError, match=message):
        Dij.from_matrices({"physical_dose": matrix}, LINE)


def test_sparse_tensors_are_refused_with_the_way_out():
    torch = pytest.importorskip("torch")
    with pytest.raises(InputError, match=r"a Tensor is no matrix that can be read .*tensor\.to_dense"):
        Dij.from_matrices({"physical_dose": torch.tensor(DENSE).to_sparse()}, LINE)
