"""Every registered quantity and objective keeps its promises on every backend."""

from __future__ import annotations

import pytest

from radplan import testing
from radplan.engines import ENGINES
from radplan.optim.objectives import OBJECTIVES
from radplan.optim.solvers import SOLVERS
from radplan.quantities import QUANTITIES


@pytest.mark.parametrize("name", QUANTITIES.names())
def test_quantity(name, device):
    testing.check_quantity(name, devices=[device])


@pytest.mark.parametrize("name", OBJECTIVES.names())
def test_objective(name, device):
    testing.check_objective(name, devices=[device])


@pytest.mark.parametrize("name", ENGINES.names())
def test_engine(name):
    testing.check_engine(name)


@pytest.mark.parametrize("name", SOLVERS.names())
def test_solver(name, device):
    testing.check_solver(name, devices=[device])


@pytest.mark.parametrize("registry", [QUANTITIES, OBJECTIVES, ENGINES, SOLVERS], ids=lambda registry: registry.kind)
def test_what_is_registered_is_final_and_documented(registry):
    for cls in registry:
        assert cls.__mro__[1] is registry.base, f"{cls.__name__} must derive from {registry.base.__name__} directly"
        assert cls.__dataclass_params__.frozen, f"{cls.__name__} must be a frozen dataclass"
        if cls.__module__.startswith("radplan."):
            assert "Source:" in cls.__doc__ or "matRad" in cls.__doc__, f"{cls.__name__} must name its source"
            assert ">>>" in cls.__doc__, f"{cls.__name__} must show a number"
