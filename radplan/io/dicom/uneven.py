"""Slices of mixed spacing brought to an even series, where that is allowed: linear between neighbours."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError

Floats = npt.NDArray[np.float64]


def even_slices(values: npt.NDArray[np.float32], places: Floats) -> tuple[npt.NDArray[np.float32], float]:
    """Return slices at even places, from the first place on, and their distance: the smallest that neighbours had.

    Parameters
    ----------
    values : array of shape (slices, rows, columns)
        At ascending places.
    places : array of shape (slices,)
        Along the slices' normal [mm].

    Returns
    -------
    tuple of array of shape (planes, rows, columns) and float
        Values, linear between neighbours, and distance [mm]. The last plane lies at the last place or less than a step
        before it.

    Raises
    ------
    InputError
        When places do not ascend.

    >>> steps = np.asarray([0.0, 2.0, 6.0])
    >>> even_slices(np.asarray([0.0, 2.0, 6.0], dtype=np.float32)[:, None, None], steps)[0].ravel().tolist()
    [0.0, 2.0, 4.0, 6.0]
    """
    steps = np.diff(places)
    if steps.size == 0 or steps.min() <= 0.0:
        raise InputError(f"slices to even out must lie at two ascending places or more, got {places.tolist()}")
    step = float(steps.min())
    count = int(np.floor((places[-1] - places[0]) / step + 1e-6)) + 1
    wanted = places[0] + step * np.arange(count)
    upper = np.clip(np.searchsorted(places, wanted - 1e-9), 1, places.size - 1)
    share = np.clip((wanted - places[upper - 1]) / (places[upper] - places[upper - 1]), 0.0, 1.0).astype(np.float32)
    share = share[:, None, None]
    return values[upper - 1] * (1 - share) + values[upper] * share, step
