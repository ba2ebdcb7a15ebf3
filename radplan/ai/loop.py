"""The loop of every training: seeded, resumable, annealed over its budget, with a log that can be plotted."""

from __future__ import annotations

import json
import platform
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from radplan.ai.checkpoint import last_checkpoint, read_checkpoint, save_checkpoint
from radplan.ai.spec import TrainingSpec
from radplan.errors import CalculationError, InputError

Tensor = Any


class Task(ABC):
    """What a network is taught: the samples, the loss of each, and how good a state is."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of training samples."""

    @abstractmethod
    def network(self) -> Any:
        """Return the network with fresh weights, drawn from torch's generator."""

    @abstractmethod
    def loss(self, net: Any, index: int, draw: np.random.Generator, device: Any, spent: float) -> tuple[str, Tensor]:
        """Return the name of training sample `index` and its loss when a share of the budget is spent.

        All chance comes from `draw`, or torch's own generator.
        """

    @abstractmethod
    def judged(self, net: Any, device: Any) -> dict[str, float]:
        """Return the figures of a network on the samples kept for choices; their sum is least for the best state."""


class Training:
    """One training of a network, from its first step or from its last checkpoint.

    Parameters
    ----------
    spec : TrainingSpec
        What determines the training.
    task : Task
        What is taught.
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
        self, spec: TrainingSpec, task: Task, folder: str | Path, tell: Callable[[dict[str, Any]], None] | None = None
    ) -> None:
        self.spec, self.task, self.folder = spec, task, Path(folder)
        self._tell = tell or (lambda line: None)
        torch.set_num_threads(spec.threads)
        self._fabric = _fabric(spec)
        self.device = self._fabric.device
        torch.manual_seed(spec.seed)
        self.net = task.network()
        optimiser = torch.optim.AdamW(
            self.net.parameters(),
            lr=spec.optimiser.rate,
            weight_decay=spec.optimiser.weight_decay,
            fused=self.device.type == "cuda",
        )
        self._run, self._optimiser = self._fabric.setup(self.net, optimiser)
        self._state = self.net.state_dict()
        self.mean = {key: value.detach().clone() for key, value in self._state.items()}
        self.step = 0
        self.elapsed = np.zeros(2)
        self.best: dict[str, Any] = {}
        self._best_value = float("inf")
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
            When a loss is no number; names the sample. The last checkpoint stays.
        """
        starts, before = _clocks(), self.elapsed
        count = sum(parameter.numel() for parameter in self.net.parameters())
        self._log({"event": "start", "step": self.step, "parameters": count, "samples": self.task.size})
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

    def facts(self) -> dict[str, Any]:
        """Return what a model's card says of its training: steps, seconds, device and versions."""
        return {
            "steps": self.step,
            "processor_seconds": round(float(self.elapsed[0]), 1),
            "seconds": round(float(self.elapsed[1]), 1),
            "device": _device_name(self.device),
            "torch": torch.__version__,
            "python": platform.python_version(),
        }

    def trained(self, weights: dict[str, Tensor] | None = None) -> Any:
        """Return a network with the averaged weights, or with given ones, ready to be applied."""
        with torch.random.fork_rng(devices=[]):
            net = self.task.network().to(self.device)
        net.load_state_dict(weights or self.mean)
        return net.eval()

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
        # Why: JSON has no infinity, which stands for a training that has not been looked at.
        value = self._best_value if self.best else None
        state = {"elapsed": self.elapsed.tolist(), "best": self.best, "value": value, "spec": self.spec.digest}
        return save_checkpoint(self.folder, self.step, tensors, state)

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
        """Do one step on one sample of each process; return the name and the loss of this one."""
        turn = self.step * self.spec.processes + self._fabric.global_rank
        epoch, position = divmod(turn, self.task.size)
        order = np.random.default_rng([self.spec.seed, 1, epoch]).permutation(self.task.size)
        draw = np.random.default_rng([self.spec.seed, 2, turn])
        # Why: dropout draws from torch's own generator, which a training that goes on does not have any more.
        torch.manual_seed(int(np.random.default_rng([self.spec.seed, 3, turn]).integers(2**62)))
        for group in self._optimiser.param_groups:
            group["lr"] = self._rate()
        name, loss = self.task.loss(self._run, int(order[position]), draw, self.device, self._spent())
        self._optimiser.zero_grad(set_to_none=True)
        self._fabric.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.spec.optimiser.clip)
        self._optimiser.step()
        self.step += 1
        self._average()
        return name, loss.detach()

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
        figures = self.task.judged(self.trained(), self.device)
        line = {
            "event": "look",
            "step": self.step,
            "spent": round(self._spent(), 4),
            "processor_seconds": round(float(self.elapsed[0]), 1),
            "seconds": round(float(self.elapsed[1]), 1),
            "rate": self._rate(),
            "loss": loss,
            **figures,
        }
        value = sum(figures.values())
        if not self.best or value <= self._best_value:
            self.best, self._best_value = line, value
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
            moments = {k.removeprefix(prefix): v for k, v in tensors["optimiser"].items() if k.startswith(prefix)}
            if moments:
                whole["state"][index] = moments
        self._optimiser.load_state_dict(whole)
        self.step, self.elapsed, self.best = int(state["step"]), np.asarray(state["elapsed"]), dict(state["best"])
        self._best_value = float("inf") if state["value"] is None else float(state["value"])


def torch_device(name: str) -> str:
    """Return a device's name, after a check that torch has it.

    Raises
    ------
    InputError
        When the name is none of ``"cpu"``, ``"cuda"``, ``"cuda:N"``, or torch finds no such device.
    """
    kind = name.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InputError(f"device must be 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name!r} is wanted, but torch finds no CUDA device: take device: cpu")
    return name


def _device_name(device: Any) -> str:
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def _clocks() -> Any:
    """Return processor seconds of all threads, and seconds."""
    return np.asarray([time.process_time(), time.monotonic()])


def _fabric(spec: TrainingSpec) -> Any:
    from lightning_fabric import Fabric

    kind, _, number = torch_device(spec.device).partition(":")
    devices = [int(number)] if number else spec.processes
    strategy = "auto" if spec.processes == 1 else "ddp"
    fabric = Fabric(accelerator=kind, devices=devices, strategy=strategy, precision=spec.precision)
    fabric.launch()
    return fabric
