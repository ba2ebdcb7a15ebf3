"""A particle machine: one table of dose, LET, spread and biology against depth for each of its energies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from math import inf
from typing import Any, Literal

import numpy as np

from radplan.arrays import Array
from radplan.errors import InputError
from radplan.machines.emittance import Emittance

RADIATIONS = ("protons", "helium", "carbon", "VHEE")
"""What a particle machine can deliver; VHEE (very high energy electrons) only as imported machines."""


def distal_depth(depth: Array, dose: Array, level: float = 0.8) -> float:
    """Return the depth behind the maximum where a depth dose falls to a level of it, linear between entries [mm].

    Parameters
    ----------
    depth : array of shape (d,)
        Increasing depths [mm].
    dose : array of shape (d,)
        Dose there, any unit.
    level : float
        Part of the maximum. A curve that does not fall so far gives its last depth.

    >>> distal_depth(np.asarray([0.0, 10.0, 12.0]), np.asarray([1.0, 5.0, 0.0]))
    10.4
    """
    top = int(np.argmax(dose))
    below = np.flatnonzero(dose[top:] < level * dose[top])
    if not below.size:
        return float(depth[-1])
    after = top + int(below[0])
    part = (dose[after - 1] - level * dose[top]) / (dose[after - 1] - dose[after])
    return float(depth[after - 1] + part * (depth[after] - depth[after - 1]))


@dataclass(frozen=True, eq=False)
class InitialFocus:
    """Width of a beam in air before it meets the patient, for each focus that the machine offers.

    Parameters
    ----------
    distance : array of shape (F, m)
        Distances from the virtual source, increasing along a row [mm]. The isocentre is at the machine's `sad`.
    sigma : array of shape (F, m)
        Standard deviation of the lateral profile there [mm].
    fwhm : array of shape (F,)
        Full width at half maximum at the isocentre [mm]; what a focus is chosen by.

    Raises
    ------
    InputError
        When shapes disagree, distances do not increase or a width is negative.

    >>> focus = InitialFocus(np.asarray([[9000.0, 11000.0]]), np.asarray([[4.0, 6.0]]), np.asarray([11.8]))
    >>> focus.sigma_at(np.asarray([9500.0, 20000.0])).tolist()
    [4.5, 6.0]
    """

    distance: Array
    sigma: Array
    fwhm: Array

    def __post_init__(self) -> None:
        if (
            self.distance.ndim != 2
            or self.sigma.shape != self.distance.shape
            or self.fwhm.shape != self.sigma.shape[:1]
        ):
            raise InputError(
                "initial focus: distance and sigma must have the same shape (foci, distances) and fwhm (foci,), got "
                f"{self.distance.shape}, {self.sigma.shape} and {self.fwhm.shape}"
            )
        if not (np.all(np.diff(self.distance, axis=1) > 0) and np.all(self.sigma >= 0)):
            raise InputError("initial focus: distances must increase and sigma must be >= 0")

    @property
    def count(self) -> int:
        """Number of foci F."""
        return int(self.fwhm.size)

    def sigma_at(self, distance: Array, focus: int = 0) -> Array:
        """Return the width [mm] at distances [mm] from the virtual source, linear and clamped."""
        return np.interp(distance, self.distance[focus], self.sigma[focus])


@dataclass(frozen=True, eq=False)
class EnergyLayer:
    r"""The beam of one energy, in water behind the nozzle and the air in front of the patient.

    The dose of N primaries at water-equivalent depth t and lateral distance r is

    :math:`D = 1.6022 \cdot 10^{-8} \, N \, Z(t) \, L(r, t)` [Gy], L in 1/mm^2 with the initial width added in
    quadrature: one Gaussian of `sigma`, or :math:`(1 - w) G(r; \sigma_1) + w G(r; \sigma_2)`. Tables are read at
    depth - `offset`, linearly; in front of the first entry they keep its value, behind the last the dose is zero.

    Parameters
    ----------
    energy : float
        Kinetic energy [MeV/u]; protons and electrons [MeV].
    depth : array of shape (d,)
        Increasing depths in water [mm].
    dose : array of shape (d,)
        Z, dose integrated over the lateral plane, per primary [MeV cm^2/g].
    peak, range80 : float
        Depth of the maximum and of the distal 80 % of it [mm].
    focus : InitialFocus
        Widths in air.
    offset : float
        Added to `depth` before it is compared with a patient's depth [mm].
    let : array of shape (d,), optional
        Dose-averaged LET (protons: of all protons; ions: of primaries and fragments) [keV/um].
    let_all : array of shape (d,), optional
        The same over all charged particles, target fragments included [keV/um].
    sigma : array of shape (d,), optional
        Single-Gaussian spread in water [mm].
    sigma1, sigma2, weight : array of shape (d,), optional
        Core and halo spread [mm] and share of the halo [1]: all three or none.
    sigma_x, sigma_y : array of shape (d,), optional
        Spread along the beam's-eye-view axes of beams that are not round [mm].
    alpha, beta : array of shape (tissues, d), optional
        LQ parameters [1/Gy, 1/Gy^2] of the mixed field, for the machine's `tissue_alpha_x`, `tissue_beta_x`.
    primary_dose, primary_let, primary_fluence : array of shape (d,), optional
        Of the protons that had no nuclear reaction: their part of `dose`, their dose-averaged LET [keV/um], and how
        many are left per primary.
    proton_dose, proton_fluence : array of shape (d,), optional
        Of all protons, secondary ones included: their part of `dose`, and the length of their tracks per depth.
    emittance : Emittance, optional
        Phase space in front of the patient; spots then need not be round, and drift on in the patient. In place of
        `focus`, which remains what spot spacings are judged by.
    mean_energy, energy_sigma : float
        Gaussian spectrum at the nozzle [MeV/u]; 0 where unknown (`mean_energy` then is `energy`).
    particles_per_mu, min_mu, max_mu : float
        Monitor calibration [1/MU] and the limits of one spot [MU].

    Raises
    ------
    InputError
        When shapes disagree, depths do not increase, or a value is negative or not finite.

    >>> still = InitialFocus(np.asarray([[0.0, 1.0]]), np.asarray([[3.0, 3.0]]), np.asarray([7.06]))
    >>> depth, dose, spread = (np.asarray(v) for v in ([0.0, 10.0, 12.0], [5.0, 20.0, 0.0], [0.0, 0.3, 0.4]))
    >>> layer = EnergyLayer(100.0, depth, dose, peak=10.0, range80=10.4, focus=still, sigma=spread)
    >>> layer.gaussians, layer.has_biology, layer.max_mu
    (('single',), False, inf)
    """

    energy: float
    depth: Array
    dose: Array
    peak: float
    range80: float
    focus: InitialFocus
    offset: float = 0.0
    let: Array | None = None
    let_all: Array | None = None
    sigma: Array | None = None
    sigma1: Array | None = None
    sigma2: Array | None = None
    weight: Array | None = None
    sigma_x: Array | None = None
    sigma_y: Array | None = None
    alpha: Array | None = None
    beta: Array | None = None
    primary_dose: Array | None = None
    primary_let: Array | None = None
    primary_fluence: Array | None = None
    proton_dose: Array | None = None
    proton_fluence: Array | None = None
    emittance: Emittance | None = None
    mean_energy: float = 0.0
    energy_sigma: float = 0.0
    particles_per_mu: float = 1e6
    min_mu: float = 0.0
    max_mu: float = inf

    def __post_init__(self) -> None:
        if not self.energy > 0:
            raise InputError(f"energy must be > 0 MeV/u, got {self.energy}")
        where = f"energy {self.energy:g} MeV/u"
        if self.depth.ndim != 1 or self.depth.size < 2 or not np.all(np.diff(self.depth) > 0):
            raise InputError(f"{where}: depth must be a row of at least two increasing values")
        for entry in fields(self):
            self._check_table(where, entry.name)
        self._check_complete(where)
        if not (self.particles_per_mu > 0 and 0 <= self.min_mu <= self.max_mu):
            raise InputError(
                f"{where}: needs particles_per_mu > 0 and 0 <= min_mu <= max_mu, got {self.particles_per_mu}, "
                f"{self.min_mu} and {self.max_mu}"
            )

    def _check_table(self, where: str, name: str) -> None:
        table = self.__dict__[name]
        if not isinstance(table, np.ndarray) or name == "depth":
            return
        if table.shape[-1:] != self.depth.shape or table.ndim != (2 if name in ("alpha", "beta") else 1):
            raise InputError(f"{where}: {name} must have one value for each of {self.depth.size} depths: {table.shape}")
        if not np.all(np.isfinite(table)) or np.any(table < 0):
            worst = float(np.min(table)) if np.all(np.isfinite(table)) else float("nan")
            raise InputError(f"{where}: {name} must be finite and >= 0, its worst value is {worst:g}")

    def _check_complete(self, where: str) -> None:
        for together in (
            ("sigma1", "sigma2", "weight"),
            ("sigma_x", "sigma_y"),
            ("alpha", "beta"),
            ("primary_dose", "primary_let", "primary_fluence"),
            ("proton_dose", "proton_fluence"),
        ):
            present = [name for name in together if self.__dict__[name] is not None]
            if present and len(present) != len(together):
                raise InputError(f"{where}: {', '.join(together)} belong together, got only {', '.join(present)}")
        if not self.gaussians:
            raise InputError(f"{where}: needs sigma, or sigma1, sigma2 and weight, or sigma_x and sigma_y")
        if self.weight is not None and np.any(self.weight > 1):
            raise InputError(f"{where}: weight of the halo must lie in [0, 1], got up to {float(self.weight.max()):g}")
        if self.alpha is not None and self.beta is not None and self.alpha.shape != self.beta.shape:
            raise InputError(f"{where}: alpha and beta must have one shape, got {self.alpha.shape}, {self.beta.shape}")

    @property
    def gaussians(self) -> tuple[str, ...]:
        """Lateral models that the tables allow: of ``"single"``, ``"double"`` and ``"elliptic"``."""
        models = (("single", self.sigma), ("double", self.sigma1), ("elliptic", self.sigma_x))
        return tuple(name for name, table in models if table is not None)

    @property
    def has_biology(self) -> bool:
        """Whether alpha and beta are tabulated."""
        return self.alpha is not None


@dataclass(frozen=True, eq=False)
class ParticleMachine:
    """Everything an engine and a planner need to know about a scanned particle beam.

    Parameters
    ----------
    name : str
        What users call it.
    radiation : str
        One of `RADIATIONS`.
    sad : float
        Distance from the virtual source to the isocentre [mm].
    nozzle_distance : float
        Distance from the beam monitor's exit to the isocentre [mm].
    layers : tuple of EnergyLayer
        One for each energy, energies increasing.
    fit_air_offset : float
        Air between nozzle and water [mm] that the tables include already.
    spot_width, spot_fwhm : array of shape (k,)
        Least focus width [mm] for spots that lie `spot_width` [mm] apart; linear and clamped. One entry of 0: any.
    tissue_alpha_x, tissue_beta_x : array of shape (tissues,)
        Photon LQ parameters of the tissues that alpha and beta are tabulated for [1/Gy, 1/Gy^2].
    provenance : mapping
        Where the numbers come from, what was tuned and what error to expect; plain data.
    virtual_sad : (float, float), optional
        Distances from the isocentre to the points from which spots are scanned along x and along y [mm]; `sad` for both
        when left out.
    cutoff_rule : "exact" or "matrad"
        How an engine finds the lateral cut-off when it is not told: see `radplan.engines.particle.cutoff.Cutoff`.

    Raises
    ------
    InputError
        When energies do not increase, layers disagree about tissues, or a value is out of its range.

    >>> still = InitialFocus(np.asarray([[0.0, 1.0]]), np.asarray([[3.0, 3.0]]), np.asarray([7.06]))
    >>> line = np.asarray([0.0, 10.0, 12.0])
    >>> layers = tuple(EnergyLayer(e, line, 5 + line, 12.0, 12.0, still, sigma=line / 50) for e in (100.0, 110.0))
    >>> machine = ParticleMachine("demo", "protons", 10000.0, 500.0, layers)
    >>> machine.energies.tolist(), machine.entry(1).energy, machine.energy_index(110.0), machine.focus_index(5.0, 0)
    ([100.0, 110.0], 110.0, 1, 0)
    """

    name: str
    radiation: str
    sad: float
    nozzle_distance: float
    layers: tuple[EnergyLayer, ...]
    fit_air_offset: float = 0.0
    spot_width: Array = field(default_factory=lambda: np.zeros(1))
    spot_fwhm: Array = field(default_factory=lambda: np.zeros(1))
    tissue_alpha_x: Array = field(default_factory=lambda: np.zeros(0))
    tissue_beta_x: Array = field(default_factory=lambda: np.zeros(0))
    provenance: Mapping[str, Any] = field(default_factory=dict)
    virtual_sad: tuple[float, float] | None = None
    cutoff_rule: Literal["exact", "matrad"] = "exact"

    def __repr__(self) -> str:
        low, high = min(self.energies), max(self.energies)
        return f"ParticleMachine({self.name!r}, {self.radiation} of {low:.0f} to {high:.0f} MeV/u, SAD {self.sad:g} mm)"

    def __post_init__(self) -> None:
        if self.cutoff_rule not in ("exact", "matrad"):
            raise InputError(f"machine {self.name!r}: cutoff_rule {self.cutoff_rule!r} is none of exact, matrad")
        if self.radiation not in RADIATIONS:
            raise InputError(f"machine {self.name!r}: radiation {self.radiation!r} is none of {', '.join(RADIATIONS)}")
        if not (self.sad > 0 and self.nozzle_distance >= 0 and np.isfinite(self.fit_air_offset)):
            raise InputError(
                f"machine {self.name!r}: sad must be > 0 mm, nozzle_distance >= 0 mm and fit_air_offset finite, got "
                f"{self.sad}, {self.nozzle_distance} and {self.fit_air_offset}"
            )
        if self.virtual_sad is not None and not all(distance > 0 for distance in self.virtual_sad):
            raise InputError(f"machine {self.name!r}: virtual_sad must be two distances > 0 mm, got {self.virtual_sad}")
        if not self.layers or not np.all(np.diff(self.energies) > 0):
            raise InputError(f"machine {self.name!r}: needs energy layers of increasing energy")
        if self.spot_width.shape != self.spot_fwhm.shape or not np.all(np.diff(self.spot_width) > 0):
            raise InputError(f"machine {self.name!r}: spot_fwhm needs one value for each increasing spot_width")
        if self.tissue_alpha_x.shape != self.tissue_beta_x.shape:
            raise InputError(f"machine {self.name!r}: tissue_alpha_x and tissue_beta_x must have one shape")
        for layer in self.layers:
            tissues = 0 if layer.alpha is None else layer.alpha.shape[0]
            if tissues != self.tissue_alpha_x.size:
                raise InputError(
                    f"machine {self.name!r}: layer of {layer.energy:g} MeV/u tabulates alpha for {tissues} tissues, "
                    f"the machine names {self.tissue_alpha_x.size}"
                )

    @cached_property
    def energies(self) -> Array:
        """Energies of the layers, shape (E,) [MeV/u]."""
        return np.asarray([layer.energy for layer in self.layers], dtype=np.float64)

    @cached_property
    def peaks(self) -> Array:
        """Depths of the maxima, offset included, shape (E,) [mm]."""
        return np.asarray([layer.peak + layer.offset for layer in self.layers], dtype=np.float64)

    @property
    def scan_distances(self) -> tuple[float, float]:
        """Distances from the isocentre to the points from which spots are scanned along x and along y [mm]."""
        return (self.sad, self.sad) if self.virtual_sad is None else self.virtual_sad

    @property
    def has_let(self) -> bool:
        """Whether every layer tabulates LET."""
        return all(layer.let is not None for layer in self.layers)

    @property
    def has_let_details(self) -> bool:
        """Whether every layer tabulates LET of all charged particles, primaries, and dose and tracks of all protons."""
        needed = ("let_all", "primary_fluence", "proton_fluence")
        return all(layer.__dict__[name] is not None for layer in self.layers for name in needed)

    @property
    def has_biology(self) -> bool:
        """Whether every layer tabulates alpha and beta."""
        return all(layer.has_biology for layer in self.layers)

    @property
    def gaussians(self) -> tuple[str, ...]:
        """Lateral models that every layer allows."""
        return tuple(name for name in ("single", "double", "elliptic") if all(name in a.gaussians for a in self.layers))

    def entry(self, index: int) -> EnergyLayer:
        """Return the layer of an energy index."""
        return self.layers[index]

    def energy_index(self, energy: float) -> int:
        """Return the index of an energy [MeV/u], equal to 4 decimals as matRad compares them.

        Raises
        ------
        InputError
            When the machine has no such energy; names the nearest.
        """
        nearest = int(np.argmin(np.abs(self.energies - energy)))
        if not abs(float(self.energies[nearest]) - energy) < 1e-4:
            raise InputError(
                f"machine {self.name!r} has no energy {energy:g} MeV/u; the nearest is {self.energies[nearest]:.4f}"
            )
        return nearest

    def focus_index(self, width: float, energy_index: int) -> int:
        """Return the first focus that is wide enough for spots `width` [mm] apart.

        Raises
        ------
        InputError
            When the machine's foci are all too narrow for that spacing.
        """
        wanted = float(np.interp(width, self.spot_width, self.spot_fwhm))
        offered = self.layers[energy_index].focus.fwhm
        wide = np.flatnonzero(offered > wanted)
        if not wide.size:
            raise InputError(
                f"machine {self.name!r} offers foci up to {float(offered.max()):.1f} mm at "
                f"{self.energies[energy_index]:g} MeV/u, but spots {width:g} mm apart need {wanted:.1f} mm: "
                "place them closer"
            )
        return int(wide[0])
