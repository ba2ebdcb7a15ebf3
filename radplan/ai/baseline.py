"""Voxelwise regression of dose without torch: boosted trees, or ridge regression on piecewise-linear bases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from radplan.ai.data import Sample
from radplan.ai.features import Anatomy, Layout, dose_channels
from radplan.errors import FileError, InputError

Floats = npt.NDArray[np.floating]
Volume = npt.NDArray[np.float32]

_NODES = ("roots", "feature", "threshold", "left", "right", "value")


@dataclass(frozen=True, eq=False)
class BoostedTrees:
    """A sum of regression trees on the channels of single voxels.

    Parameters
    ----------
    layout : Layout
        The channels, and the prescription that predictions are in units of.
    roots : array of shape (trees,)
        First node of each tree.
    feature, left, right : array of shape (nodes,)
        Channel that a node looks at, -1 in a leaf; where it goes when the channel is at most `threshold`, and else.
    threshold, value : array of shape (nodes,)
        Of nodes; of leaves, whose values are summed over the trees.
    base : float
        What the sum starts from.
    smoothing : float
        Standard deviation [voxels] of the Gaussian that `propose` evens out the noise of single voxels with.
    """

    layout: Layout
    roots: npt.NDArray[np.int64]
    feature: npt.NDArray[np.int64]
    threshold: npt.NDArray[np.float64]
    left: npt.NDArray[np.int64]
    right: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    base: float
    smoothing: float = 0.5

    @classmethod
    def fit(
        cls,
        samples: Sequence[Sample],
        layout: Layout,
        iterations: int = 300,
        leaves: int = 63,
        rate: float = 0.1,
        per_patient: int = 3000,
        per_exact: int | None = None,
        seed: int = 0,
    ) -> BoostedTrees:
        """Return trees fitted to the absolute difference by scikit-learn's histogram gradient boosting.

        Parameters
        ----------
        samples : sequence of Sample
            Patients to learn from.
        layout : Layout
            Their channels.
        iterations, leaves, rate
            Number of trees, largest number of leaves of each, and shrinkage.
        per_patient, per_exact : int
            Reference voxels drawn of each patient, and of each whose dose is known on the full grid (None: as many).
        seed : int
            Of the draw and of the fit.

        Raises
        ------
        InputError
            When scikit-learn is not installed.
        """
        try:
            from sklearn.ensemble import HistGradientBoostingRegressor
        except ImportError as error:
            raise InputError(f"boosted trees are fitted by scikit-learn ({error}): pip install 'radplan[ai]'") from None
        channels, dose = drawn_voxels(samples, per_patient, seed, per_exact)
        regressor = HistGradientBoostingRegressor(
            loss="absolute_error", max_iter=iterations, learning_rate=rate, max_leaf_nodes=leaves, random_state=seed
        ).fit(channels, dose)
        # Why: the fitted trees are kept as plain arrays, since scikit-learn itself keeps them by pickle alone.
        trees = [stage[0].nodes for stage in regressor._predictors]
        offsets = np.cumsum([0, *(tree.size for tree in trees)])
        nodes = np.concatenate(trees)
        shift = np.repeat(offsets[:-1], np.diff(offsets))
        leaf = nodes["is_leaf"].astype(bool)
        return cls(
            layout,
            offsets[:-1].astype(np.int64),
            np.where(leaf, -1, nodes["feature_idx"]).astype(np.int64),
            nodes["num_threshold"].astype(np.float64),
            (nodes["left"] + shift).astype(np.int64),
            (nodes["right"] + shift).astype(np.int64),
            nodes["value"].astype(np.float64),
            float(np.ravel(regressor._baseline_prediction)[0]),
        )

    def predict(self, channels: Floats) -> npt.NDArray[np.float64]:
        """Return dose (n,) of channels (channels, n), in units of the prescription."""
        from radplan.kernels import trees

        rows = np.ascontiguousarray(channels.T, dtype=np.float32)
        return np.asarray(np.maximum(self.base + trees.evaluate(rows, *self._paired), 0.0))

    @cached_property
    def _paired(self) -> tuple[npt.NDArray[Any], ...]:
        """Roots, features, thresholds, first children and values of nodes in an order that keeps siblings together."""
        level = self.roots
        levels = [level]
        while level.size:
            inner = level[self.feature[level] >= 0]
            level = np.stack([self.left[inner], self.right[inner]], axis=1).ravel()
            levels.append(level)
        order = np.concatenate(levels)
        rank = np.empty(order.size, dtype=np.int32)
        rank[order] = np.arange(order.size, dtype=np.int32)
        # Why: rounded down, a float32 channel is on the side of it that it was on of the float64 threshold.
        threshold = self.threshold[order].astype(np.float32)
        threshold = np.where(threshold > self.threshold[order], np.nextafter(threshold, np.float32(-np.inf)), threshold)
        low = np.where(self.feature[order] >= 0, rank[self.left[order]], 0).astype(np.int32)
        return rank[self.roots], self.feature[order].astype(np.int32), threshold, low, self.value[order]

    def propose(self, anatomy: Anatomy) -> Volume:
        """Return the proposed course dose [Gy] (nz, ny, nx) of an anatomy; 0 where dose does not count."""
        return self.dose(anatomy, _channels(anatomy, self.layout))

    def dose(self, anatomy: Anatomy, channels: Floats) -> Volume:
        """Return the same of an anatomy whose channels (channels, n) are known."""
        rough = _placed(self, anatomy, channels)
        if not self.smoothing:
            return rough
        share = ndimage.gaussian_filter(anatomy.inside.astype(np.float32), self.smoothing)
        even = ndimage.gaussian_filter(rough, self.smoothing) / np.maximum(share, 1e-6)
        return np.asarray(np.where(anatomy.inside, even, 0.0), dtype=np.float32)

    def save(self, path: str | Path) -> None:
        """Write the trees as an npz file without pickles."""
        arrays: dict[str, Any] = {name: getattr(self, name) for name in _NODES}
        arrays |= {"base": np.asarray(self.base), "smoothing": np.asarray(self.smoothing)}
        with Path(path).open("wb") as stream:
            np.savez_compressed(stream, **arrays)

    @classmethod
    def load(cls, path: str | Path, layout: Layout) -> BoostedTrees:
        """Return the trees that `save` wrote.

        Raises
        ------
        FileError
            When the file cannot be read.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                nodes = [archive[name] for name in _NODES]
                base = float(archive["base"])
                kept = {"smoothing": float(archive["smoothing"])} if "smoothing" in archive else {}
        except (OSError, KeyError, ValueError) as error:
            raise FileError(path, f"is no file of boosted trees ({error})") from None
        return cls(layout, nodes[0], nodes[1], nodes[2], nodes[3], nodes[4], nodes[5], base, **kept)


@dataclass(frozen=True, eq=False)
class RidgeRegression:
    """Least squares with a penalty on piecewise-linear functions of each channel, and of pairs with the distance.

    Parameters
    ----------
    layout : Layout
        The channels, and the prescription that predictions are in units of.
    knots : array of shape (channels, knots)
        Where each channel's functions bend.
    centre, scale, weights : array of shape (functions,)
        Mean and standard deviation of the functions over the voxels fitted, and their weights.
    base : float
        Mean dose of the voxels fitted.
    """

    layout: Layout
    knots: npt.NDArray[np.float64]
    centre: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    base: float

    @classmethod
    def fit(
        cls,
        samples: Sequence[Sample],
        layout: Layout,
        knots: int = 8,
        penalty: float = 1e-3,
        per_patient: int = 2000,
        seed: int = 0,
    ) -> RidgeRegression:
        """Return the regression fitted to voxels drawn of each patient, by the normal equations."""
        channels, dose = drawn_voxels(samples, per_patient, seed)
        places = np.quantile(channels.astype(np.float64), np.linspace(0.05, 0.95, knots), axis=0).T
        functions = _bent(channels, places, layout)
        centre, scale = functions.mean(axis=0), functions.std(axis=0) + 1e-9
        functions = (functions - centre) / scale
        base = float(dose.mean())
        gram = functions.T @ functions / dose.size
        gram[np.diag_indices_from(gram)] += penalty
        weights = np.linalg.solve(gram, functions.T @ (dose - base) / dose.size)
        return cls(layout, places, centre, scale, weights, base)

    def predict(self, channels: Floats) -> npt.NDArray[np.float64]:
        """Return dose (n,) of channels (channels, n), in units of the prescription."""
        functions = (_bent(channels.T, self.knots, self.layout) - self.centre) / self.scale
        return np.asarray(np.maximum(self.base + functions @ self.weights, 0.0))

    def propose(self, anatomy: Anatomy) -> Volume:
        """Return the proposed course dose [Gy] (nz, ny, nx) of an anatomy; 0 where dose does not count."""
        return _placed(self, anatomy, _channels(anatomy, self.layout))


def drawn_voxels(
    samples: Sequence[Sample], per_patient: int, seed: int, per_exact: int | None = None
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Return channels (k, channels) and dose (k,) of reference voxels drawn of each patient, as means over their parts.

    Raises
    ------
    InputError
        When there is no sample.
    """
    if not samples:
        raise InputError("there is no patient to learn from")
    rows, doses = [], []
    for index, sample in enumerate(samples):
        count = sample.dose.size
        draw = np.random.default_rng([seed, index])
        wanted = per_exact if sample.exact and per_exact is not None else per_patient
        chosen = np.sort(draw.choice(count, min(wanted, count), replace=False))
        rank = np.full(count, -1)
        rank[chosen] = np.arange(chosen.size)
        own = rank[sample.parents]
        parts = np.flatnonzero(own >= 0)
        numbers = np.bincount(own[parts], minlength=chosen.size)
        values = np.asarray(sample.channels[:, parts], dtype=np.float64)
        sums = np.stack([np.bincount(own[parts], row, minlength=chosen.size) for row in values], axis=1)
        rows.append((sums / numbers[:, None]).astype(np.float32))
        doses.append(np.asarray(sample.dose[chosen], dtype=np.float64))
    return np.concatenate(rows), np.concatenate(doses)


def _bent(channels: Floats, knots: npt.NDArray[np.float64], layout: Layout) -> npt.NDArray[np.float64]:
    """Return each channel (n, k), its parts above the knots, and its products with the nearness to the targets."""
    values = np.asarray(channels, dtype=np.float64)
    parts = [values]
    for column, places in enumerate(knots):
        distinct = np.unique(places)
        grown = np.zeros((values.shape[0], places.size))
        grown[:, : distinct.size] = np.maximum(values[:, column, None] - distinct, 0.0)
        parts.append(grown)
    distance = values[:, layout.channels.index("distance targets"), None]
    nearness = np.exp(-np.maximum(distance, 0.0))
    parts.append(nearness * values)
    return np.concatenate(parts, axis=1)


def _channels(anatomy: Anatomy, layout: Layout) -> Floats:
    # Why: through float16, as the voxels were that models are fitted to.
    return dose_channels(anatomy, layout).astype(np.float16)


def _placed(model: BoostedTrees | RidgeRegression, anatomy: Anatomy, channels: Floats) -> Volume:
    volume = np.zeros(anatomy.grid.shape, dtype=np.float32)
    volume[anatomy.inside] = model.layout.prescription * model.predict(np.asarray(channels, dtype=np.float32))
    return volume
