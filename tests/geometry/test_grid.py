"""Grids that nobody can have meant are refused with what was asked for."""

from __future__ import annotations

import pytest

from radplan.errors import InputError
from radplan.geometry.grid import Grid

CT = Grid((61, 61, 61), (3.0, 3.0, 3.0), (-90.0, -90.0, -90.0))


@pytest.mark.parametrize("spacing", [1e-3, (1.0, 1.0, 1e-4)])
def test_too_many_voxels_are_refused_before_any_memory_is_taken(spacing):
    with pytest.raises(InputError, match=r"a grid of .* voxels .* choose a larger spacing, usual are 2 to 5 mm"):
        CT.with_spacing(spacing)


def test_one_voxel_is_no_dose_grid():
    with pytest.raises(InputError, match=r"leaves one voxel of a volume of \[180.0, 180.0, 180.0\] mm"):
        CT.with_spacing(400.0)
    assert CT.with_spacing((3.0, 3.0, 400.0)).shape == (1, 61, 61)
    assert Grid((1, 1, 1), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0)).with_spacing(5.0).size == 1
