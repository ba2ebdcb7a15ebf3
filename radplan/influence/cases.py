"""One forward model of several, one for each scenario: the same variables seen in every case."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from radplan.arrays import Array, Device, namespace, to_numpy
from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.influence.dij import Dij
from radplan.influence.joined import JoinedModel
from radplan.influence.model import ForwardModel
from radplan.influence.over import ModelOver
from radplan.influence.scenarios import Scenarios
from radplan.influence.variables import Variables


@dataclass(frozen=True, eq=False)
class CasesModel:
    """Several models of the same variables and voxels, one for each scenario; make it with `over_cases`.

    Parameters
    ----------
    models : tuple of ForwardModel
        One for each scenario, each of a single case, nominal first.
    scenarios : Scenarios
        Their names and probabilities.

    Raises
    ------
    InputError
        When models and scenarios do not agree in number, or models in grid, voxels, images or variables.
    """

    models: tuple[ForwardModel, ...]
    scenarios: Scenarios

    def __post_init__(self) -> None:
        check_alike(self.models, self.scenarios)

    @property
    def grid(self) -> Grid:
        """The dose grid."""
        return self.models[0].grid

    @property
    def voxels(self) -> Any:
        """Sorted flat indices into the grid ``(n,)``."""
        return self.models[0].voxels

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images it can give."""
        return self.models[0].images

    @property
    def radiation(self) -> str:
        """That of all models."""
        return self.models[0].radiation

    @property
    def linear(self) -> bool:
        """Whether images are linear in the variables: when those of all models are."""
        return all(model.linear for model in self.models)

    @property
    def variables(self) -> Variables:
        """Those of the nominal case."""
        return self.models[0].variables

    @property
    def voxel_parameters(self) -> Mapping[str, Array]:
        """Arrays ``(1 or scenarios, n)`` on the device."""
        return joined_parameters(self.models)

    @property
    def device(self) -> Device:
        """Where its arrays live."""
        return self.models[0].device

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(scenarios, voxels)`` each, at ``x (count,)``."""
        names = self.images if images is None else tuple(images)
        cases = [model.forward(x, names) for model in self.models]
        return {name: self.device.xp.concat([case[name] for case in cases]) for name in names}

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images, summed over the cases."""
        parts = [
            model.pullback(x, {name: values[row : row + 1, :] for name, values in cotangents.items()})
            for row, model in enumerate(self.models)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    def restrict(self, voxels: Array) -> CasesModel:
        """Return the model of some voxels only."""
        return replace(self, models=tuple(model.restrict(voxels) for model in self.models))

    def with_voxel_parameters(self, **parameters: Array) -> CasesModel:
        """Return the model with more voxel parameters, ``(n,)``, ``(1 or scenarios, n)`` or a number each."""
        cases = []
        for row, model in enumerate(self.models):
            own = {}
            for name, values in parameters.items():
                host = np.atleast_2d(to_numpy(values))
                own[name] = host[row : row + 1] if host.shape[0] == len(self.models) else host
            cases.append(model.with_voxel_parameters(**own))
        return replace(self, models=tuple(cases))


def over_cases(models: Sequence[ForwardModel], scenarios: Scenarios) -> ForwardModel:
    """Return one model of several, each of a single case: a `Dij` of those, a `CasesModel` of others.

    Parameters
    ----------
    models : sequence of ForwardModel
        One for each scenario, nominal first, all of the same variables, voxels and images: of moved beams, or of the
        phases of a CT on one dose grid.
    scenarios : Scenarios
        Names and probabilities.

    Raises
    ------
    InputError
        When they do not agree.

    >>> grid = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    >>> phases = [Dij.from_matrices({"physical_dose": np.asarray([[dose]])}, grid) for dose in (1.0, 2.0)]
    >>> both = over_cases(phases, Scenarios(("exhale", "inhale"), (0.5, 0.5)))
    >>> both.forward(np.asarray([3.0]))["physical_dose"].tolist()
    [[3.0], [6.0]]
    """
    check_alike(models, scenarios)
    linear = [model for model in models if isinstance(model, Dij)]
    if len(linear) != len(models):
        return CasesModel(tuple(models), scenarios)
    first = linear[0]
    return replace(
        first,
        operators={name: tuple(model.operators[name][0] for model in linear) for name in first.images},
        rows=replace(first.rows, scenarios=scenarios, voxel_parameters=joined_parameters(linear)),
    )


def model_of_case(model: ForwardModel, number: int) -> ForwardModel:
    """Return the model of one scenario by itself, counted from 0, of a `Dij`, a `CasesModel`, or models made of them.

    Raises
    ------
    InputError
        When there is no such scenario, or the model cannot be taken apart.
    """
    count = len(model.scenarios)
    if not 0 <= number < count:
        raise InputError(f"there is no scenario {number}; scenarios are numbered 0..{count - 1}")
    if count == 1:
        return model
    if isinstance(model, CasesModel):
        return model.models[number]
    if isinstance(model, JoinedModel):
        return replace(model, models=tuple(model_of_case(part, number) for part in model.models))
    if isinstance(model, ModelOver):
        return replace(model, model=model_of_case(model.model, number))
    if not isinstance(model, Dij):
        raise InputError(f"scenarios of a {type(model).__name__} cannot be looked at one by one: make a model of each")
    parameters = {
        name: values if values.shape[0] == 1 else values[number : number + 1, :]
        for name, values in model.voxel_parameters.items()
    }
    return replace(
        model,
        operators={name: operators[number : number + 1] for name, operators in model.operators.items()},
        rows=replace(model.rows, scenarios=Scenarios.nominal(), voxel_parameters=parameters),
    )


def check_alike(models: Sequence[ForwardModel], scenarios: Scenarios) -> None:
    """Raise `InputError` unless each scenario has a model, and all have variables, voxels and images alike."""
    if len(models) != len(scenarios):
        raise InputError(f"{len(models)} models were given for {len(scenarios)} scenarios")
    first = models[0]
    for name, model in zip(scenarios.names, models, strict=True):
        if len(model.scenarios) != 1:
            raise InputError(f"the model of scenario {name!r} has {len(model.scenarios)} scenarios, expected one")
        if model.grid != first.grid or not np.array_equal(model.voxels, first.voxels):
            raise InputError(f"the model of scenario {name!r} lies on other voxels than the nominal one")
        if model.images != first.images:
            raise InputError(
                f"the model of scenario {name!r} gives {', '.join(model.images)}, the nominal one "
                f"{', '.join(first.images)}"
            )
        if model.variables.count != first.variables.count:
            raise InputError(
                f"the model of scenario {name!r} has {model.variables.count} variables, the nominal one "
                f"{first.variables.count}"
            )


def joined_parameters(models: Sequence[ForwardModel]) -> dict[str, Array]:
    """Return voxel parameters ``(1 or models, n)``: one row where all models have the same."""
    joined = {}
    for name, values in models[0].voxel_parameters.items():
        rows = [model.voxel_parameters[name] for model in models]
        same = all(row is values or np.array_equal(to_numpy(row), to_numpy(values)) for row in rows)
        joined[name] = values if same else namespace(values).concat(rows)
    return joined
