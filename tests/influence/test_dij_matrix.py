"""The matrix goes out as SciPy: the same products, on the host, from every device."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.arrays import to_numpy
from radplan.errors import InputError, UnknownNameError
from tests import small_case


def test_matrix_gives_the_dose_of_the_model(xp_device):
    dij = small_case.dij(xp_device.name)
    x = np.arange(1.0, 7.0)
    matrix = dij.matrix("physical_dose")
    assert matrix.shape == (len(dij.voxels), 6)
    dose = to_numpy(dij.forward(xp_device.asarray(x, "float64"), ["physical_dose"])["physical_dose"])[0]
    np.testing.assert_allclose(matrix @ x, dose, rtol=1e-5)


def test_names_and_scenarios_that_are_not_there():
    dij = small_case.dij()
    with pytest.raises(UnknownNameError, match="physical_dose"):
        dij.matrix("physical_doze")
    with pytest.raises(InputError, match="scenarios 0 to 0, got 1"):
        dij.matrix("physical_dose", scenario=1)
    part = dij.restrict(np.asarray(dij.voxels)[:5]).matrix("physical_dose")
    np.testing.assert_array_equal(part.toarray(), dij.matrix("physical_dose").toarray()[:5])
