"""Small synthetic forward models with every image, for checks that run over the registries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse

from radplan import testing
from radplan.geometry.grid import Grid
from radplan.influence import Dij, Scenarios

OWN_SEED = {
    "dirty_dose": 7, "let_all_dose": 8, "primary_dose": 9, "primary_let_dose": 10, "primary_fluence": 11,
    "proton_dose": 12, "proton_fluence": 13,
}  # fmt: skip
IMAGE_SCALE = {
    "physical_dose": 0.8, "let_dose": 0.9, "alpha_dose": 0.5, "sqrt_beta_dose": 0.4, "dirty_dose": 0.6,
    "let_all_dose": 0.9, "primary_dose": 0.7, "primary_let_dose": 0.8, "primary_fluence": 0.9,
    "proton_dose": 0.8, "proton_fluence": 0.9,
}  # fmt: skip
VOXELS, WEIGHTS = 9, 5


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "device" in metafunc.fixturenames:
        gpu = [pytest.mark.gpu]
        metafunc.parametrize(
            "device",
            [
                pytest.param(name, marks=gpu if "cu" in name else [], id=name.replace(":", "_"))
                for name in testing.available_devices()
            ],
        )


@pytest.fixture(scope="session")
def synthetic_model() -> Callable[..., Dij]:
    """Return a function that makes a model with two scenarios and random sparse matrices, the same on every device."""

    def made(device: str = "numpy", dtype: str = "float64", images: tuple[str, ...] = tuple(IMAGE_SCALE)) -> Dij:
        random = np.random.default_rng(20260101)
        matrices = {}
        for name, scale in IMAGE_SCALE.items():
            source = np.random.default_rng(OWN_SEED[name]) if name in OWN_SEED else random
            dense = [source.uniform(0.2, 1.0, (VOXELS, WEIGHTS)) * scale for _ in range(2)]
            for matrix in dense:
                matrix[source.uniform(size=matrix.shape) < 0.2] = 0.0
            if name in images:
                matrices[name] = [scipy.sparse.csr_matrix(matrix) for matrix in dense]
        return Dij.from_matrices(
            matrices,
            Grid((2, 2, 3), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0)),
            voxels=np.arange(1, VOXELS + 1),
            radiation="protons",
            scenarios=Scenarios(("nominal", "shifted"), (0.5, 0.5)),
            voxel_parameters={
                "alpha_x": random.uniform(0.3, 0.9, VOXELS),
                "beta_x": random.uniform(0.05, 0.3, (2, VOXELS)),
                "rbe": np.full(VOXELS, 1.1),
            },
            device=device,
            dtype=dtype,
        )

    return made
