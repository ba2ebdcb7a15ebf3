"""What a planner of arcs is taught: doses and fluence of reference plans, and what apertures can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radplan.ai.airt_net import AirtNet, ArcInputs, dose_error
from radplan.ai.arc_case import ArcCase
from radplan.ai.arc_reference import sequencing_loss
from radplan.ai.loop import Task
from radplan.ai.spec import AirtSpec
from radplan.analysis.metrics import metric

Tensor = Any
Floats = npt.NDArray[np.float64]

_DOSE, _FLUENCE, _ERROR, _CHEAT = 1.0, 0.3, 1.0, 0.02
"""Weights of differences of dose and of fluence, of the error, and of what the judge says."""


@dataclass(frozen=True, eq=False)
class ArcSample:
    """A case and its reference plan.

    Parameters
    ----------
    inputs : ArcInputs
        The case.
    fluence : tensor of shape (control points, v, u)
        Of the reference plan.
    dose, proposed : tensor
        Its dose over the prescription, in the voxels of the Dij and in those of the anatomy.
    """

    inputs: ArcInputs
    fluence: Tensor
    dose: Tensor
    proposed: Tensor

    @classmethod
    def of(cls, case: ArcCase, fluence: npt.ArrayLike) -> ArcSample:
        """Return a sample of a case and its reference fluence (control points, v, u)."""
        inputs = ArcInputs.of(case)
        maps = torch.from_numpy(np.asarray(fluence, dtype=np.float32))
        dose = inputs.dose_of(maps)
        volume = torch.zeros(case.anatomy.grid.size).index_copy(0, inputs.doses, dose)
        return cls(inputs, maps, dose, volume[inputs.voxels])


class AirtTask(Task):
    """Cases of arcs, in three parts of the budget: parts apart, together, and the correction against a judge.

    Differences are absolute: of dose in the body and in each structure, of fluence in pixels that open, and the error
    of the dose. In the last part the correction alone learns, with organs asked to get less by random shares, and the
    judge learns to tell its maps from the reference's, which one opening a row gives.

    Parameters
    ----------
    spec : AirtSpec
        Networks and parts.
    train, choose : sequence of ArcSample
        Cases to train on, and cases on which the best state is chosen.
    """

    def __init__(self, spec: AirtSpec, train: Sequence[ArcSample], choose: Sequence[ArcSample]) -> None:
        self.spec = spec
        self._train, self._choose = list(train), list(choose)

    @property
    def size(self) -> int:
        return len(self._train)

    def network(self) -> AirtNet:
        return AirtNet(self.spec, len(self._train[0].inputs.case.layout.channels))

    def loss(self, net: Any, index: int, draw: np.random.Generator, device: Any, spent: float) -> tuple[str, Tensor]:
        sample = self._train[index]
        inputs, name = sample.inputs, sample.inputs.case.patient.name
        shaping = spent >= 1.0 - self.spec.shaping and self.spec.network.correction
        apart = spent < self.spec.warm
        sparing = torch.zeros(len(inputs.shares))
        if shaping:
            sparing[1:] = torch.from_numpy(draw.uniform(0, self.spec.sparing, len(sparing) - 1).astype(np.float32))
        shown = sample.proposed if apart else None
        result = net(inputs, sparing, shown, apart or shaping, sample.fluence if shaping else None)
        opened = inputs.maps[0]
        last = _FLUENCE * _difference(result["last"], sample.fluence, opened)
        error = dose_error(result["last_dose"], result["first_dose"].detach(), inputs.shares, sparing)
        last = last + _ERROR * _mean_in(error.abs(), inputs.shares)
        if shaping:
            return name, last + _CHEAT * (result["cheat"] + result["judged"] if "cheat" in result else 0.0)
        outside = torch.full_like(sample.proposed, 1.0 / sample.proposed.numel())
        loss = _DOSE * (result["proposed"] - sample.proposed).abs() @ outside
        loss = loss + _FLUENCE * _difference(result["first"], sample.fluence, opened)
        away = (result["first_dose"] - sample.dose).abs()
        loss = loss + _DOSE * (away.mean() + _mean_in(away, inputs.shares))
        return name, loss + (last if self.spec.network.correction else 0.0)

    def judged(self, net: Any, device: Any) -> dict[str, float]:
        rows = []
        for sample in self._choose:
            with torch.inference_mode():
                result = net(sample.inputs, torch.zeros(len(sample.inputs.shares)))
            dose = result["last_dose"].numpy().astype(np.float64)
            shares = sample.inputs.case.shares
            away = (result["last_dose"] - sample.dose).abs().numpy().astype(np.float64)
            homogeneity = metric("HI", dose, shares[0])
            lost = sequencing_loss(sample.inputs.case, result["last"].numpy())
            rows.append([float((shares @ away).sum()), homogeneity, lost])
        means = np.mean(rows, axis=0)
        names = ("structures", "homogeneity", "sequencing")
        return {name: round(float(value), 4) for name, value in zip(names, means, strict=True)}


def _difference(given: Tensor, wanted: Tensor, opened: Tensor) -> Tensor:
    """Return the mean absolute difference of fluence in pixels that open."""
    return ((given - wanted).abs() * opened).sum() / opened.sum()


def _mean_in(values: Tensor, shares: Tensor) -> Tensor:
    """Return the mean over structures of the means in them, the target counting as much as all organs together."""
    means = shares @ values
    return 0.5 * (means[0] + means[1:].mean())
