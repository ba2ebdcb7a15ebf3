"""What a dose network is taught: planned dose in the voxels where it counts, and the DVHs that come of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from radplan.ai.cards import load_weights, read_model
from radplan.ai.data import Sample, mirrored
from radplan.ai.features import Layout
from radplan.ai.loop import Task
from radplan.ai.losses import dvh_loss, groups_of, pooled
from radplan.ai.metrics import PatientScore, patient_score, scores
from radplan.ai.nets.resunet import DoseNet
from radplan.ai.spec import TrainSpec

FORMAT = "radplan dose proposer 1"

Tensor = Any


@dataclass(frozen=True, eq=False)
class Inputs:
    """A sample as tensors on the device of the training; see `radplan.ai.data.Sample`."""

    name: str
    shape: tuple[int, int, int]
    voxels: Tensor
    channels: Tensor
    parents: Tensor
    dose: Tensor
    members: Tensor
    groups: list[Tensor]

    @classmethod
    def of(cls, sample: Sample, device: Any, structures: int = 0) -> Inputs:
        """Return a sample's tensors; channels stay float16 until they are used."""

        def whole(array: Any) -> Tensor:
            return torch.from_numpy(np.asarray(array).astype(np.int64)).to(device)

        channels = torch.from_numpy(np.array(sample.channels)).to(device)
        dose = torch.from_numpy(np.array(sample.dose)).to(device)
        parents, members = whole(sample.parents), whole(sample.members)
        groups = groups_of(members, structures)
        return cls(sample.name, sample.shape, whole(sample.voxels), channels, parents, dose, members, groups)


class DoseTask(Task):
    """Dose of an anatomy: a network's against the planned one, in the voxels where dose counts.

    Parameters
    ----------
    spec : TrainSpec
        Network, voxels and losses.
    layout : Layout
        The channels of the samples.
    train, choose : sequence of Sample
        Patients to train on, and patients on whom the best state is chosen.
    """

    def __init__(self, spec: TrainSpec, layout: Layout, train: Sequence[Sample], choose: Sequence[Sample]) -> None:
        self.spec, self.layout = spec, layout
        self._train, self._choose = list(train), list(choose)
        self._inputs: dict[tuple[int, bool], Inputs] = {}

    @property
    def size(self) -> int:
        return len(self._train)

    def network(self) -> DoseNet:
        net = dose_net(self.spec, self.layout)
        if self.spec.start is not None:
            load_weights(net, read_model(self.spec.start, (FORMAT,)))
        return net

    def loss(self, net: Any, index: int, draw: np.random.Generator, device: Any, spent: float) -> tuple[str, Tensor]:
        inputs = self._input(index, bool(draw.random() < 0.5), device)
        chosen, wanted, parents = _drawn(inputs, self.spec.voxels, draw)
        dose = net(inputs.channels.float(), inputs.voxels, inputs.shape, wanted)
        given = dose if chosen.numel() == dose.numel() else pooled(dose, parents, chosen.numel())
        planned = inputs.dose[chosen]
        loss = (given - planned).abs().mean()
        if self.spec.dvh_weight:
            groups = inputs.groups
            if chosen.numel() < inputs.dose.numel():
                groups = groups_of(inputs.members[chosen], len(self.layout.structures))
            loss = loss + self.spec.dvh_weight * dvh_loss(given, planned, groups, len(self.layout.levels))
        return inputs.name, loss

    def judged(self, net: Any, device: Any) -> dict[str, float]:
        dose, dvh = scores(self.score(self._choose, net, device))
        return {"dose_score": dose, "dvh_score": dvh}

    def score(self, samples: Sequence[Sample], net: Any, device: Any) -> list[PatientScore]:
        """Return each patient's score, of the mean of the patient's dose and the mirrored one's."""
        return [self._score(net, sample, device) for sample in samples]

    def _score(self, net: DoseNet, sample: Sample, device: Any) -> PatientScore:
        dose = predicted(net, sample, self.layout, self.spec.precision, device)
        count = sample.dose.size
        sums = np.bincount(sample.parents, dose, minlength=count)
        given = self.layout.prescription * sums / np.bincount(sample.parents, minlength=count)
        planned = self.layout.prescription * np.asarray(sample.dose, dtype=np.float64)
        names = self.layout.structures
        masks = {name: ((sample.members >> np.uint16(k)) & 1).astype(bool) for k, name in enumerate(names)}
        volume = sample.voxel_volume * (1 if sample.exact else 8)
        everywhere = np.ones(count, dtype=bool)
        return patient_score(sample.name, given, planned, everywhere, masks, list(self.layout.levels), volume)

    def _input(self, index: int, mirror: bool, device: Any) -> Inputs:
        key = (index, mirror)
        if key in self._inputs:
            return self._inputs[key]
        sample = self._train[index]
        inputs = Inputs.of(mirrored(sample, self.layout) if mirror else sample, device, len(self.layout.structures))
        if torch.device(device).type != "cpu":
            self._inputs[key] = inputs
        return inputs


def dose_net(spec: TrainSpec, layout: Layout) -> DoseNet:
    """Return the network of a specification, with fresh weights."""
    network = spec.network
    return DoseNet(len(layout.channels), network.widths, network.pool, network.head, network.norm)


def predicted(net: DoseNet, sample: Sample, layout: Layout, precision: str, device: Any) -> Any:
    """Return the dose (n,) of a sample's voxels: the mean of the patient and the mirrored one."""
    net.eval()
    total = 0.0
    mixed = precision == "bf16-mixed"
    for each in (sample, mirrored(sample, layout)):
        inputs = Inputs.of(each, device)
        everything = torch.arange(inputs.voxels.numel(), device=device)
        with torch.inference_mode(), torch.autocast(torch.device(device).type, torch.bfloat16, enabled=mixed):
            dose = net(inputs.channels.float(), inputs.voxels, inputs.shape, everything)
        total = total + dose.float().cpu().numpy().astype(np.float64) / 2
    return total


def _drawn(inputs: Inputs, count: int | None, draw: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Return reference voxels (m,), the voxels in them (k,), and the place of each one's parent among the m."""
    total = inputs.dose.numel()
    per_parent = inputs.voxels.numel() / total
    wanted = total if count is None else int(count / per_parent)
    if wanted >= total:
        everything = torch.arange(inputs.voxels.numel(), device=inputs.voxels.device)
        return torch.arange(total, device=everything.device), everything, inputs.parents
    seed = int(draw.integers(2**62))
    generator = torch.Generator(device=inputs.voxels.device).manual_seed(seed)
    keys = torch.rand(total, device=inputs.voxels.device, generator=generator)
    taken = torch.zeros(total, dtype=torch.bool, device=keys.device)
    taken[torch.topk(keys, wanted, largest=False).indices] = True
    chosen = torch.nonzero(taken)[:, 0]
    rank = torch.cumsum(taken, 0) - 1
    voxels = torch.nonzero(taken[inputs.parents])[:, 0]
    return chosen, voxels, rank[inputs.parents[voxels]]
