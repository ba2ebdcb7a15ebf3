"""The dose influence `Dij`: images as linear maps of weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from radplan import arrays
from radplan.arrays import Array, Device
from radplan.beams.beam import Beams
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.influence.model import RowsModel
from radplan.influence.rows import Rows
from radplan.influence.scenarios import Scenarios
from radplan.influence.variables import Variables
from radplan.operators import LinearOperator, SparseOperator, adjoint_sum, apply_all, restrict_all, share_places


@dataclass(frozen=True)
class Dij(RowsModel):
    """Dose influence: images as linear maps of the weights, ``d = D w``, one operator per image and scenario.

    Parameters
    ----------
    operators : mapping of str to tuple of LinearOperator
        Per image one operator ``(voxels, weights)`` for each scenario, all on one device. Dose in Gy per fraction
        and unit weight.
    rows : Rows
        Grid, voxels, scenarios, voxel parameters, device and dtype.
    radiation : str
        ``"photons"``, ``"protons"``, ``"helium"`` or ``"carbon"``.
    variables : Variables
        The weights.
    beam_index : array of shape (weights,), optional
        The number of the beam each weight belongs to.
    machine : str, optional
        Name of the machine it was calculated for.
    beams : Beams, optional
        The beams the weights belong to, where an engine knows them.
    settings : mapping
        How it was calculated, as the engine section of a plan file says it: name, options, stored.

    >>> dij = Dij.from_matrices({"physical_dose": np.asarray([[1.0, 2.0]])}, Grid((1, 1, 1), (1, 1, 1), (0, 0, 0)))
    >>> dij.forward(np.asarray([1.0, 1.0]))["physical_dose"].tolist()
    [[3.0]]
    """

    operators: Mapping[str, tuple[LinearOperator, ...]]
    rows: Rows
    radiation: str
    variables: Variables
    beam_index: Any = None
    machine: str | None = None
    beams: Beams | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    linear: ClassVar[bool] = True

    def __repr__(self) -> str:
        count = self.variables.count
        size = f"{self.rows.count} voxels x {count} weights"
        return f"Dij({', '.join(self.images)}: {size}, {self.radiation}, {self.device.name})"

    def __post_init__(self) -> None:
        object.__setattr__(self, "operators", dict(self.operators))
        if not self.operators:
            raise InputError("a Dij needs at least one image, such as 'physical_dose'")
        shape = (self.rows.count, self.variables.count)
        for name, ops in self.operators.items():
            if len(ops) != len(self.scenarios):
                raise InputError(f"image {name!r} has {len(ops)} operators for {len(self.scenarios)} scenarios")
            for op in ops:
                if op.shape != shape:
                    raise InputError(
                        f"image {name!r} has a matrix of shape {op.shape}, expected {shape}: rows are the voxels of "
                        "the model, columns its weights"
                    )
        if self.beam_index is not None and np.shape(self.beam_index) != (shape[1],):
            raise InputError(f"beam_index must have shape ({shape[1]},), got {np.shape(self.beam_index)}")

    @classmethod
    def from_matrices(
        cls,
        matrices: Mapping[str, Any],
        grid: Grid,
        voxels: Any = None,
        *,
        radiation: str = "photons",
        voxel_parameters: Mapping[str, Any] | None = None,
        scenarios: Scenarios | None = None,
        beam_index: Any = None,
        machine: str | None = None,
        device: str | Device = "numpy",
        dtype: str = "float32",
    ) -> Dij:
        """Return the Dij of imported matrices: SciPy sparse or dense, one per image, or a sequence of one per scenario.

        Parameters
        ----------
        matrices : mapping of str to matrix
            Image name to a matrix ``(len(voxels), weights)`` or a list of them, one per scenario.
        grid : Grid
            The dose grid.
        voxels : array of shape (n,), optional
            Flat grid indices of the rows; all voxels of the grid when left out.
        voxel_parameters : mapping of str to array, optional
            Values ``(n,)`` or ``(1 or scenarios, n)``; alpha_x, beta_x and rbe for biology.

        Raises
        ------
        InputError
            When shapes do not fit or values are not finite.
        """
        rows = Rows.of(grid, voxels, voxel_parameters, scenarios, device, dtype)
        made = {
            name: tuple(SparseOperator.from_scipy(m, rows.device, dtype) for m in _one_per_scenario(matrix))
            for name, matrix in matrices.items()
        }
        operators = _sharing_places(made, len(rows.scenarios))
        count = next(iter(operators.values()))[0].shape[1] if operators else 0
        return cls(operators, rows, radiation, Variables(count), beam_index=beam_index, machine=machine)

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images."""
        return tuple(self.operators)

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(scenarios, voxels)`` each, at weights ``x (count,)``."""
        xp = self.device.xp
        wanted = self.images if images is None else tuple(images)
        chosen = [self._operators_of(name) for name in wanted]
        products = [apply_all([ops[scenario] for ops in chosen], x) for scenario in range(len(self.scenarios))]
        return {name: xp.stack([one[place] for one in products]) for place, name in enumerate(wanted)}

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return ``sum of D' c`` over images and scenarios, ``(count,)``, in float64 where the device has it."""
        place = self.device
        wide = arrays.accumulator(x)
        total = place.xp.zeros(self.variables.count, dtype=wide, device=place.native)
        if not cotangents:
            return total
        chosen = [self._operators_of(name) for name in cotangents]
        for scenario in range(len(self.scenarios)):
            parts = [cotangent[scenario, :] for cotangent in cotangents.values()]
            total = total + place.xp.astype(adjoint_sum([ops[scenario] for ops in chosen], parts), wide)
        return total

    def matrix(self, image: str = "physical_dose", scenario: int = 0) -> Any:
        """Return the matrix of an image as a SciPy CSR array ``(voxels, variables)`` on the host, per fraction.

        Parameters
        ----------
        image : str
            Which image.
        scenario : int
            Which scenario.

        Raises
        ------
        UnknownNameError
            When there is no such image.
        InputError
            When there is no such scenario, or the matrix is not stored, as of a model on the fly.

        >>> from radplan.geometry.grid import Grid
        >>> grid = Grid((1, 1, 1), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))
        >>> dij = Dij.from_matrices({"physical_dose": np.asarray([[0.5, 0.0, 2.0]])}, grid)
        >>> dij.matrix("physical_dose").toarray().tolist()
        [[0.5, 0.0, 2.0]]
        """
        operators = self._operators_of(image)
        if not 0 <= scenario < len(operators):
            raise InputError(f"the model has scenarios 0 to {len(operators) - 1}, got {scenario}")
        operator = operators[scenario]
        if not isinstance(operator, SparseOperator):
            raise InputError(
                f"the matrix of {image!r} is not stored as such ({type(operator).__name__}): calculate it with "
                "stored=True, and take it before the model is restricted"
            )
        return operator.to_scipy()

    def restrict(self, voxels: Array) -> Dij:
        """Return the model of some voxels only: sorted flat indices into the grid, each one a row of this model."""
        places = self.rows.places(voxels)
        if places.size == self.rows.count:
            return self
        cases = range(len(self.scenarios))
        kept = [restrict_all([ops[scenario] for ops in self.operators.values()], places) for scenario in cases]
        operators = {name: tuple(case[number] for case in kept) for number, name in enumerate(self.operators)}
        return replace(self, operators=operators, rows=self.rows.restrict(voxels))

    def beam_weights(self, x: Array, beam: int) -> Array:
        """Return the weights with those of all other beams set to zero."""
        if self.beam_index is None:
            raise InputError("this Dij does not know which weight belongs to which beam; give it a beam_index")
        index = np.asarray(self.beam_index)
        if beam not in index:
            raise InputError(f"there is no beam {beam}; beams are numbered 0..{int(index.max())}")
        return x * arrays.like(index == beam, x)

    def _operators_of(self, name: str) -> tuple[LinearOperator, ...]:
        if name not in self.operators:
            raise UnknownNameError("image", name, self.operators)
        return self.operators[name]


def _sharing_places(
    operators: Mapping[str, tuple[LinearOperator, ...]], scenarios: int
) -> dict[str, tuple[LinearOperator, ...]]:
    """Return operators of which those of one scenario with entries in the same places share them."""
    if any(len(ops) != scenarios for ops in operators.values()):
        return dict(operators)
    cases = [share_places([ops[scenario] for ops in operators.values()]) for scenario in range(scenarios)]
    return {name: tuple(case[place] for case in cases) for place, name in enumerate(operators)}


def _one_per_scenario(matrix: Any) -> Sequence[Any]:
    """Return one matrix per scenario; nested lists of numbers are one matrix."""
    several = isinstance(matrix, list | tuple) and len(matrix) > 0 and all(np.ndim(entry) == 2 for entry in matrix)
    return matrix if several else (matrix,)
