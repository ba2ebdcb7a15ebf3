"""A small synthetic problem: 60 voxels, 12 weights, three structures, up to three scenarios."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.geometry.grid import Grid
from radplan.influence import Dij, Scenarios

GRID = Grid((3, 4, 5), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
TARGET, ORGAN, BODY = np.arange(0, 18), np.arange(18, 30), np.arange(30, 60)
MEMBERS = {"target": (TARGET, None), "organ": (ORGAN, None), "body": (BODY, None)}


def matrices(scenarios: int = 1, columns: int = 12) -> list[np.ndarray]:
    rng = np.random.default_rng(11)
    nominal = rng.random((60, columns)) * (rng.random((60, columns)) < 0.7)
    nominal[ORGAN] *= 0.6
    return [nominal * (1.0 + 0.15 * k * rng.standard_normal((60, columns))).clip(0.1) for k in range(scenarios)]


def make_dij(device: str = "numpy", dtype: str = "float64", scenarios: int = 1, **kwargs) -> Dij:
    names = ("nominal", "near", "far")[:scenarios]
    chances = {1: (1.0,), 2: (0.6, 0.4), 3: (0.5, 0.3, 0.2)}[scenarios]
    return Dij.from_matrices(
        {"physical_dose": matrices(scenarios)},
        GRID,
        scenarios=Scenarios(names, chances),
        voxel_parameters={"alpha_x": np.full(60, 0.1), "beta_x": np.full(60, 0.05), "rbe": np.ones(60)},
        device=device,
        dtype=dtype,
        **kwargs,
    )


@pytest.fixture
def dij() -> Dij:
    return make_dij()
