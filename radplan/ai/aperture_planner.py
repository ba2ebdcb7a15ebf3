"""Leaves, jaws and monitor units of an arc by a network that learns through the dose of apertures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from radplan.ai import as_torch
from radplan.ai.arc_case import ArcCase
from radplan.ai.arc_cohort import arc_machine, data_facts, named_case, reference_arcs
from radplan.ai.cards import Model, load_weights, read_model, save_model, save_scored
from radplan.ai.loop import Task, Training
from radplan.ai.nets.aperture_net import ApertureNet
from radplan.ai.spec import ApertureSpec
from radplan.beams.arc import place_arc
from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.sequencing.runs import arc_of_openings
from radplan.engines import ApertureOptions, aperture_model
from radplan.engines.aperture.variables import FieldLayout
from radplan.errors import InputError
from radplan.machines.limits import MachineLimits, machine_limits
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient

Tensor = Any
Floats = npt.NDArray[np.float64]

FORMAT = "radplan aperture planner 1"

_START, _STOP = 181.0, 179.0
"""Where the arc begins and ends [degree]; control points stand where the maps do, within a degree."""

_SPACING = 4.0
"""Largest distance of the delivered arc's control points [degree]: dose is calculated at each of them."""

_JAW_REACH = 10.0
"""How far jaws may be moved from those around the target [mm]."""

_SPEED_WEIGHT = 0.02
"""Weight of the mean distance that leaves go too far between control points, per mm."""

_ENGINE = ApertureOptions(
    pixel=2.0, lateral_cutoff=50.0, head_scatter=False, back_scatter=False, tongue_and_groove=False, ray_spacing=3.0
)
"""The engine in training: all that shapes dose, without what takes long and changes it by a percent or two."""

_LIMITS = (
    "Synthetic anatomies of the pelvis, one prescription, one arc of one linac; no clinical use.",
    "What leaves are asked is projected to what they can do: only the dose calculated again counts.",
)


@dataclass(frozen=True, eq=False)
class ApertureInputs:
    """A case with the arc that fits its target, and the dose of what a network makes of it.

    Parameters
    ----------
    case : ArcCase
        The case.
    layout : FieldLayout
        Leaves, jaws and monitor units that fit the target.
    rows : array of shape (pairs,)
        Row of the maps that each leaf pair lies in.
    dose : torch.nn.Module
        From leaves, jaws and monitor units to dose per fraction (1, voxels).
    voxels : array of shape (voxels of the Dij,)
        Where its voxels are among those of `dose`.
    unit : float
        Factor on monitor units with which the fitted arc gives the target the prescribed mean.
    """

    case: ArcCase
    layout: FieldLayout
    rows: npt.NDArray[np.int64]
    dose: Any
    voxels: npt.NDArray[np.int64]
    unit: float

    @classmethod
    def of(cls, case: ArcCase, spec: ApertureSpec) -> ApertureInputs:
        """Return the inputs of a case for the linac of a specification."""
        machine, limits = arc_machine(spec), machine_limits(spec.limits)
        mlc = limits.collimator()
        arc = place_arc(
            case.patient, machine, mlc, start=_START, stop=_STOP, spacing=358.0 / case.arc.control_points, margin=0.0,
            isocenter=case.isocentre, targets=[case.target], limits=limits,
        )  # fmt: skip
        model = aperture_model(case.patient, arc, machine, mlc, case.anatomy.grid, _ENGINE)
        layer = as_torch(model, "physical_dose")
        start = np.asarray(model.variables.start)
        voxels = np.searchsorted(np.asarray(model.voxels), np.asarray(case.dij.voxels))
        dose = np.asarray(model.forward(start)["physical_dose"])[0][voxels]
        middles = 0.5 * (mlc.boundaries[1:] + mlc.boundaries[:-1])
        rows = np.rint(middles / case.arc.pitch + (case.arc.pixels - 1) / 2).astype(np.int64)
        unit = case.prescription / float(dose @ case.shares[0])
        layout = FieldLayout.of(arc.fields[0], 0)
        return cls(case, layout, np.clip(rows, 0, case.arc.pixels - 1), layer, voxels, unit)

    @property
    def maps(self) -> Tensor:
        """What the network sees, from the first control point of the arc on (maps, control points, v, u)."""
        return torch.from_numpy(np.roll(self.case.maps, -(self.case.arc.control_points // 2), axis=1).copy())

    def openings(self, answer: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor]:
        """Return leaves (openings, pairs, 2) [mm], jaws (4,) [mm] and units (segments,) [MU] of a network's answer."""
        shift, width, units, outwards = answer
        count = self.case.arc.control_points
        # Why: an arc begins and ends in the same direction; each opening stands at its first control point.
        first = np.unique(self.layout.openings, return_index=True)[1] % count
        fitted = torch.from_numpy(self.layout.leaves.astype(np.float32))
        middle, half = fitted.mean(dim=2), 0.5 * (fitted[..., 1] - fitted[..., 0])
        at = (torch.from_numpy(first)[:, None], torch.from_numpy(self.rows)[None])
        middle, half = middle + half * shift[at], half * width[at]
        leaves = torch.stack([middle - half, middle + half], dim=2)
        low, high = self.layout.jaws[:, ::2].min(axis=0), self.layout.jaws[:, 1::2].max(axis=0)
        around = torch.tensor([low[0], high[0], low[1], high[1]], dtype=torch.float32)
        jaws = around + _JAW_REACH * outwards * torch.tensor([-1.0, 1.0, -1.0, 1.0])
        fitted_units = torch.tensor([self.layout.field.segments[i].mu for i in self.layout.delivering])
        between = 0.5 * (units + torch.roll(units, -1))
        return leaves, jaws, self.unit * fitted_units * between

    def dose_of(self, opened: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the dose (voxels of the Dij,), over the prescription, of leaves, jaws and monitor units."""
        leaves, jaws, units = opened
        x = torch.cat([leaves.flatten(), jaws.repeat(len(leaves)), units])
        return self.dose(x)[0, torch.from_numpy(self.voxels)] / self.case.prescription


def aperture_net(spec: ApertureSpec) -> ApertureNet:
    """Return the network of a specification, with fresh weights."""
    return ApertureNet(2 + len(spec.organs), spec.arc.pixels, spec.network.widths, spec.network.hidden)


class ApertureTask(Task):
    """Doses of reference arcs, in every voxel and as DVHs, with leaves that can follow the gantry.

    Parameters
    ----------
    spec : ApertureSpec
        Networks and weights.
    train, choose : sequence of (ApertureInputs, array of shape (voxels,))
        Cases and their reference doses over the prescription, to learn from and for choices.
    """

    def __init__(
        self,
        spec: ApertureSpec,
        train: Sequence[tuple[ApertureInputs, Floats]],
        choose: Sequence[tuple[ApertureInputs, Floats]],
    ) -> None:
        self.spec, self._train, self._choose = spec, list(train), list(choose)
        keeping = machine_limits(spec.limits).planning()
        turn = 360.0 / spec.arc.control_points
        self._travel = keeping.leaf_speed * turn / (0.5 * keeping.gantry_speed)

    @property
    def size(self) -> int:
        return len(self._train)

    def network(self) -> ApertureNet:
        return aperture_net(self.spec)

    def loss(self, net: Any, index: int, draw: np.random.Generator, device: Any, spent: float) -> tuple[str, Tensor]:
        inputs, reference = self._train[index]
        opened = inputs.openings(net(inputs.maps))
        too_far = torch.relu((opened[0][1:] - opened[0][:-1]).abs() - self._travel).mean()
        return inputs.case.patient.name, self._away(inputs, reference, opened) + _SPEED_WEIGHT * too_far

    def judged(self, net: Any, device: Any) -> dict[str, float]:
        with torch.inference_mode():
            away = [self._away(inputs, dose, inputs.openings(net(inputs.maps))) for inputs, dose in self._choose]
        return {"away": round(float(np.mean([float(value) for value in away])), 5)}

    def _away(self, inputs: ApertureInputs, reference: Floats, opened: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """Return the mean absolute difference of dose, and in structures those of dose and of DVH."""
        dose, wanted = inputs.dose_of(opened), torch.from_numpy(reference.astype(np.float32))
        away = (dose - wanted).abs()
        loss = away.mean()
        for share in inputs.case.shares:
            inside = torch.from_numpy(np.flatnonzero(share > 0))
            curves = dose[inside].sort().values - wanted[inside].sort().values
            loss = loss + (away[inside].mean() + self.spec.dvh_weight * curves.abs().mean()) / len(inputs.case.shares)
        return loss


@dataclass(frozen=True, eq=False)
class ApertureProposal:
    """What a network of machine parameters says of a case.

    Parameters
    ----------
    case : ArcCase
        The case.
    arc : DeliveryPlan
        The arc nearest to what the network says that the linac can deliver.
    seconds : mapping of str to float
        Processor seconds of ``"case"`` (dose influence, fitted arc, its engine) and ``"networks"``.
    """

    case: ArcCase
    arc: DeliveryPlan
    seconds: Mapping[str, float]


class AperturePlanner:
    """A network that gives leaves, jaws and monitor units, with its card.

    Parameters
    ----------
    model : Model
        Card and weights.
    device : str
        ``"cpu"``, where the engine is.

    Raises
    ------
    InputError
        When the weights do not fit the card's network, or the device is another.
    """

    def __init__(self, model: Model, device: str = "cpu") -> None:
        if device != "cpu":
            raise InputError(f"arcs are planned by networks on the CPU, where the engine is, got {device!r}")
        self.card = dict(model.card)
        self.spec = ApertureSpec.model_validate(self.card["spec"])
        self._net = aperture_net(self.spec)
        load_weights(self._net, model)
        self._net.eval()

    @property
    def machine(self) -> PhotonMachine:
        """The linac's beam that the network was trained for."""
        return arc_machine(self.spec)

    @property
    def limits(self) -> MachineLimits:
        """What the linac that the network was trained for can do."""
        return machine_limits(self.spec.limits)

    def propose(self, patient: Patient) -> ApertureProposal:
        """Return the arc for a patient, whose structures have any names that the protocol understands.

        Raises
        ------
        InputError
            When target or organs are missing, or the target is wider than the network sees.
        """
        began = time.process_time()
        case = named_case(self.spec, patient)
        inputs = ApertureInputs.of(case, self.spec)
        ready = time.process_time()
        arc = self.arc(inputs)
        return ApertureProposal(case, arc, {"case": ready - began, "networks": time.process_time() - ready})

    def openings(self, inputs: ApertureInputs) -> tuple[Tensor, Tensor, Tensor]:
        """Return leaves, jaws and monitor units as the network says; see `ApertureInputs.openings`."""
        with torch.inference_mode():
            return inputs.openings(self._net(inputs.maps))

    def arc(self, inputs: ApertureInputs) -> DeliveryPlan:
        """Return the arc nearest to what the network says that the linac can deliver.

        Between the network's control points leaves move evenly, and monitor units are given evenly.
        """
        leaves, jaws, units = (part.numpy().astype(np.float64) for part in self.openings(inputs))
        limits, layout = self.limits, inputs.layout
        gantry = np.unwrap([point.gantry for point in layout.field.points], period=360.0)
        parts = int(np.ceil(np.abs(np.diff(gantry)).max() / _SPACING))
        steps = np.arange((gantry.size - 1) * parts + 1) / parts
        before, after = np.floor(steps).astype(np.int64), np.ceil(steps).astype(np.int64)
        share = (steps - before)[:, None, None]
        ends, fitted = leaves[layout.openings], np.ptp(layout.leaves, axis=2)[layout.openings] > limits.dynamic_gap
        return arc_of_openings(
            (1.0 - share) * ends[before] + share * ends[after], fitted[before] | fitted[after],
            np.repeat(units / parts, parts), np.interp(steps, np.arange(gantry.size), gantry) % 360.0,
            inputs.case.isocentre, self.machine, limits.collimator(), limits, fractions=inputs.case.protocol.fractions,
            jaws=np.stack([jaws[:2], jaws[2:]]),
        )  # fmt: skip


def load_aperture_planner(model: str | Path) -> AperturePlanner:
    """Return a planner of machine parameters that comes with radplan, by name, or that of a folder.

    Raises
    ------
    UnknownNameError
        When there is neither a model nor a folder of that name.
    FileError
        When the card is missing or of another format, or the weights are damaged, pickled or not the card's.
    """
    return AperturePlanner(read_model(model, (FORMAT,)))


def fit_aperture_planner(
    spec: ApertureSpec,
    data: str | Path,
    folder: str | Path,
    tell: Callable[[dict[str, Any]], None] | None = None,
) -> Path:
    """Train a network that gives machine parameters and write it to ``folder/model``; a half-done training goes on.

    The best state by the patients in `choose` is kept; test patients are scored once, by the engine of the training.

    Parameters
    ----------
    spec : ApertureSpec
        What determines the training.
    data : path-like
        Where reference fluence is kept.
    folder : path-like
        For checkpoints, log, model and scores.
    tell : callable, optional
        Called with each line of the log.
    """
    folder = Path(folder)
    if spec.arc.control_points % 2:
        raise InputError(f"an arc starts from behind: control_points must be even, got {spec.arc.control_points}")
    train, choose = (
        [
            (ApertureInputs.of(case, spec), _reference_dose(case, fluence))
            for case, fluence in reference_arcs(spec, getattr(spec.data, part), Path(data))
        ]
        for part in ("train", "choose")
    )
    training = Training(spec, ApertureTask(spec, train, choose), folder, tell)
    best = training.run()
    if not training.first:
        return folder / "model"
    facts: dict[str, Any] = {
        "spec": spec.model_dump(mode="json"),
        "data": data_facts(spec),
        "limits": list(_LIMITS),
        "chosen": best,
        "trained": training.facts(),
        "date": time.strftime("%Y-%m-%d"),
    }
    return save_scored(
        partial(save_model, folder / "model", FORMAT, spec.name, training.weights()),
        facts,
        lambda model: aperture_scores(model, reference_arcs(spec, spec.data.test, Path(data))),
    )


def aperture_scores(model: Path, cases: Sequence[tuple[ArcCase, Floats]]) -> dict[str, Any]:
    """Return test patients' figures by the engine of the training, before leaves are brought to what they can do.

    Parameters
    ----------
    model : path-like
        The planner's folder.
    cases : sequence of (ArcCase, array of shape (control points, v, u))
        Test patients and their reference fluence.
    """
    planner = load_aperture_planner(model)
    rows: dict[str, list[dict[str, float]]] = {"network": [], "reference": []}
    away = []
    for case, fluence in cases:
        inputs = ApertureInputs.of(case, planner.spec)
        dose, wanted = (
            inputs.dose_of(planner.openings(inputs)).numpy().astype(np.float64),
            _reference_dose(case, fluence),
        )
        rows["network"].append(case.figures(dose))
        rows["reference"].append(case.figures(wanted))
        away.append(float(np.abs(dose - wanted).mean()))
    return {
        "n": len(cases),
        "patients": [case.patient.name for case, _ in cases],
        "figures": {
            label: {name: round(float(np.mean([row[name] for row in values])), 4) for name in values[0]}
            for label, values in rows.items()
        },
        "mean_difference": round(float(np.mean(away)), 4),
        "date": time.strftime("%Y-%m-%d"),
    }


def _reference_dose(case: ArcCase, fluence: npt.ArrayLike) -> Floats:
    dose = np.asarray(case.dij.forward(case.weights(fluence))["physical_dose"])[0]
    return np.asarray(dose / case.prescription, dtype=np.float64)
