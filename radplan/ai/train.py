"""Training of a dose network: seeded, resumable, annealed over its budget, with a log that can be plotted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radplan.ai.checkpoint import last_checkpoint, read_checkpoint, save_checkpoint
from radplan.ai.data import Sample, mirrored
from radplan.ai.features import Layout
from radplan.ai.losses import dvh_loss, groups_of, pooled
from radplan.ai.metrics import PatientScore, patient_score, scores
from radplan.ai.nets.resunet import DoseNet
from radplan.ai.spec import TrainSpec
from radplan.errors import CalculationError, InputError

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


class Trainer:
    """One training of a dose network, from its first step or from its last checkpoint.

    Parameters
    ----------
    spec : TrainSpec
        What determines the training.
    layout : Layout
        The channels of the samples.
    train, choose : sequence of Sample
        Patients to train on, and patients on whom the best state is chosen.
    folder : path-like
        Where checkpoints and the log ``log.jsonl`` are kept.
    tell : callable, optional
        Called with each line of the log, a dict.

    Raises
    ------
    InputError
        When torch has no such device, or `folder` holds the checkpoint of another specification.
    """

    def __init__(
        self,
        spec: TrainSpec,
        layout: Layout,
        train: Sequence[Sample],
        choose: Sequence[Sample],
        folder: str | Path,
        tell: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:
        self.spec, self.layout, self.folder = spec, layout, Path(folder)
        self._tell = tell or (lambda line: None)
        torch.set_num_threads(spec.threads)
        self._fabric = _fabric(spec)
        self.device = self._fabric.device
        torch.manual_seed(spec.seed)
        self.net = dose_net(spec, layout)
        optimiser = torch.optim.AdamW(
            self.net.parameters(),
            lr=spec.optimiser.rate,
            weight_decay=spec.optimiser.weight_decay,
            fused=self.device.type == "cuda",
        )
        self._run, self._optimiser = self._fabric.setup(self.net, optimiser)
        self._state = self.net.state_dict()
        self.mean = {key: value.detach().clone() for key, value in self._state.items()}
        self._train, self._choose = list(train), list(choose)
        self._inputs: dict[tuple[int, bool], Inputs] = {}
        self.step = 0
        self.elapsed = np.zeros(2)
        self.best: dict[str, Any] = {}
        self._best_weights: dict[str, Tensor] = {}
        self._resume()

    @property
    def first(self) -> bool:
        """Whether this is the first of the training's processes, the one that writes files."""
        return bool(self._fabric.global_rank == 0)

    def run(self, until: int | None = None) -> dict[str, Any]:
        """Train until the budget is spent, or step `until` is done; return the best line of the log.

        Raises
        ------
        CalculationError
            When a loss is no number; names the patient. The last checkpoint stays.
        """
        starts, before = _clocks(), self.elapsed
        count = sum(parameter.numel() for parameter in self.net.parameters())
        self._log({"event": "start", "step": self.step, "parameters": count, "patients": len(self._train)})
        recent: list[tuple[str, Tensor]] = []
        looks = int(self._spent() / self.spec.interval)
        while self._spent() < 1.0 and (until is None or self.step < until):
            recent.append(self._one_step())
            self.elapsed = before + self._summed(_clocks() - starts)
            if self.step == 5:
                self._log({"event": "pace", "step": 5, "seconds_per_step": self.elapsed[1] / 5})
            if len(recent) == 100:
                self._check(recent)
                recent = recent[-1:]
            if self._spent() >= 1.0 or int(self._spent() / self.spec.interval) > looks:
                looks = int(self._spent() / self.spec.interval)
                self._look(recent)
                recent = []
        if until is not None and self._spent() < 1.0:
            self._check(recent)
            if self.first:
                self.save()
        self._fabric.barrier()
        return self.best

    def weights(self) -> dict[str, Tensor]:
        """Return the averaged weights of the best look, on the CPU."""
        chosen = self._best_weights or self.mean
        return {key: value.detach().cpu() for key, value in chosen.items()}

    def save(self) -> Path:
        """Write a checkpoint from which the training goes on as if nothing had happened."""
        moments = {}
        names = [name for name, _ in self.net.named_parameters()]
        for index, entries in self._optimiser.state_dict()["state"].items():
            for key, value in entries.items():
                moments[f"{names[index]}/{key}"] = value.detach().cpu()
        tensors = {
            "weights": {key: value.detach().cpu() for key, value in self.net.state_dict().items()},
            "mean": {key: value.detach().cpu() for key, value in self.mean.items()},
            "best": self.weights(),
            "optimiser": moments,
        }
        state = {"elapsed": self.elapsed.tolist(), "best": self.best, "spec": self.spec.digest}
        return save_checkpoint(self.folder, self.step, tensors, state)

    def score(self, samples: Sequence[Sample], weights: dict[str, Tensor] | None = None) -> list[PatientScore]:
        """Return each patient's score with the averaged weights, as the mean of the patient and the mirrored one."""
        net = dose_net(self.spec, self.layout).to(self.device)
        net.load_state_dict(weights or self.mean)
        return [self._score(net, sample) for sample in samples]

    def _score(self, net: DoseNet, sample: Sample) -> PatientScore:
        dose = predicted(net, sample, self.layout, self.spec.precision, self.device)
        count = sample.dose.size
        sums = np.bincount(sample.parents, dose, minlength=count)
        given = self.layout.prescription * sums / np.bincount(sample.parents, minlength=count)
        planned = self.layout.prescription * np.asarray(sample.dose, dtype=np.float64)
        names = self.layout.structures
        masks = {name: ((sample.members >> np.uint16(k)) & 1).astype(bool) for k, name in enumerate(names)}
        volume = sample.voxel_volume * (1 if sample.exact else 8)
        everywhere = np.ones(count, dtype=bool)
        return patient_score(sample.name, given, planned, everywhere, masks, list(self.layout.levels), volume)

    def _summed(self, clocks: Any) -> Any:
        """Return processor seconds of all processes together, and the seconds of the slowest."""
        if self.spec.processes == 1:
            return clocks
        own = torch.tensor(clocks, dtype=torch.float64, device=self.device)
        total = self._fabric.all_reduce(own.clone(), reduce_op="sum").cpu().numpy()
        return np.asarray([total[0], total[1] / self.spec.processes])

    def _spent(self) -> float:
        budget = self.spec.budget
        used = (self.step, float(self.elapsed[0]), float(self.elapsed[1]))
        limits = (budget.steps, budget.processor_seconds, budget.seconds)
        return max(part / limit for part, limit in zip(used, limits, strict=True) if limit is not None)

    def _one_step(self) -> tuple[str, Tensor]:
        """Do one step on one patient of each process; return the name and the loss of this one."""
        turn = self.step * self.spec.processes + self._fabric.global_rank
        epoch, position = divmod(turn, len(self._train))
        order = np.random.default_rng([self.spec.seed, 1, epoch]).permutation(len(self._train))
        draw = np.random.default_rng([self.spec.seed, 2, turn])
        inputs = self._input(int(order[position]), bool(draw.random() < 0.5))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        chosen, wanted, parents = _drawn(inputs, self.spec.voxels, draw)
        dose = self._run(inputs.channels.float(), inputs.voxels, inputs.shape, wanted)
        given = dose if chosen.numel() == dose.numel() else pooled(dose, parents, chosen.numel())
        planned = inputs.dose[chosen]
        loss = (given - planned).abs().mean()
        if self.spec.dvh_weight:
            groups = inputs.groups
            if chosen.numel() < inputs.dose.numel():
                groups = groups_of(inputs.members[chosen], len(self.layout.structures))
            loss = loss + self.spec.dvh_weight * dvh_loss(given, planned, groups, len(self.layout.levels))
        self._optimiser.zero_grad(set_to_none=True)
        self._fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.spec.optimiser.clip)
        self._optimiser.step()
        self.step += 1
        self._average()
        return inputs.name, loss.detach()

    def _rate(self) -> float:
        settings = self.spec.optimiser
        cosine = 0.5 * (1.0 + float(np.cos(np.pi * min(self._spent(), 1.0))))
        return settings.rate * (min(1.0, (self.step + 1) / settings.warmup) * cosine + 1e-4)

    def _average(self) -> None:
        keep = min(self.spec.optimiser.mean, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = [(self.mean[key], value) for key, value in self._state.items() if value.is_floating_point()]
            torch._foreach_lerp_([mean for mean, _ in pairs], [value for _, value in pairs], 1.0 - keep)
            for key, value in self._state.items():
                if not value.is_floating_point():
                    self.mean[key].copy_(value)

    def _input(self, index: int, mirror: bool) -> Inputs:
        key = (index, mirror)
        if key in self._inputs:
            return self._inputs[key]
        sample = self._train[index]
        inputs = Inputs.of(
            mirrored(sample, self.layout) if mirror else sample, self.device, len(self.layout.structures)
        )
        if self.device.type != "cpu":
            self._inputs[key] = inputs
        return inputs

    def _check(self, recent: Sequence[tuple[str, Tensor]]) -> float:
        """Return the mean loss of recent steps; raise `CalculationError` when one is no number."""
        if not recent:
            return float("nan")
        values = torch.stack([value for _, value in recent]).cpu().numpy()
        if not np.isfinite(values).all():
            name = recent[int(np.argmin(np.isfinite(values)))][0]
            kept = last_checkpoint(self.folder)
            raise CalculationError(
                f"the loss of patient {name} before step {self.step} is no number; lower the rate. "
                f"The last good checkpoint is {kept or 'none yet'}"
            )
        return float(values.mean())

    def _look(self, recent: Sequence[tuple[str, Tensor]]) -> None:
        loss = self._check(recent)
        self._fabric.barrier()
        if not self.first:
            return
        dose, dvh = scores(self.score(self._choose))
        line = {
            "event": "look",
            "step": self.step,
            "spent": round(self._spent(), 4),
            "processor_seconds": round(float(self.elapsed[0]), 1),
            "seconds": round(float(self.elapsed[1]), 1),
            "rate": self._rate(),
            "loss": loss,
            "dose_score": dose,
            "dvh_score": dvh,
        }
        if not self.best or dose + dvh <= self.best["dose_score"] + self.best["dvh_score"]:
            self.best = line
            self._best_weights = {key: value.detach().clone() for key, value in self.mean.items()}
        self._log(line)
        self.save()

    def _log(self, line: dict[str, Any]) -> None:
        if not self.first:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log.jsonl").open("a") as stream:
            stream.write(json.dumps(line) + "\n")
        self._tell(line)

    def _resume(self) -> None:
        path = last_checkpoint(self.folder)
        if path is None:
            return
        tensors, state = read_checkpoint(path, ("weights", "mean", "best", "optimiser"))
        if state["spec"] != self.spec.digest:
            raise InputError(f"{path} belongs to another specification: give a new folder, or take the old one back")
        self.net.load_state_dict(tensors["weights"])
        self.mean = {key: value.to(self.device) for key, value in tensors["mean"].items()}
        self._best_weights = {key: value.to(self.device) for key, value in tensors["best"].items()}
        whole = self._optimiser.state_dict()
        for index, (name, _) in enumerate(self.net.named_parameters()):
            prefix = f"{name}/"
            found = {k.removeprefix(prefix): v for k, v in tensors["optimiser"].items() if k.startswith(prefix)}
            if found:
                whole["state"][index] = found
        self._optimiser.load_state_dict(whole)
        self.step, self.elapsed, self.best = int(state["step"]), np.asarray(state["elapsed"]), dict(state["best"])


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


def _clocks() -> Any:
    """Return processor seconds of all threads, and seconds."""
    return np.asarray([time.process_time(), time.monotonic()])


def _fabric(spec: TrainSpec) -> Any:
    from lightning_fabric import Fabric

    kind, _, number = spec.device.partition(":")
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {spec.device!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {spec.device!r} is wanted, but torch finds no CUDA device: take device: cpu")
    devices = [int(number)] if number else spec.processes
    strategy = "auto" if spec.processes == 1 else "ddp"
    fabric = Fabric(accelerator=kind, devices=devices, strategy=strategy, precision=spec.precision)
    fabric.launch()
    return fabric
