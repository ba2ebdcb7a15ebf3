"""Sums of regression trees, evaluated for many voxels."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = Any


@numba.njit(cache=True, parallel=True, nogil=True)
def evaluate(
    channels: Array, roots: Array, feature: Array, threshold: Array, left: Array, right: Array, value: Array
) -> Array:
    """Return the sum over trees (n,) for channels (n, k), float32.

    Node i goes to `left` where its feature is <= its threshold, else to `right`; a leaf has feature -1 and a value.
    """
    out = np.zeros(channels.shape[0], dtype=np.float64)
    for v in numba.prange(channels.shape[0]):
        total = 0.0
        for tree in range(roots.size):
            node = roots[tree]
            while feature[node] >= 0:
                node = left[node] if channels[v, feature[node]] <= threshold[node] else right[node]
            total += value[node]
        out[v] = total
    return out
