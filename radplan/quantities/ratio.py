"""What a ratio to dose needs that divides by no less than a floor: its value, its derivatives, a floor > 0."""

from __future__ import annotations

from radplan.arrays import Array, namespace
from radplan.errors import InputError


def per_dose(image: Array, dose: Array, floor: float) -> Array:
    """Return an image over the dose, or over the floor [Gy] where dose is below it; all of one shape.

    >>> import numpy as np
    >>> per_dose(np.asarray([5.0, 1.0]), np.asarray([2.0, 0.0]), 0.5).tolist()
    [2.5, 2.0]
    """
    return image / _divisor(dose, floor)


def per_dose_vjp(cotangent: Array, image: Array, dose: Array, floor: float) -> tuple[Array, Array]:
    """Return the cotangents of image and dose for one of `per_dose`; that of dose is 0 where the floor divides.

    >>> import numpy as np
    >>> image, dose = per_dose_vjp(np.asarray([1.0]), np.asarray([5.0]), np.asarray([2.0]), 0.5)
    >>> image.tolist(), dose.tolist()
    ([0.5], [-1.25])
    """
    xp = namespace(image, dose)
    divisor = _divisor(dose, floor)
    share = cotangent / divisor
    slope = -share * image / divisor
    return share, xp.where(dose > floor, slope, xp.zeros_like(slope))


def check_floor(name: str, floor: float) -> None:
    """Raise `InputError` unless the floor of a ratio is a dose per fraction > 0 Gy."""
    if not floor > 0.0:
        raise InputError(f"the floor of {name} must be a dose per fraction > 0 Gy, got {floor}")


def _divisor(dose: Array, floor: float) -> Array:
    xp = namespace(dose)
    return xp.where(dose > floor, dose, xp.full_like(dose, floor))
