"""A particle machine's depth tables as the pencil-beam kernels read them: all energies of a beam one after another."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from radplan.arrays import Array
from radplan.biology.rbe import RadiationQuality, RBEModel
from radplan.engines.particle.cutoff import WIDTHS, Cutoff, Lateral
from radplan.engines.particle.tissues import Tissues, tissue_rows
from radplan.errors import InputError
from radplan.machines.particle import EnergyLayer, ParticleMachine

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GRAY = 1.6021766208e-2
"""Gy mm^2 per 10^6 particles of 1 MeV cm^2/g each."""

_REACH, _DOSE = 2, 3
"""Columns, as `radplan.kernels.spots` numbers them."""

LET_DETAILS = (
    "let_all_dose", "primary_dose", "primary_let_dose", "primary_fluence", "proton_dose", "proton_fluence",
)  # fmt: skip
"""Images that tell LET apart by particles, in the order of their columns."""

PER_MM = 2.0
"""Bins per mm from which a place in a table is looked for."""


@dataclass(frozen=True)
class Images:
    """The images that are calculated, dose first, and the table columns that their factors stand in.

    Parameters
    ----------
    names : tuple of str
        Names of the images.
    let_threshold : float
        LET above which dose is dirty [keV/um]; 0 where that is not asked.
    model : RBEModel, optional
        The model of ``alpha_dose`` and ``sqrt_beta_dose``, which come last when there is one.
    lateral : "single", "double" or "elliptic"
        The lateral model.

    >>> Images(("physical_dose", "let_dose"), 0.0, None, "single").factors(1).tolist()
    [[5]]
    """

    names: tuple[str, ...]
    let_threshold: float
    model: RBEModel | None
    lateral: Lateral

    @property
    def first(self) -> int:
        """The first column after those of depth, cut-off, dose and widths."""
        return _DOSE + 1 + len(WIDTHS[self.lateral])

    @property
    def with_let(self) -> bool:
        """Whether a column holds LET."""
        return "let_dose" in self.names or "dirty_dose" in self.names

    @property
    def with_details(self) -> bool:
        """Whether columns hold what tells LET apart by particles."""
        return LET_DETAILS[0] in self.names

    def factors(self, tissues: int) -> Ints:
        """Return the column of each image after the first for each tissue, shape (tissues, images - 1)."""
        column = {"let_dose": self.first, "dirty_dose": self.first}
        details = self.first + self.with_let
        column |= {name: details + place for place, name in enumerate(LET_DETAILS)}
        biology = details + len(LET_DETAILS) * self.with_details
        rows = [
            [column.get(name, biology + 2 * tissue + (name == "sqrt_beta_dose")) for name in self.names[1:]]
            for tissue in range(tissues)
        ]
        return np.asarray(rows, dtype=np.int64).reshape(tissues, len(self.names) - 1)

    def thresholds(self) -> Floats:
        """Return what a factor must exceed to count as 1, shape (images - 1,); 0 where factors multiply."""
        return np.asarray([self.let_threshold if name == "dirty_dose" else 0.0 for name in self.names[1:]])


@dataclass(frozen=True, eq=False)
class DepthTables:
    """Tables of the energies of a beam; see `radplan.kernels.spots`.

    Parameters
    ----------
    knots, table, starts, bins, bin_starts : arrays
        As the kernels take them.
    """

    knots: Floats
    table: npt.NDArray[np.float32]
    starts: Ints
    bins: npt.NDArray[np.int32]
    bin_starts: Ints

    @classmethod
    def of(
        cls,
        machine: ParticleMachine,
        energies: Ints,
        variances: Floats,
        cutoff: Cutoff,
        images: Images,
        tissues: Tissues,
    ) -> DepthTables:
        """Return the tables of energy indices ``(e,)`` with the largest initial variance of each [mm^2].

        Parameters
        ----------
        cutoff : Cutoff
            Where spots end; the share of the dose that is kept is made up to the whole.
        """
        rows = tissue_rows(machine, tissues) if images.model is not None and images.model.needs == "tables" else None
        layers = [machine.entry(int(index)) for index in energies]
        parts = [
            np.stack(_columns(layer, float(variance), cutoff, images, tissues, rows), axis=1)
            for layer, variance in zip(layers, variances, strict=True)
        ]
        starts = np.concatenate([[0], np.cumsum([layer.depth.size for layer in layers])]).astype(np.int64)
        bins = [_bins(layer.depth) + start for layer, start in zip(layers, starts, strict=False)]
        return cls(
            np.concatenate([layer.depth for layer in layers]).astype(np.float64),
            np.concatenate(parts).astype(np.float32),
            starts,
            np.concatenate(bins).astype(np.int32),
            np.concatenate([[0], np.cumsum([part.size for part in bins])])[:-1].astype(np.int64),
        )

    def largest_reach(self) -> Floats:
        """Return the square of the largest cut-off of each energy, shape (e,) [mm^2]."""
        return np.maximum.reduceat(self.table[:, _REACH], self.starts[:-1]).astype(np.float64)

    def envelope(self, shifts: Floats) -> Floats:
        """Return the largest cut-off [mm] of all energies between whole millimetres of radiological depth.

        Parameters
        ----------
        shifts : array of shape (e, 2)
            Least and largest of what is added to radiological depths before each table is read [mm].
        """
        ends = np.asarray([self.knots[end - 1] for end in self.starts[1:]])
        widest = np.zeros(max(1, math.ceil(float(np.max(ends - shifts[:, 0]))) + 2))
        for e, (least, largest) in enumerate(shifts):
            span = slice(self.starts[e], self.starts[e + 1])
            reach = np.sqrt(self.table[span, _REACH].astype(np.float64))
            before = np.maximum(np.floor(self.knots[span] - largest).astype(np.int64) - 1, 0)
            after = np.maximum(np.ceil(self.knots[span] - least).astype(np.int64) + 1, 0)
            first, larger = before[:-1], np.maximum(reach[:-1], reach[1:])
            for step in range(int(np.max(after[1:] - first)) + 1):
                places = first + step
                meets = (places <= after[1:]) & (places < widest.size)
                np.maximum.at(widest, places[meets], larger[meets])
            widest[: before[0]] = np.maximum(widest[: before[0]], reach[0])
        return np.asarray(widest * 1.0001)


def _columns(
    layer: EnergyLayer,
    variance: float,
    cutoff: Cutoff,
    images: Images,
    tissues: Tissues,
    rows: list[int | None] | None,
) -> list[Floats]:
    widths = [layer.__dict__[name] for name in WIDTHS[images.lateral]]
    steps = np.diff(layer.depth.astype(np.float32)).astype(np.float64)
    columns = [layer.depth, np.append(1.0 / steps, 0.0)]
    columns += [cutoff.squared(layer, images.lateral, variance), GRAY / cutoff.share * layer.dose, *widths]
    if images.with_let:
        columns.append(layer.let)
    if images.with_details:
        columns += _details(layer)
    if images.model is None:
        return columns
    for tissue in range(tissues.count):
        row = None if rows is None else rows[tissue]
        quality = RadiationQuality(layer.let) if rows is None else _tabulated(layer, row)
        alpha, beta = images.model.alpha_beta(quality, float(tissues.alpha_x[tissue]), float(tissues.beta_x[tissue]))
        for name, values in (("alpha", alpha), ("beta", beta)):
            if not np.all(np.isfinite(values)) or np.any(np.asarray(values) < 0.0):
                raise InputError(
                    f"the RBE model {images.model.name!r} gives {name} < 0 or not finite at {layer.energy:g} MeV/u for "
                    f"alpha_x {tissues.alpha_x[tissue]:g}, beta_x {tissues.beta_x[tissue]:g}"
                )
        columns += [np.broadcast_to(alpha, layer.depth.shape), np.broadcast_to(np.sqrt(beta), layer.depth.shape)]
    return columns


def _details(layer: EnergyLayer) -> list[Floats]:
    """Return what dose is multiplied by to get the images of `LET_DETAILS`; 0 where there is no dose."""
    assert layer.let_all is not None
    assert layer.primary_dose is not None
    assert layer.primary_let is not None
    assert layer.primary_fluence is not None
    assert layer.proton_dose is not None
    assert layer.proton_fluence is not None
    dose = np.where(layer.dose > 0.0, layer.dose, np.inf)
    primary = layer.primary_dose / dose
    fluences = [fluence / (GRAY * dose) for fluence in (layer.primary_fluence, layer.proton_fluence)]
    return [layer.let_all, primary, primary * layer.primary_let, fluences[0], layer.proton_dose / dose, fluences[1]]


def _tabulated(layer: EnergyLayer, row: int | None) -> RadiationQuality:
    if row is None or layer.alpha is None or layer.beta is None:
        nothing = np.zeros_like(layer.depth)
        return RadiationQuality(layer.let, nothing, nothing)
    return RadiationQuality(layer.let, layer.alpha[row], layer.beta[row])


def _bins(depth: Array) -> Ints:
    """Return, for depths in equal steps from a table's first, the row at or before them."""
    steps = int((depth[-1] - depth[0]) * PER_MM) + 2
    return np.asarray(np.searchsorted(depth, depth[0] + np.arange(steps) / PER_MM, side="right") - 1)
