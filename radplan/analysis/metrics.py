r"""Plan metrics of one structure: dose at a volume, volume at a dose, homogeneity, conformity, gEUD.

Symbols: :math:`d_i` value of voxel i, :math:`w_i \ge 0` its share of the structure. Values are course totals in the
quantity's unit; structures are whole (no overlap). A voxel stands for a slice of the cumulative volume centred on
its own rank, so :math:`D_x` is piecewise linear between voxels, exact on a linear ramp and continuous in the dose.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from radplan.analysis.dvh import checked
from radplan.errors import InputError

_PATTERN = re.compile(r"(?P<kind>D|V|gEUD)\(?(?P<number>-?\d+(?:[._]\d+)?)\)?(?P<unit>%|cc|Gy)?")
TARGET_METRICS = ("Dmean", "Dmin", "Dmax", "D98", "D95", "D50", "D10", "D2", "HI")
"""What is told of a target unless something else is asked for."""
ORGAN_METRICS = ("Dmean", "Dmax", "D50", "D10", "D2", "D0.1cc")
"""What is told of every other structure."""
METRIC_FORMS = "Dmean, Dmin, Dmax, D<percent> (D95), D<volume>cc (D0.1cc), V<level>Gy (V20Gy), HI, gEUD(<a>)"


def dose_at_volume(values: ArrayLike, weights: ArrayLike | None, percent: float) -> float:
    r"""Smallest value in the hottest ``percent`` of the volume, :math:`D_{x\%}`.

    Parameters
    ----------
    values : array of shape (m,) [unit of the quantity]
        Voxel values.
    weights : array of shape (m,) or None
        Share of each voxel; equal when None.
    percent : float [%]
        0 gives the maximum, 100 the minimum.

    Source: ICRU Report 83 (2010).

    >>> dose_at_volume([10.0, 20.0, 30.0, 40.0], None, 50.0)
    25.0
    """
    if not 0 <= percent <= 100:
        raise InputError(f"D{percent:g}%: the volume must lie between 0 and 100 %")
    d, w = checked(values, weights)
    order = np.argsort(d, kind="stable")[::-1]
    share = w[order]
    return float(np.interp(percent / 100.0, np.cumsum(share) - share / 2, d[order]))


def dose_at_cc(values: ArrayLike, weights: ArrayLike | None, cc: float, volume: float) -> float:
    """Smallest value in the hottest ``cc`` cubic centimetres; a smaller structure gives its minimum.

    Parameters
    ----------
    values : array of shape (m,) [unit of the quantity]
        Voxel values.
    weights : array of shape (m,) or None
        Share of each voxel.
    cc : float [cm3]
        The hot volume.
    volume : float [cm3]
        Volume of the structure.

    >>> dose_at_cc([10.0, 20.0, 30.0, 40.0], None, cc=2.0, volume=4.0)
    25.0
    """
    if not (cc >= 0 and volume > 0):
        raise InputError(f"D{cc:g}cc of a structure of {volume:g} cm3: both must be positive")
    return dose_at_volume(values, weights, 100.0 * min(cc / volume, 1.0))


def volume_at_dose(values: ArrayLike, weights: ArrayLike | None, level: float) -> float:
    r"""Volume that gets at least ``level``, :math:`V_x` [%].

    >>> volume_at_dose([10.0, 20.0, 30.0, 40.0], [1, 1, 1, 5], 30.0)
    75.0
    """
    d, w = checked(values, weights)
    return 100.0 * float(np.sum(w[d >= level]) / np.sum(w))


def mean(values: ArrayLike, weights: ArrayLike | None = None) -> float:
    r"""Mean :math:`\sum_i w_i d_i`.

    >>> mean([10.0, 40.0], [2.0, 1.0])
    20.0
    """
    d, w = checked(values, weights)
    return float(np.sum(w * d))


def minimum(values: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Smallest value of any voxel that belongs to the structure, however little of it.

    >>> minimum([10.0, 40.0], [0.0, 1.0])
    40.0
    """
    return float(checked(values, weights)[0].min())


def maximum(values: ArrayLike, weights: ArrayLike | None = None) -> float:
    """Largest value of any voxel that belongs to the structure, however little of it.

    >>> maximum([10.0, 40.0], [1.0, 0.0])
    10.0
    """
    return float(checked(values, weights)[0].max())


def homogeneity_index(values: ArrayLike, weights: ArrayLike | None = None) -> float:
    r"""Homogeneity index :math:`(D_{2\%} - D_{98\%}) / D_{50\%}`; 0 is homogeneous, NaN where :math:`D_{50\%} = 0`.

    Source: ICRU Report 83 (2010).

    >>> homogeneity_index([50.0, 50.0])
    0.0
    """
    middle = dose_at_volume(values, weights, 50.0)
    if middle == 0:
        return float("nan")
    return (dose_at_volume(values, weights, 2.0) - dose_at_volume(values, weights, 98.0)) / middle


def paddick_index(target_volume: float, isodose_volume: float, covered_volume: float) -> float:
    r"""Conformity :math:`\mathrm{TV_{PIV}}^2 / (\mathrm{TV} \cdot \mathrm{PIV})`; 1 is perfect, 0 without isodose.

    Parameters
    ----------
    target_volume : float [cm3]
        TV, volume of the target.
    isodose_volume : float [cm3]
        PIV, volume of everything that gets the prescription.
    covered_volume : float [cm3]
        TV_PIV, the part of the target that gets it.

    Source: Paddick, J. Neurosurg. 93 Suppl. 3 (2000) 219.

    >>> round(paddick_index(100.0, 120.0, 100.0), 4)
    0.8333
    """
    if target_volume <= 0:
        raise InputError(f"a target of {target_volume:g} cm3 has no conformity index")
    return 0.0 if isodose_volume <= 0 else float(covered_volume**2 / (target_volume * isodose_volume))


def coverage(
    values: ArrayLike, weights: ArrayLike | None, volume: float, level: float, isodose_volume: float
) -> dict[str, float]:
    """Share of a target that gets the prescription, ``Vp`` [%], and how tightly its isodose fits, ``CI`` (Paddick).

    Parameters
    ----------
    values : array of shape (m,) [Gy]
        Doses of the target's voxels.
    weights : array of shape (m,) or None
        Share of each voxel.
    volume : float [cm3]
        Volume of the target.
    level : float [Gy]
        The prescription.
    isodose_volume : float [cm3]
        Volume of everything that gets it.

    >>> coverage([50.0, 50.0, 40.0, 50.0], None, volume=4.0, level=50.0, isodose_volume=3.0)
    {'Vp': 75.0, 'CI': 0.75}
    """
    share = volume_at_dose(values, weights, level)
    return {"Vp": share, "CI": paddick_index(volume, isodose_volume, share / 100.0 * volume)}


def generalized_eud(values: ArrayLike, weights: ArrayLike | None, a: float) -> float:
    r"""Generalised equivalent uniform dose :math:`(\sum_i w_i d_i^a)^{1/a}`, scaled first so that no power overflows.

    With a negative exponent one cold voxel rules: the value is 0 where any dose is 0.

    Parameters
    ----------
    values : array of shape (m,) [Gy]
        Voxel values, >= 0.
    weights : array of shape (m,) or None
        Share of each voxel.
    a : float
        Exponent, not 0: 1 is the mean, large and positive goes to the maximum, large and negative to the minimum.

    Source: Niemierko, Med. Phys. 26 (1999) 1100.

    >>> generalized_eud([0.0, 10.0, 10.0, 0.0], None, 1.0)
    5.0
    """
    if a == 0 or not np.isfinite(a):
        raise InputError(f"gEUD needs a finite exponent other than 0, got {a:g}")
    d, w = checked(values, weights)
    if d.min() < 0:
        raise InputError(f"gEUD needs values >= 0, got {d.min():g}")
    scale = float(d.max() if a > 0 else d.min())
    return 0.0 if scale == 0 else scale * float(np.sum(w * (d / scale) ** a)) ** (1.0 / a)


_PLAIN: dict[str, Callable[[ArrayLike, ArrayLike | None], float]] = {
    "Dmean": mean,
    "mean": mean,
    "Dmin": minimum,
    "min": minimum,
    "Dmax": maximum,
    "max": maximum,
    "HI": homogeneity_index,
}


def is_level(name: str) -> bool:
    """Whether a metric is in the quantity's unit, so that it grows with the dose (D..., gEUD; not V..., HI).

    >>> is_level("D0.1cc"), is_level("V20Gy")
    (True, False)
    """
    return (name in _PLAIN and name != "HI") or name.startswith(("D", "gEUD"))


def metric(name: str, values: ArrayLike, weights: ArrayLike | None = None, volume: float = float("nan")) -> float:
    """One metric by its written name: ``Dmean``, ``D95``, ``D0.1cc``, ``V20Gy`` [%], ``HI``, ``gEUD(8)``.

    Parameters
    ----------
    name : str
        What to read; a percent sign after D95 and an underscore for the decimal point (``D0_1cc``) are understood.
    values : array of shape (m,) [unit of the quantity]
        Course totals of the structure's voxels.
    weights : array of shape (m,) or None
        Share of each voxel.
    volume : float [cm3]
        Volume of the structure, needed by D..cc only.

    Raises
    ------
    InputError
        The name is none of the forms above.

    >>> metric("D50", [10.0, 20.0, 30.0, 40.0]), metric("V20Gy", [10.0, 20.0, 30.0, 40.0])
    (25.0, 75.0)
    """
    if name in _PLAIN:
        return _PLAIN[name](values, weights)
    match = _PATTERN.fullmatch(name)
    if match is None:
        raise InputError(f"no metric is written {name!r}; expected one of {METRIC_FORMS}")
    kind, unit, number = match["kind"], match["unit"], float(match["number"].replace("_", "."))
    if kind == "D" and unit in (None, "%"):
        return dose_at_volume(values, weights, number)
    if kind == "D" and unit == "cc":
        return dose_at_cc(values, weights, number, volume)
    if kind == "V" and unit in (None, "Gy"):
        return volume_at_dose(values, weights, number)
    if kind == "gEUD" and unit is None:
        return generalized_eud(values, weights, number)
    raise InputError(f"no metric is written {name!r}; expected one of {METRIC_FORMS}")
