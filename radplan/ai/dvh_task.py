"""What a network that is steered by DVHs is taught: plans of an anatomy, each asked for by a DVH."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from radplan.ai.cards import load_weights, read_model
from radplan.ai.dvh import LEVELS, dvh_levels
from radplan.ai.features import Layout
from radplan.ai.loop import Task
from radplan.ai.nets.dvh_unet import DvhUNet
from radplan.ai.planned import PlannedPatient, dvh_code, mirrored_patient
from radplan.ai.spec import DvhSpec

FORMAT = "radplan DVH planner 2"

Tensor = Any
Floats = npt.NDArray[np.float64]

_STRUCTURES_WEIGHT = 1.5
"""Weight of each structure's squared difference beside the body's."""

_HOTTEST = (0.005, 0.015)
"""Shares of a structure's volume between which the mean of the hottest doses counts too: it stands for D1 %."""

_COLDEST = (0.92, 0.98)
"""The same of the target's coldest doses: it stands for D95 %."""

_ENDS_WEIGHT = 2.0
"""Weight of both beside that of the mean dose."""

_LEAST_GAIN = 0.1
"""Share of the difference of two mean doses asked for by which answers are to differ at least."""

_LOOKED_AT = 4
"""Plans of each patient that states are chosen by."""


@dataclass(frozen=True, eq=False)
class CodeScale:
    """Mean and spread of DVH codes over training plans: the roots of volumes are given to the network as z-scores.

    The hot end of a curve is a hundredth of the volume, of which roots make a tenth. A last number says whether there
    is a wish at all: without one all numbers are 0.

    Parameters
    ----------
    mean, spread : array of shape (bins,)
        Of the roots, over all plans of the training patients.
    """

    mean: Floats
    spread: Floats

    @classmethod
    def of(cls, patients: Sequence[PlannedPatient]) -> CodeScale:
        """Return the scale of the patients' plans, each patient counting once."""
        roots = [_roots(patient.codes) for patient in patients]
        mean = np.mean([values.mean(axis=0) for values in roots], axis=0)
        squares = np.mean([(values**2).mean(axis=0) for values in roots], axis=0)
        return cls(mean, np.sqrt(np.maximum(squares - mean**2, 0.0)))

    @property
    def bins(self) -> int:
        """Length of what the network is given."""
        return int(self.mean.size) + 1

    def given(self, codes: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Return what the network is given (plans, bins) for codes (plans, structures * levels)."""
        # Why: levels at which all training plans agree would blow up what little a wish differs there.
        scores = (_roots(codes) - self.mean) / np.maximum(self.spread, 0.01)
        return np.concatenate([np.clip(scores, -4.0, 4.0), np.ones((len(scores), 1))], axis=1).astype(np.float32)

    def nothing(self) -> npt.NDArray[np.float32]:
        """Return what the network is given (1, bins) where nothing is wished."""
        return np.zeros((1, self.bins), dtype=np.float32)


def _roots(codes: npt.ArrayLike) -> Floats:
    """Return the square roots of volumes, of those asked for below 0 with their sign."""
    volumes = np.asarray(codes, dtype=np.float64)
    return np.sign(volumes) * np.sqrt(np.abs(volumes))


class DvhTask(Task):
    """Plans of a cohort's patients, asked for by DVHs.

    At each step a patient is shown with several DVHs. Those of the patient's own plans ask for these; those of
    other patients' plans ask for that plan of the patient whose DVHs are nearest (Ma et al.); and some say nothing.
    Doses are compared in units of the target's mean: squared differences in the body and in each structure, the
    distance of DVHs, and the difference of each structure's mean and dose near D1 %, and
    of the target's near D95 %. What is asked for by other
    patients' DVHs may be out of reach; then the order of mean doses counts: who asks for less is to get less.

    Parameters
    ----------
    spec : DvhSpec
        Network, wishes and losses.
    layout : Layout
        The channels.
    train, choose : sequence of PlannedPatient
        Patients to train on, and patients on whom the best state is chosen.
    """

    def __init__(
        self, spec: DvhSpec, layout: Layout, train: Sequence[PlannedPatient], choose: Sequence[PlannedPatient]
    ) -> None:
        self.spec, self.layout = spec, layout
        self._train, self._choose = list(train), list(choose)
        self.scale = CodeScale.of(train)

    @property
    def size(self) -> int:
        return len(self._train)

    def network(self) -> DvhUNet:
        net = dvh_net(self.spec, self.layout, self.scale.bins)
        if self.spec.start is not None:
            load_weights(net, read_model(self.spec.start, (FORMAT,)))
        return net

    def loss(self, net: Any, index: int, draw: np.random.Generator, device: Any, spent: float) -> tuple[str, Tensor]:
        patient = self._train[index]
        codes, plans, means = self._asked(index, draw)
        shown = mirrored_patient(patient, self.layout) if draw.random() < 0.5 else patient
        organs = np.flatnonzero(patient.parts[self._inner].any(axis=0))
        body = draw.choice(patient.voxels.size, min(self.spec.voxels, patient.voxels.size), replace=False)
        wanted = np.concatenate([organs, body])
        dose = net(
            _tensor(np.array(shown.channels), device).float(),
            _tensor(shown.voxels.astype(np.int64), device),
            shown.shape,
            _tensor(wanted, device),
            _tensor(codes, device),
        )
        # Why: rows are read one after the other, as doses lie in a file that is mapped in.
        planned = _tensor(np.stack([patient.doses[k][wanted] for k in plans]).astype(np.float32), device)
        shares = _tensor(patient.parts[self._inner][:, organs].astype(np.float32), device)
        target = shares[self._inner.index(self._target)]
        count = organs.size
        level = (dose[:, :count] * target).sum(dim=1, keepdim=True) / target.sum()
        dose = dose / level.clamp(min=0.1)
        loss = ((dose[:, count:] - planned[:, count:]) ** 2).mean() + 0.1 * ((level - 1.0) ** 2).mean()
        loss = loss + _STRUCTURES_WEIGHT * _squared(dose[:, :count], planned[:, :count], shares)
        parts = functional.pad(shares, (0, body.size, 0, 1))
        parts[-1, count:] = 1.0
        target_row = self._inner.index(self._target)
        loss = loss + self.spec.dvh_weight * _curves(dose, planned, parts, target_row)
        if self.spec.order_weight:
            loss = loss + self.spec.order_weight * disorder(dose[:, :count], shares, _tensor(means, device))
        return patient.name, loss

    def judged(self, net: Any, device: Any) -> dict[str, float]:
        squares: dict[str, list[float]] = {"voxels": [], "organs": [], "hottest": []}
        for patient in self._choose:
            plans = np.unique(np.linspace(0, len(patient.doses) - 1, _LOOKED_AT).astype(int))
            predicted = steered(
                net, patient, self.scale.given(patient.codes[plans]), self._target, device, self.spec.precision
            )
            planned = patient.doses[plans].astype(np.float32)
            squares["voxels"].append(float(((predicted - planned) ** 2).mean()))
            for row in self._inner:
                inside = np.flatnonzero(patient.parts[row] > 0)
                weights = _tensor(patient.parts[row][inside].astype(np.float32), "cpu")
                weights = weights / weights.sum()
                pair = (_tensor(predicted[:, inside], "cpu"), _tensor(planned[:, inside], "cpu"))
                means = [values @ weights for values in pair]
                hottest = [mean_between(values, weights, *_HOTTEST) for values in pair]
                squares["organs"].append(float(((means[0] - means[1]) ** 2).mean()))
                squares["hottest"].append(float(((hottest[0] - hottest[1]) ** 2).mean()))
        return {name: round(100.0 * float(np.sqrt(np.mean(values))), 4) for name, values in squares.items()}

    @property
    def _inner(self) -> list[int]:
        """Rows of the structures other than the body."""
        names = self.spec.structures
        return [k for k, name in enumerate(names) if name == self.spec.target or name in self.spec.organs]

    @property
    def _target(self) -> int:
        return self.spec.structures.index(self.spec.target)

    def _asked(
        self, index: int, draw: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], list[int], npt.NDArray[np.float32]]:
        """Return what the network is given (wishes, bins), the plans that answer, and mean doses asked for.

        Those are (wishes, structures) of the target and the organs, not a number where nothing is wished.
        """
        patient, rows, plans, means = self._train[index], [], [], []
        for _ in range(self.spec.wishes):
            kind = draw.random()
            if kind < self.spec.unsteered:
                rows.append(self.scale.nothing()[0])
                plans.append(int(draw.integers(len(patient.codes))))
                means.append(np.full(len(self._inner), np.nan))
                continue
            own = kind < self.spec.unsteered + self.spec.own or self.size == 1
            source = patient if own else self._train[(index + 1 + int(draw.integers(self.size - 1))) % self.size]
            code = source.codes[int(draw.integers(len(source.codes)))]
            rows.append(self.scale.given(code[None])[0])
            plans.append(nearest_plan(patient, code))
            means.append(asked_means(code, self.spec.structures)[self._inner])
        return np.stack(rows), plans, np.stack(means).astype(np.float32)


def dvh_net(spec: DvhSpec, layout: Layout, bins: int) -> DvhUNet:
    """Return the network of a specification, with fresh weights."""
    network = spec.network
    names = layout.channels
    prior, distance = names.index("conformal"), names.index("distance targets")
    sizes = (network.widths, network.pool, network.head, network.conditioning)
    return DvhUNet(len(names), bins, *sizes, prior, distance)


def nearest_plan(patient: PlannedPatient, code: npt.ArrayLike) -> int:
    """Return the plan of a patient whose DVHs are nearest to a code, by the sum of absolute differences."""
    return int(np.argmin(np.abs(patient.codes - np.asarray(code, dtype=np.float32)).sum(axis=1)))


def steered(
    net: DvhUNet,
    patient: PlannedPatient,
    given: npt.NDArray[np.float32],
    target: int,
    device: Any,
    precision: str = "32-true",
    voxels: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float32]:
    """Return doses (wishes, n) in units of the target's mean dose, for what the network is given (wishes, bins).

    `voxels` are those of the n that are wanted, all of the target's among them; None takes all.
    """
    mixed = precision == "bf16-mixed"
    channels = _tensor(np.array(patient.channels), device).float()
    places = _tensor(patient.voxels.astype(np.int64), device)
    wanted = np.arange(patient.voxels.size) if voxels is None else voxels
    own = patient.parts[target][wanted].astype(np.float64)
    rows = []
    with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
        index = _tensor(wanted, device)
        for row in given:
            dose = net(channels, places, patient.shape, index, _tensor(row[None], device))[0].cpu().numpy()
            rows.append(dose * (own.sum() / max(float(dose.astype(np.float64) @ own), 1e-6)))
    return np.asarray(rows, dtype=np.float32)


def followed_doses(
    net: DvhUNet, patient: PlannedPatient, codes: npt.ArrayLike, scale: CodeScale, spec: DvhSpec, device: Any
) -> npt.NDArray[np.float32]:
    """Return doses (wishes, n), in units of the target's mean, that follow DVH codes (wishes, structures * levels).

    After each of `spec.rounds` answers organs are asked again for what they were asked for and what the last answer
    lacked of it; target and body are not, whose curves would pay for it.
    """
    asked = wanted = np.asarray(codes, dtype=np.float64)
    again = np.repeat([name in spec.organs for name in spec.structures], LEVELS)
    target = spec.structures.index(spec.target)
    # Why: until the last answer only the curves of organs count, and these are a tenth of the voxels.
    inner = [k for k, name in enumerate(spec.structures) if k == target or name in spec.organs]
    near = np.flatnonzero(patient.parts[inner].any(axis=0))
    for _ in range(spec.rounds):
        doses = steered(net, patient, scale.given(asked), target, device, spec.precision, near)
        reached = np.stack([dvh_code(dose, patient.parts[:, near]) for dose in doses])
        asked = asked + again * (wanted - reached)
    return steered(net, patient, scale.given(asked), target, device, spec.precision)


def disorder(dose: Tensor, shares: Tensor, asked: Tensor) -> Tensor:
    """Return by how much answers miss the order of what was asked for, mean over structures and pairs of wishes.

    Of two wishes, that which asks for the higher mean dose is to get more by a tenth of the difference at least.
    """
    means = dose @ (shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)).T
    first, second = torch.triu_indices(len(asked), len(asked), 1, device=asked.device)
    # Why: pairs in which nothing is wished are not a number, and count as equal.
    apart = torch.nan_to_num(asked[first] - asked[second])
    gained = means[first] - means[second]
    return (_LEAST_GAIN * apart.abs() - apart.sign() * gained).clamp(min=0.0).mean()


def _squared(dose: Tensor, planned: Tensor, shares: Tensor) -> Tensor:
    """Return the sum over structures of their mean squared differences, mean over wishes."""
    weights = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-6)
    return (((dose - planned) ** 2) @ weights.T).sum(dim=1).mean()


def _curves(dose: Tensor, planned: Tensor, shares: Tensor, target: int) -> Tensor:
    """Return the mean over structures of distances of DVHs, means and doses near D1 %, and the target's near D95 %."""
    terms = []
    for row, part in enumerate(shares):
        own = torch.nonzero(part > 0)[:, 0]
        if own.numel() == 0:
            continue
        weights = part[own] / part[own].sum()
        inner = own[part[own] >= 0.5]
        given, aimed = torch.sort(dose[:, inner], dim=1).values, torch.sort(planned[:, inner], dim=1).values
        terms.append((given - aimed).abs().mean() if inner.numel() else dose.sum() * 0.0)
        terms.append(((dose[:, own] - planned[:, own]) @ weights).abs().mean())
        for ends in (_HOTTEST, _COLDEST) if row == target else (_HOTTEST,):
            away = mean_between(dose[:, own], weights, *ends) - mean_between(planned[:, own], weights, *ends)
            terms.append(_ENDS_WEIGHT * away.abs().mean())
    return torch.stack(terms).sum() / max(len(shares), 1)


def mean_between(dose: Tensor, weights: Tensor, low: float, high: float) -> Tensor:
    """Return the mean dose (plans,) between two shares of a volume, counted from the hottest.

    Parameters
    ----------
    dose : tensor of shape (plans, n)
        Doses of voxels.
    weights : tensor of shape (n,)
        Their shares of the volume, which sum to 1.
    low, high : float
        0 is the hottest, 1 the coldest.
    """
    hot, order = torch.sort(dose, dim=1, descending=True)
    share = weights[order]
    edges = share.cumsum(dim=1)
    inside = edges.clamp(low, high) - (edges - share).clamp(low, high)
    return (inside * hot).sum(dim=1) / inside.sum(dim=1).clamp(min=1e-6)


def _tensor(array: npt.NDArray[Any], device: Any) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(device)


def asked_means(code: npt.ArrayLike, structures: Sequence[str]) -> Floats:
    """Return the mean doses (structures,) that DVHs stand for, by the trapezoidal rule."""
    levels = np.concatenate([[0.0], dvh_levels()])
    curves = code_parts(code, structures).values()
    return np.asarray([np.trapezoid(np.concatenate([[1.0], curve]), levels) for curve in curves])


def code_parts(code: npt.ArrayLike, structures: Sequence[str]) -> dict[str, Floats]:
    """Return the DVH (levels,) of each structure in a code."""
    rows = np.asarray(code, dtype=np.float64).reshape(len(structures), LEVELS)
    return dict(zip(structures, rows, strict=True))
