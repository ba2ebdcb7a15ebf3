"""The factor on the weights that brings a metric to a level."""

from __future__ import annotations

from collections.abc import Callable

from radplan.errors import CalculationError


def find_factor(at: Callable[[float], float], wanted: float, now: float, what: str) -> float:
    """Return the factor f with ``at(f) = wanted``, bracketed around the proportional guess, then by Brent's method.

    Parameters
    ----------
    at : callable
        The metric with all variables multiplied by a factor; grows with it.
    wanted, now : float
        The level to reach, and ``at(1)``, both > 0.
    what : str
        The metric in words, for the message.

    Raises
    ------
    CalculationError
        No factor within ten orders of magnitude of the guess gives the level.

    >>> round(find_factor(lambda f: f**2, wanted=9.0, now=1.0, what="D95 of PTV"), 6)
    3.0
    """
    from scipy.optimize import brentq

    low = high = wanted / now
    for _ in range(60):
        if at(low) <= wanted:
            break
        low /= 1.5
    for _ in range(60):
        if at(high) >= wanted:
            break
        high *= 1.5
    if not at(low) <= wanted <= at(high):
        raise CalculationError(f"no factor on the weights brings {what} to {wanted:g}")
    if low == high:
        return low
    return float(brentq(lambda factor: at(factor) - wanted, low, high, xtol=1e-9 * high, rtol=1e-9))
