"""Knowledge-based DVH estimation: what an organ's DVH was in patients whose targets lie likewise.

Features are histograms of each voxel's signed distance to the targets, shares in and beside the fields, and volumes;
the DVH is read as dose at 24 volumes, described by its first modes, and each mode follows from the features by a ridge
regression whose strength is chosen by leave-one-out. Residuals give the band.

Sources: Zhu et al., Med. Phys. 38 (2011) 719; Yuan et al., Med. Phys. 39 (2012) 6868 (distance histograms).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.errors import FileError, InputError
from radplan.patient import Patient
from radplan.plan import Plan

Floats = npt.NDArray[np.float64]

VOLUMES = np.asarray([1, 2, 4, 6, 8, 10, 13, 16, 20, 25, 30, 35, 40, 45, 50, 55, 60, 65, 70, 75, 80, 85, 90, 95], float)
"""Volumes at which a DVH is read [%]."""
_EDGES = np.asarray([-10, -5, 0, 3, 6, 9, 12, 16, 20, 25, 30, 40, 60], float)
"""Edges of the distance histograms [mm]."""
_ABSENT = 200.0
"""Distance to a target that is not drawn [mm]."""
_MODES = 5
_STRENGTHS = np.geomspace(0.1, 1000.0, 17)
FORMAT = "radplan-dvh-knowledge"
_ARRAYS = ("mean", "modes", "centre", "scale", "coefficients", "residuals")


@dataclass(frozen=True, eq=False)
class DVHBand:
    """An estimated DVH as dose at volumes.

    Parameters
    ----------
    volumes : array of shape (k,) [%]
        Where it is read.
    low, middle, high : array of shape (k,) [Gy]
        Doses that 10, 50 and 90 % of such patients stay below.
    """

    volumes: Floats
    low: Floats
    middle: Floats
    high: Floats

    @property
    def mean(self) -> float:
        """Mean dose of the middle curve [Gy]."""
        edges = np.concatenate([[0.0], 0.5 * (self.volumes[1:] + self.volumes[:-1]), [100.0]])
        return float(np.sum(np.diff(edges) * self.middle) / 100.0)


@dataclass(frozen=True, eq=False)
class OrganKnowledge:
    """What was learned of one organ.

    Parameters
    ----------
    mean : array of shape (k,) [Gy]
        Mean DVH of the population.
    modes : array of shape (modes, k) [Gy]
        Its principal modes.
    centre, scale : array of shape (features,)
        Mean and standard deviation of the features.
    coefficients : array of shape (features + 1, modes)
        Of the standardised features, the constant last.
    residuals : array of shape (2, k) [Gy]
        Tenth and ninetieth percentile of reference less estimate, left out one at a time.
    patients : int
        How many it was learned from.
    """

    mean: Floats
    modes: Floats
    centre: Floats
    scale: Floats
    coefficients: Floats
    residuals: Floats
    patients: int

    def to_spec(self) -> dict[str, Any]:
        """Return plain data."""
        arrays = {name: vars(self)[name].tolist() for name in _ARRAYS}
        return {**arrays, "patients": self.patients}

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any]) -> OrganKnowledge:
        """Return what plain data describes."""
        mean, modes, centre, scale, coefficients, residuals = (np.asarray(spec[name], np.float64) for name in _ARRAYS)
        return cls(mean, modes, centre, scale, coefficients, residuals, int(spec["patients"]))

    def estimate(self, features: Floats) -> DVHBand:
        """Return the band for features (features,); a DVH falls with volume and is never negative."""
        standard = np.append((features - self.centre) / self.scale, 1.0)
        curve = self.mean + standard @ self.coefficients @ self.modes
        low, middle, high = (_falling(curve + shift) for shift in (self.residuals[0], 0.0, self.residuals[1]))
        return DVHBand(VOLUMES, low, middle, high)


@dataclass(frozen=True, eq=False)
class DVHKnowledge:
    """What was learned of all organs of a site.

    Parameters
    ----------
    targets : tuple of str
        Names of the targets, from the highest dose to the lowest.
    organs : mapping of str to OrganKnowledge
        By name.
    """

    targets: tuple[str, ...]
    organs: Mapping[str, OrganKnowledge]

    def estimate(self, patient: Patient, organ: str) -> DVHBand:
        """Return the DVH that an organ of a patient should come near.

        Raises
        ------
        InputError
            When nothing is known of the organ, or it is not drawn.
        """
        if organ not in self.organs:
            raise InputError(f"nothing is known of {organ!r}; known are {', '.join(self.organs)}")
        return self.organs[organ].estimate(organ_features(patient, organ, self.targets))

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        data = {
            "format": FORMAT,
            "version": 1,
            "targets": list(self.targets),
            "organs": {name: learned.to_spec() for name, learned in self.organs.items()},
        }
        Path(path).write_text(json.dumps(data) + "\n", encoding="utf-8")
        return Path(path)


def load_knowledge(path: str | Path) -> DVHKnowledge:
    """Return what was saved.

    Raises
    ------
    FileError
        When the file is none of radplan's.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
        if data["format"] != FORMAT or data["version"] != 1:
            raise FileError(Path(path), f"is no {FORMAT} of version 1")
        organs = {name: OrganKnowledge.from_spec(entry) for name, entry in data["organs"].items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(Path(path), f"holds no knowledge of DVHs ({error})") from error
    return DVHKnowledge(tuple(data["targets"]), organs)


def fit_knowledge(
    plans: Iterable[Plan], targets: Sequence[str], organs: Sequence[str], least: int = 12
) -> DVHKnowledge:
    """Return what plans teach about organs.

    Parameters
    ----------
    plans : iterable of Plan
        With doses worth learning from; `plan_of_dose` makes one of a dose.
    targets, organs : sequence of str
        Names, targets from the highest dose to the lowest.
    least : int
        Organs drawn in fewer patients are left out.
    """
    features: dict[str, list[Floats]] = {name: [] for name in organs}
    curves: dict[str, list[Floats]] = {name: [] for name in organs}
    for plan in plans:
        for name in organs:
            if name in plan.patient.structures and plan.patient.structures[name].voxels.size:
                features[name].append(organ_features(plan.patient, name, targets))
                curves[name].append(dose_at_volumes(plan, name))
    learned = {
        name: _fitted(np.stack(features[name]), np.stack(curves[name])) for name in organs if len(curves[name]) >= least
    }
    return DVHKnowledge(tuple(targets), learned)


def dose_at_volumes(plan: Plan, structure: str, volumes: Floats = VOLUMES) -> Floats:
    """Return the doses at volumes [%] of a structure [Gy], read from its values sorted once."""
    values, weights = plan.structure_values(plan.prescribed, structure)
    order = np.argsort(-values)
    ranks = 100.0 * (np.cumsum(weights[order]) - 0.5 * weights[order])
    return np.asarray(np.interp(volumes, ranks, values[order]))


def organ_features(patient: Patient, organ: str, targets: Sequence[str]) -> Floats:
    """Return what tells of an organ how much dose it gets: distances to targets, shares, volumes.

    Parameters
    ----------
    patient : Patient
        With the organ, and the targets that are drawn.
    organ : str
        Which.
    targets : sequence of str
        Names, from the highest dose to the lowest.
    """
    structure = patient.structures[organ]
    grid = structure.grid
    weights = np.ones(structure.voxels.size) if structure.fraction is None else np.asarray(structure.fraction)
    weights = weights / weights.sum()
    parts: list[Floats] = []
    union = np.zeros(grid.shape, dtype=bool)
    for name in targets:
        drawn = name in patient.structures and patient.structures[name].voxels.size > 0
        mask = patient.structures[name].mask() if drawn else np.zeros(grid.shape, dtype=bool)
        union |= mask
        volume = patient.structures[name].volume / 1000.0 if drawn else 0.0
        parts += [_histogram(mask, structure.voxels, weights, grid.spacing), np.asarray([np.log1p(volume)])]
    if not union.any():
        raise InputError(f"patient {patient.name!r} has none of the targets {', '.join(targets)}")
    z = grid.points(structure.voxels)[:, 2]
    slices = np.flatnonzero(union.any(axis=(1, 2)))
    low, high = (grid.axes[2][slices[end]] for end in (0, -1))
    inside = (z >= low - 5.0) & (z <= high + 5.0)
    beside = np.where(inside, 0.0, np.minimum(np.abs(z - low), np.abs(z - high)))
    parts.append(_histogram(union, structure.voxels, weights, grid.spacing))
    parts.append(np.asarray([weights[inside].sum(), float(weights @ np.minimum(beside, 60.0)) / 10.0]))
    parts.append(np.asarray([np.log1p(structure.volume / 1000.0)]))
    return np.concatenate(parts)


def _histogram(
    mask: npt.NDArray[np.bool_], voxels: npt.NDArray[np.int64], weights: Floats, spacing: Sequence[float]
) -> Floats:
    """Return the share of an organ nearer to a target than each edge [1], negative distances inside."""
    from scipy.ndimage import distance_transform_edt

    if not mask.any():
        distance = np.full(voxels.size, _ABSENT)
    else:
        size = tuple(spacing)[::-1]
        outside = distance_transform_edt(~mask, size).reshape(-1)[voxels]
        inside = distance_transform_edt(mask, size).reshape(-1)[voxels]
        distance = np.where(inside > 0.0, -inside, outside)
    return np.asarray([weights[distance <= edge].sum() for edge in _EDGES])


def _fitted(features: Floats, curves: Floats) -> OrganKnowledge:
    mean = curves.mean(axis=0)
    _, _, directions = np.linalg.svd(curves - mean, full_matrices=False)
    modes = directions[: min(_MODES, directions.shape[0])]
    scores = (curves - mean) @ modes.T
    centre, scale = features.mean(axis=0), features.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    design = np.column_stack([(features - centre) / scale, np.ones(len(features))])
    errors = [np.abs(_left_out(design, scores, strength) @ modes).mean() for strength in _STRENGTHS]
    best = float(_STRENGTHS[int(np.argmin(errors))])
    residuals = _left_out(design, scores, best) @ modes
    band = np.percentile(residuals, [10.0, 90.0], axis=0)
    return OrganKnowledge(mean, modes, centre, scale, _ridge(design, scores, best), band, len(curves))


def _ridge(design: Floats, scores: Floats, strength: float) -> Floats:
    penalty = strength * np.eye(design.shape[1])
    penalty[-1, -1] = 0.0
    return np.asarray(np.linalg.solve(design.T @ design + penalty, design.T @ scores))


def _left_out(design: Floats, scores: Floats, strength: float) -> Floats:
    """Return residuals (n, modes) of each patient when it is left out of the fit, by the hat matrix."""
    penalty = strength * np.eye(design.shape[1])
    penalty[-1, -1] = 0.0
    hat = design @ np.linalg.solve(design.T @ design + penalty, design.T)
    spare = np.maximum(1.0 - np.diag(hat), 1e-6)
    return np.asarray((scores - hat @ scores) / spare[:, None])


def _falling(curve: Floats) -> Floats:
    return np.asarray(np.maximum(np.minimum.accumulate(curve), 0.0))
