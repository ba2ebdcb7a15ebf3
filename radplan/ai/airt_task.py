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
from radplan.ai.loop import Task
from radplan.ai.spec import AirtSpec
from radplan.analysis.metrics import metric

Tensor = Any
Floats = npt.NDArray[np.float64]

_DOSE, _FLUENCE, _KEPT, _CHEAT = 1.0, 0.3, 0.05, 0.02
"""Weights of differences of dose, of the first and the last fluence, and of what the judge says.

The last fluence's is small: at 0.3 its pull, the same however near it is, held the correction where it was.
"""


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
    """Cases of arcs, in three parts of the budget: what comes before the correction, all, the correction and a judge.

    The first parts learn absolute differences, of dose in the body and in each structure and of fluence in pixels that
    open. The correction learns what is `wrong` with the dose, organs asked to get less by random shares. In the last
    part it alone learns, and the judge learns to tell its maps from the reference's, which one opening a row gives.

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
        return AirtNet(self.spec, self._train[0].inputs.case.layout.channels)

    def loss(self, net: Any, index: int, draw: np.random.Generator, device: Any, spent: float) -> tuple[str, Tensor]:
        sample = self._train[index]
        inputs, name = sample.inputs, sample.inputs.case.patient.name
        shaping = spent >= 1.0 - self.spec.shaping and self.spec.network.correction
        warm = spent < self.spec.warm and not shaping
        sparing = torch.zeros(len(inputs.shares))
        asked = draw.uniform(0, self.spec.sparing, len(sparing) - 1) * draw.integers(0, 2, len(sparing) - 1)
        sparing[1:] = torch.from_numpy(asked.astype(np.float32))
        shown, real = sample.proposed if warm else None, sample.fluence if shaping else None
        result = net(inputs, sparing, shown, real, not warm)
        loss = torch.zeros(())
        if not shaping:
            outside = torch.full_like(sample.proposed, 1.0 / sample.proposed.numel())
            loss = _DOSE * (result["proposed"] - sample.proposed).abs() @ outside
            loss = loss + _FLUENCE * _difference(result["first"], sample.fluence, inputs.maps[0])
            away = (result["first_dose"] - sample.dose).abs()
            loss = loss + _DOSE * (away.mean() + _mean_in(away, inputs.shares))
        if self.spec.network.correction and not warm:
            loss = loss + wrong(result["last_dose"], result["first_dose"].detach(), inputs.shares, sparing)
            loss = loss + _KEPT * _difference(result["last"], sample.fluence, inputs.maps[0])
        if "cheat" in result:
            loss = loss + _CHEAT * (result["cheat"] + result["judged"])
        return name, loss

    def judged(self, net: Any, device: Any) -> dict[str, float]:
        rows = []
        for sample in self._choose:
            with torch.inference_mode():
                result = net(sample.inputs, torch.zeros(len(sample.inputs.shares)))
            dose = result["last_dose"]
            lacks = wrong(dose, sample.dose, sample.inputs.shares, torch.zeros(len(sample.inputs.shares)))
            rows.append([float(lacks), metric("HI", dose.numpy().astype(np.float64), sample.inputs.case.shares[0])])
        means = np.mean(rows, axis=0)
        return {name: round(float(value), 4) for name, value in zip(("wrong", "homogeneity"), means, strict=True)}


def wrong(dose: Tensor, before: Tensor, shares: Tensor, sparing: Tensor) -> Tensor:
    """Return the root mean square of the target's error, and of each organ the mean of its excess, in all.

    Parameters are those of `radplan.ai.airt_net.dose_error`, whose terms these are.
    """
    inside = shares[0] / shares[0].max()
    target = dose_error(dose, before, shares, sparing)[0]
    excess = torch.relu(dose[None] - (1.0 - sparing[1:, None]) * before[None])
    return (target.square().sum() / inside.square().sum()).sqrt() + (shares[1:] * excess).sum()


def _difference(given: Tensor, wanted: Tensor, opened: Tensor) -> Tensor:
    """Return the mean absolute difference of fluence in pixels that open."""
    return ((given - wanted).abs() * opened).sum() / opened.sum()


def _mean_in(values: Tensor, shares: Tensor) -> Tensor:
    """Return the mean over structures of the means in them, the target counting as much as all organs together."""
    means = shares @ values
    return 0.5 * (means[0] + means[1:].mean())
