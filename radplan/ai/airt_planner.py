"""A planner of arcs by networks: anatomy to fluence in one pass, then leaves, monitor units and a file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from radplan.ai.airt_net import AirtNet, ArcInputs
from radplan.ai.arc_case import ArcCase
from radplan.ai.arc_cohort import arc_machine, named_case
from radplan.ai.arc_delivery import deliver_arc
from radplan.ai.arc_reference import THRESHOLD, with_best_units, with_units_of_dose
from radplan.ai.cards import Model, load_weights, read_model, save_model
from radplan.ai.features import Layout
from radplan.ai.spec import AirtSpec
from radplan.beams.control_points import DeliveryPlan
from radplan.delivery.arcs import ArcOptions, placed_arcs
from radplan.delivery.sequencing.runs import arc_of_fluence
from radplan.errors import InputError, UnknownNameError
from radplan.machines.limits import MachineLimits
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient

if TYPE_CHECKING:
    from radplan.io.dicom.case import DicomCase
    from radplan.io.plan_file.reading import PlanSpec
    from radplan.workflows.delivery import Delivered

FORMAT = "radplan AIRT planner 1"

Floats = npt.NDArray[np.float64]
Volume = npt.NDArray[np.float32]

_SPACING = 4.0
"""Distance of the arc's control points [degree]."""


@dataclass(frozen=True, eq=False)
class ArcProposal:
    """What the networks say of a case.

    Parameters
    ----------
    case : ArcCase
        The case.
    proposed : array of shape (nz, ny, nx)
        Course dose that the proposer wants, on the case's grid [Gy].
    first, last : array of shape (control points, v, u)
        Fluence before and after the correction, in the case's unit.
    doses : mapping of str to array of shape (nz, ny, nx)
        Course dose of ``"first"`` and ``"last"`` by the dose influence [Gy].
    seconds : mapping of str to float
        Processor seconds of ``"case"`` (beams, dose influence, channels) and ``"networks"``.
    """

    case: ArcCase
    proposed: Volume
    first: Volume
    last: Volume
    doses: Mapping[str, Volume]
    seconds: Mapping[str, float]

    def arc(self, machine: PhotonMachine, limits: MachineLimits, corrected: bool = True) -> DeliveryPlan:
        """Return the arc whose dose comes near to that of the last fluence, or of the first; see `sequenced_arc`."""
        case, label = self.case, "last" if corrected else "first"
        course = case.prescription * case.protocol.fractions
        dose = self.doses[label].reshape(-1)[np.asarray(case.dij.voxels)] / course
        return sequenced_arc(case, self.last if corrected else self.first, machine, limits, dose=dose)


class AirtPlanner:
    """Networks that plan an arc, with the card that says what they were trained on.

    Parameters
    ----------
    model : Model
        Card and weights; see `save_airt_planner`.

    Raises
    ------
    InputError
        When the weights do not fit the card's networks.
    """

    def __init__(self, model: Model, device: str = "cpu") -> None:
        if device != "cpu":
            raise InputError(f"arcs are planned by networks on the CPU, where the dose influence is, got {device!r}")
        self.card = dict(model.card)
        self.spec = AirtSpec.model_validate(self.card["spec"])
        self.layout = Layout.from_dict(self.card["layout"])
        self._net = AirtNet(self.spec, self.layout.channels)
        load_weights(self._net, model)
        self._net.eval()

    @property
    def machine(self) -> PhotonMachine:
        """The linac that the networks were trained for."""
        return arc_machine(self.spec)

    def case(self, patient: Patient) -> ArcCase:
        """Return a patient as the networks see it; see `radplan.ai.arc_cohort.named_case`."""
        return named_case(self.spec, patient)

    def propose(self, patient: Patient, sparing: Mapping[str, float] | None = None) -> ArcProposal:
        """Return the fluence of an arc for a patient.

        Parameters
        ----------
        patient : Patient
            With target and organs.
        sparing : mapping of str to float, optional
            Share, 0 to 1, by which organs are asked to get less than the first fluence gives; names without regard to
            case.

        Raises
        ------
        UnknownNameError
            When an organ is not among those that the networks see.
        InputError
            When a share is out of its range, or target or organs are missing.
        """
        asked = self._shares(sparing or {})
        began = time.process_time()
        case = self.case(patient)
        inputs = ArcInputs.of(case)
        ready = time.process_time()
        return self.answer(case, inputs, asked, ready - began)

    def answer(self, case: ArcCase, inputs: ArcInputs, sparing: Floats, seconds: float = 0.0) -> ArcProposal:
        """Return the fluence of a case whose tensors are in memory; `sparing` (structures,) holds shares."""
        began = time.process_time()
        with torch.inference_mode():
            result = self._net(inputs, torch.from_numpy(sparing.astype(np.float32)))
        spent = time.process_time() - began
        level = case.prescription * case.protocol.fractions
        whole = np.zeros(case.anatomy.grid.size, dtype=np.float32)
        whole[inputs.voxels.numpy()] = level * result["proposed"].numpy()
        return ArcProposal(
            case,
            whole.reshape(case.anatomy.grid.shape),
            result["first"].numpy(),
            result["last"].numpy(),
            {key: case.volume(level * result[f"{key}_dose"].numpy()) for key in ("first", "last")},
            {"case": seconds, "networks": spent},
        )

    def _shares(self, sparing: Mapping[str, float]) -> Floats:
        names = {name.lower(): k for k, name in enumerate(self.layout.structures) if name in self.layout.organs}
        shares = np.zeros(len(self.layout.structures))
        for name, share in sparing.items():
            if name.lower() not in names:
                raise UnknownNameError(f"organ that the model {self.card['name']} sees", name, self.layout.organs)
            if not 0 <= share < 1:
                raise InputError(f"an organ is spared by a share in [0, 1), got {share:g} for {name}")
            shares[names[name.lower()]] = share
        return shares


def sequenced_arc(
    case: ArcCase,
    fluence: npt.ArrayLike,
    machine: PhotonMachine,
    limits: MachineLimits,
    spacing: float = _SPACING,
    dose: npt.ArrayLike | None = None,
    polish: int = 40,
) -> DeliveryPlan:
    """Return the arc that a linac delivers of fluence at a few control points.

    Fluence between control points is interpolated linearly, and `arc_of_fluence` reads an opening a row of it.

    Parameters
    ----------
    case : ArcCase
        Of the fluence.
    fluence : array of shape (control points, v, u)
        In the case's unit.
    machine, limits : PhotonMachine, MachineLimits
        The linac.
    spacing : float
        Distance of the arc's control points [degree].
    dose : array of shape (voxels,), optional
        In the Dij's voxels, over the prescription: the apertures' monitor units come as near to it as they can.
    polish : int
        Without a dose, iterations by which the monitor units of the apertures are optimised for the protocol's goals;
        0 keeps the fluence as it is.
    """
    maps = np.asarray(fluence, dtype=np.float64)
    if dose is not None:
        maps = with_units_of_dose(case, maps, dose)
    elif polish:
        maps = with_best_units(case, maps, polish)
    mlc = limits.collimator()
    (arc,) = placed_arcs(1, ArcOptions(spacing=spacing, collimators=(0.0,)), limits)
    angles = np.asarray(arc.gantry, dtype=np.float64)
    turn = angles / (360.0 / case.arc.control_points)
    before = np.floor(turn).astype(np.int64)
    part = (turn - before)[:, None, None]
    count = case.arc.control_points
    between = (1 - part) * maps[before % count] + part * maps[(before + 1) % count]
    units = between * case.unit * count / angles.size
    middles = 0.5 * (mlc.boundaries[1:] + mlc.boundaries[:-1])
    row = np.rint(middles / case.arc.pitch + (case.arc.pixels - 1) / 2).astype(np.int64)
    behind = (row >= 0) & (row < case.arc.pixels)
    rows = np.where(behind[None, :, None], units[:, np.clip(row, 0, case.arc.pixels - 1)], 0.0)
    edges = (np.arange(case.arc.pixels + 1) - case.arc.pixels / 2) * case.arc.pitch
    return arc_of_fluence(
        rows, edges, angles, case.isocentre, machine, mlc, limits, THRESHOLD, fractions=case.protocol.fractions
    )


def deliver_proposal(
    proposal: ArcProposal,
    spec: PlanSpec,
    machine: PhotonMachine,
    limits: MachineLimits,
    source: DicomCase | None = None,
    corrected: bool = True,
) -> Delivered:
    """Return the arc of a proposal as read back from its file, scaled so that the target's mean is the prescription.

    Parameters
    ----------
    proposal : ArcProposal
        What the networks say.
    spec : PlanSpec
        With ``delivery.technique`` ``"vmat"``; its dose grid is the file's.
    machine, limits : PhotonMachine, MachineLimits
        The linac.
    source : DicomCase, optional
        The images that the file refers to.
    corrected : bool
        Whether the last fluence is taken, or the first.
    """
    return deliver_arc(proposal.arc(machine, limits, corrected), proposal.case, spec, machine, source)


def save_airt_planner(
    folder: str | Path, spec: AirtSpec, layout: Layout, weights: Mapping[str, Any], facts: Mapping[str, Any]
) -> Path:
    """Write a planner of arcs: its weights, without the judge's, and its card."""
    kept = {key: value for key, value in weights.items() if not key.startswith("judge.")}
    plain = spec.model_copy(update={"network": spec.network.model_copy(update={"shaping": False})})
    described = {
        "layout": layout.as_dict(),
        "channels": list(layout.channels),
        "trained_with_judge": spec.network.shaping,
        "spec": plain.model_dump(mode="json"),
        **facts,
    }
    return save_model(folder, FORMAT, spec.name, kept, described)


def load_airt_planner(model: str | Path) -> AirtPlanner:
    """Return a planner of arcs that comes with radplan, by name, or one that `save_airt_planner` wrote, by its folder.

    Raises
    ------
    UnknownNameError
        When there is neither a model nor a folder of that name.
    FileError
        When the card is missing or of another format, or the weights are damaged, pickled or not the card's.
    """
    return AirtPlanner(read_model(model, (FORMAT,)))
