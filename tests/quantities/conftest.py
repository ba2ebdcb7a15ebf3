"""A photon model of three voxels that is worked out by hand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from radplan.geometry.grid import Grid
from radplan.influence import Dij

DOSE = np.asarray([[1.0, 0.0], [0.5, 0.5], [0.0, 2.0]])


@pytest.fixture
def photons() -> Callable[..., Dij]:
    """Return a function that makes the model: alpha/beta 2 Gy, RBE 1, and what is given on top."""

    def made(images=None, device: str = "numpy", dtype: str = "float64", **parameters) -> Dij:
        return Dij.from_matrices(
            {"physical_dose": DOSE, **(images or {})},
            Grid((1, 1, 3), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)),
            voxel_parameters={"alpha_x": [0.1] * 3, "beta_x": [0.05] * 3, "rbe": [1.0] * 3, **parameters},
            device=device,
            dtype=dtype,
        )

    return made
