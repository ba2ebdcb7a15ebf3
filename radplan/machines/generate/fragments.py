r"""Depth dose, LET, mixed field and halo of helium and carbon: primaries and the fragments they break into.

A reaction of an ion sets fragments free that go on at nearly its velocity and, in their turn, break into lighter
ones. Each species is followed along the beam on an even depth axis, from the heaviest to the lightest, by its own
range table; transverse momenta of the break-up make the lateral halo.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from radplan.arrays import Array
from radplan.machines.generate.depth_dose import primaries
from radplan.machines.generate.nuclear import survival
from radplan.machines.generate.stopping import ATOMIC_MASS, SPECIES, range_table

ORDER = ("boron", "beryllium", "lithium", "helium", "helium3", "triton", "deuteron", "proton")
"""Fragments, from the heaviest to the lightest."""

YIELDS = {
    "carbon": {
        "boron": 0.22,
        "beryllium": 0.08,
        "lithium": 0.10,
        "helium": 1.0,
        "helium3": 0.10,
        "proton": 0.65,
        "deuteron": 0.45,
        "triton": 0.20,
    },
    "boron": {"beryllium": 0.15, "lithium": 0.15, "helium": 0.9, "proton": 0.6, "deuteron": 0.4, "triton": 0.2},
    "beryllium": {"lithium": 0.2, "helium": 1.1, "proton": 0.5, "deuteron": 0.3, "triton": 0.2},
    "lithium": {"helium": 0.8, "proton": 0.5, "deuteron": 0.4, "triton": 0.2},
    "helium": {"proton": 0.65, "deuteron": 0.45, "triton": 0.30, "helium3": 0.35},
    "helium3": {"proton": 1.2, "deuteron": 0.4},
    "triton": {"proton": 0.5, "deuteron": 0.4},
    "deuteron": {"proton": 0.9},
    "proton": {},
}
"""Mean number of each fragment per reaction, of the order of Haettner 2013, Golovchenko 2002 and Rovituso 2017."""

_SLOWER = {"proton": 0.80, "deuteron": 0.90, "triton": 0.93, "helium3": 0.97, "helium": 0.98}
"""Energy per nucleon of a fragment over that of what broke; 1 for the heavier ones."""
_SPREAD = ((0.86, 0.15), (0.95, 0.35), (1.03, 0.35), (1.10, 0.15))
"""Factors of that energy and their probabilities."""
_GOLDHABER = 221.0 / np.sqrt(5)
"""Momentum width of one nucleon in a light nucleus [MeV/c], from its Fermi momentum (Moniz 1971: 221 MeV/c)."""
_STEP = 1.0


@dataclass(frozen=True, eq=False)
class IonCurve:
    """An ion beam in water, at depths of shape (n,).

    Parameters
    ----------
    dose : array of shape (n,)
        Energy deposited per primary [MeV/mm].
    let, let_all : array of shape (n,)
        Dose-averaged LET of primaries and fragments; with target recoils [keV/um].
    weighted : array of shape (k, n)
        Dose averages of the k functions of species and energy that were asked for.
    light_share : array of shape (n,)
        Part of the dose that comes from hydrogen and helium fragments [1].
    light_spread : array of shape (n,)
        Their lateral standard deviation from the break-up [mm].
    primary_let : array of shape (n,)
        Dose-averaged LET of the primaries alone [keV/um].
    """

    dose: Array
    let: Array
    let_all: Array
    weighted: Array
    light_share: Array
    light_spread: Array
    primary_let: Array


@dataclass
class _Tally:
    """What fragments leave on the even depth axis; filled species by species."""

    size: int
    functions: int
    dose: Array = field(init=False)
    let_dose: Array = field(init=False)
    weighted: Array = field(init=False)
    light: Array = field(init=False)
    light_square: Array = field(init=False)

    def __post_init__(self) -> None:
        self.dose, self.let_dose, self.light, self.light_square = (np.zeros(self.size) for _ in range(4))
        self.weighted = np.zeros((self.functions, self.size))


def emission_angle(fragment: str, projectile: str, energy: Array) -> Array:
    r"""Return the standard deviation of a fragment's projected angle, after Goldhaber [rad].

    :math:`\sigma_p = \sigma_0 \sqrt{A_F (A_P - A_F) / (A_P - 1)}` across the beam, over the fragment's momentum.

    Parameters
    ----------
    fragment, projectile : str
        Species.
    energy : array
        Energy of the fragment [MeV/u].

    Source: Goldhaber, Phys. Lett. B 53 (1974) 306.

    >>> round(float(emission_angle("helium", "carbon", np.asarray(270.0))), 3)  # three degrees
    0.056
    """
    inside, whole = SPECIES[fragment].nucleons, SPECIES[projectile].nucleons
    across = _GOLDHABER * np.sqrt(inside * max(whole - inside, 0) / (whole - 1))
    per_nucleon = np.sqrt(energy * (energy + 2 * ATOMIC_MASS))
    return across / (inside * per_nucleon)


@dataclass(frozen=True)
class IonModel:
    """The generator of helium and carbon beams.

    Parameters
    ----------
    projectile : "helium" or "carbon"
        The beam.
    recoil : float
        Energy that fragments of the target leave on the spot, per reaction [MeV].
    recoil_let : float
        Their LET [keV/um].

    >>> curve = IonModel("carbon", recoil=20.0).curve(np.asarray([0.0, 100.0, 200.0]), 145.0, 1.2)
    >>> [round(10 * float(d), 1) for d in curve.dose]  # entrance, plateau and the tail of fragments
    [134.9, 159.4, 30.4]
    """

    projectile: str
    recoil: float
    recoil_let: float = 20.0

    def curve(
        self, depth: Array, mean_range: float, sigma: float, functions: dict[str, Array] | None = None
    ) -> IonCurve:
        """Follow a beam.

        Parameters
        ----------
        depth : array of shape (n,)
            Depths [mm].
        mean_range, sigma : float
            Mean and standard deviation of the range spectrum [mm].
        functions : mapping of species to array of shape (k, nodes), optional
            Functions at the energies of the species' range tables, whose dose averages are wanted.
        """
        given = functions or {}
        count = next(iter(given.values())).shape[0] if given else 0
        beam = primaries(self.projectile, depth, mean_range, sigma, given.get(self.projectile))
        axis = np.arange(0.0, float(depth[-1]) + _STEP, _STEP)
        tally = _Tally(axis.size, count)
        source = np.interp(axis, depth, beam.reactions) * _STEP
        energy = np.interp(axis, depth, beam.reaction_energy)
        born = {name: (np.zeros(axis.size), np.zeros(axis.size)) for name in ORDER}
        _add(born, self.projectile, source, energy, slice(None))
        for name in ORDER:
            self._follow(name, axis, born, tally, given.get(name))
        fragments, light = np.interp(depth, axis, tally.dose), np.interp(depth, axis, tally.light)
        charged = beam.dose + fragments
        recoil = beam.reactions * self.recoil
        dose = charged + recoil
        let_dose = beam.let_dose + np.interp(depth, axis, tally.let_dose)
        mixed = beam.weighted + np.stack([np.interp(depth, axis, row) for row in tally.weighted] or [0 * dose])[:count]
        square = np.interp(depth, axis, tally.light_square) / np.maximum(light, 1e-300)
        return IonCurve(
            dose=dose,
            let=let_dose / np.maximum(charged, 1e-300),
            let_all=(let_dose + recoil * self.recoil_let) / np.maximum(dose, 1e-300),
            weighted=mixed / np.maximum(charged, 1e-300),
            light_share=light / np.maximum(dose, 1e-300),
            light_spread=np.sqrt(square),
            primary_let=beam.let_dose / np.maximum(beam.dose, 1e-300),
        )

    def _follow(
        self, name: str, axis: Array, born: dict[str, tuple[Array, Array]], tally: _Tally, functions: Array | None
    ) -> None:
        """Add what one species leaves behind, and what it breaks into, to the tallies."""
        number, energy_sum = born[name]
        cells = np.flatnonzero((number > 1e-9) & (energy_sum > number))
        if not cells.size:
            return
        energy = energy_sum[cells] / number[cells]
        table, alive = range_table(name), survival(name)
        distance = axis[None, :] - axis[cells, None]
        for factor, probability in _SPREAD:
            longest = table.range(energy * factor)[:, None]
            residual = np.where(distance >= 0, longest - distance, 0.0)
            row, column = np.nonzero(residual > 0)
            left, start = residual[row, column], longest[row, 0]
            end = np.maximum(left - _STEP, 1e-6)
            before, after = table.energy(left), table.energy(end)
            stopping = (before - after) * table.species.mass / np.maximum(left - end, 1e-9)
            alone = number[cells][row] * probability * alive.between(start, left)
            dose = alone * stopping * np.minimum(left / _STEP, 1.0)
            tally.dose += _sum(column, dose, axis.size)
            tally.let_dose += _sum(column, dose * np.maximum(stopping, table.stopping(after)), axis.size)
            if functions is not None:
                middle = np.maximum(0.5 * (before + after), 1e-2)
                for index, values in enumerate(functions):
                    share = dose * np.interp(middle, table.energies, values)
                    tally.weighted[index] += _sum(column, share, axis.size)
            if SPECIES[name].charge <= 2:
                angle = emission_angle(name, self.projectile, energy * factor)[row]
                tally.light += _sum(column, dose, axis.size)
                tally.light_square += _sum(column, dose * (angle * distance[row, column]) ** 2, axis.size)
            _add(born, name, alive.rate(before) * alone * _STEP, before, column)


def _sum(index: Array, values: Array, size: int) -> Array:
    return np.bincount(index, weights=values, minlength=size)


def _add(
    born: dict[str, tuple[Array, Array]], parent: str, reactions: Array, energy: Array, place: Array | slice
) -> None:
    """Set the fragments of a species' reactions free: numbers and number-weighted energies per depth cell."""
    for name, multiplicity in YIELDS[parent].items():
        number, energy_sum = born[name]
        given = reactions * multiplicity
        carried = given * energy * _SLOWER.get(name, 1.0)
        if isinstance(place, slice):
            number[place] += given
            energy_sum[place] += carried
        else:
            number += _sum(place, given, number.size)
            energy_sum += _sum(place, carried, number.size)
