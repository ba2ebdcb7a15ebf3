"""Sums of regression trees, evaluated for many voxels."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

Array = Any

_BLOCK = 128
"""Voxels that go through a tree before the next tree is looked at: tree and channels stay in the processor's cache."""


@numba.njit(cache=True, parallel=True, nogil=True)
def evaluate(channels: Array, roots: Array, feature: Array, threshold: Array, low: Array, value: Array) -> Array:
    """Return the sum over trees (n,) for channels (n, k), float32.

    Node i goes to ``low[i]`` where its feature is <= its threshold, else to ``low[i] + 1``; a leaf has feature -1 and
    a value.
    """
    count = channels.shape[0]
    out = np.zeros(count, dtype=np.float64)
    for block in numba.prange((count + _BLOCK - 1) // _BLOCK):
        last = min(count, (block + 1) * _BLOCK)
        for tree in range(roots.size):
            root = roots[tree]
            # Why: four voxels side by side, so that the processor waits for one's branch with another's.
            for v in range(block * _BLOCK, last, 4):
                voxels = (v, min(v + 1, last - 1), min(v + 2, last - 1), min(v + 3, last - 1))
                a, b, c, d = root, root, root, root
                while max(max(feature[a], feature[b]), max(feature[c], feature[d])) >= 0:
                    a = _next(channels, voxels[0], a, feature, threshold, low)
                    b = _next(channels, voxels[1], b, feature, threshold, low)
                    c = _next(channels, voxels[2], c, feature, threshold, low)
                    d = _next(channels, voxels[3], d, feature, threshold, low)
                for voxel, node in zip(range(v, last), (a, b, c, d)):
                    out[voxel] += value[node]
    return out


@numba.njit(cache=True, nogil=True, inline="always")
def _next(channels: Array, voxel: int, node: int, feature: Array, threshold: Array, low: Array) -> int:
    """Return the node after one, itself when it is a leaf."""
    if feature[node] < 0:
        return node
    return low[node] + (0 if channels[voxel, feature[node]] <= threshold[node] else 1)
