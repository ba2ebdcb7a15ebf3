"""A planner that is steered by DVHs: dose of an anatomy as it usually is, and as wishes move it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.ai.cards import Model, check_spacing, fitting_grid, load_weights, read_model, save_model
from radplan.ai.channels import network_channels
from radplan.ai.dvh import Wish, dvh_levels
from radplan.ai.dvh_task import FORMAT, CodeScale, code_parts, dvh_net, followed_doses, steered
from radplan.ai.features import Anatomy, Layout
from radplan.ai.loop import torch_device
from radplan.ai.planned import PlannedPatient, dvh_code
from radplan.ai.spec import DvhSpec
from radplan.autoplan.protocol import load_protocol, understand
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]
Volume = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SteeredDose:
    """Dose that follows wishes, and what was asked for.

    Parameters
    ----------
    dose, usual : array of shape grid.shape
        Course total with the wishes and without any [Gy]; 0 where dose does not count.
    grid : Grid
        Where they are given.
    levels : array of shape (levels,)
        Doses of the curves [Gy].
    asked, reached, before : mapping of str to array of shape (levels,)
        DVHs by structure: asked for, of `dose`, and of `usual`.
    """

    dose: Volume
    usual: Volume
    grid: Grid
    levels: Floats
    asked: Mapping[str, Floats]
    reached: Mapping[str, Floats]
    before: Mapping[str, Floats]

    def mean(self, curves: Mapping[str, Floats], name: str) -> float:
        """Return the mean dose that a structure's DVH stands for [Gy], by the trapezoidal rule."""
        volumes = np.concatenate([[1.0], curves[name]])
        return float(np.trapezoid(volumes, np.concatenate([[0.0], self.levels])))


class DvhPlanner:
    """A network that proposes dose for an anatomy and DVHs that are asked for.

    Parameters
    ----------
    model : Model
        Card and weights; see `save_dvh_planner`.
    device : str
        Where it calculates: ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    InputError
        When the weights do not fit the card's network, or torch finds no such device.
    """

    def __init__(self, model: Model, device: str = "cpu") -> None:
        self.card, self.device = dict(model.card), torch_device(device)
        self.spec = DvhSpec.model_validate(self.card["spec"])
        self.layout = Layout.from_dict(self.card["layout"])
        self.scale = CodeScale(np.asarray(self.card["codes"]["mean"]), np.asarray(self.card["codes"]["spread"]))
        self._net = dvh_net(self.spec, self.layout, self.scale.bins)
        load_weights(self._net, model)
        self._net.to(device).eval()

    @property
    def level(self) -> float:
        """Mean course dose of the target [Gy]."""
        return float(self.card["level"])

    @property
    def fractions(self) -> int:
        """Number of fractions of the plans trained on, the protocol's."""
        return load_protocol(self.spec.protocol).fractions

    def named(self, patient: Patient) -> Patient:
        """Return the patient with canonical names, where its own are not those that the model knows.

        Raises
        ------
        InputError
            When the target is not found, or two structures may be it.
        """
        if all(name in patient.structures for name in self.spec.structures):
            return patient
        return understand(patient, load_protocol(self.spec.protocol)).patient

    def fitting(self, grid: Grid) -> Grid:
        """Return a grid of voxels of a size that was trained on: the given one, or one of the middle of that range."""
        return fitting_grid(self.card, grid)

    def predict(
        self,
        patient: Patient,
        grid: Grid | None = None,
        mask: str | None = None,
        wishes: Sequence[Wish] = (),
    ) -> tuple[Volume, Grid]:
        """Return the course dose that follows wishes [Gy] and its grid; 0 where dose does not count. See `steer`."""
        result = self.steer(patient, wishes, grid, mask)
        return result.dose, result.grid

    def steer(
        self,
        patient: Patient,
        wishes: Sequence[Wish] = (),
        grid: Grid | None = None,
        mask: str | None = None,
    ) -> SteeredDose:
        """Return the dose that follows wishes, each a change of what the network proposes without any.

        Parameters
        ----------
        patient : Patient
            With target and organs named as the card's layout names them.
        wishes : sequence of Wish
            Changes of DVHs; names without regard to case.
        grid : Grid, optional
            Where dose is wanted; None takes one near the CT's whose voxels are of a size trained on.
        mask : str, optional
            Structure in which dose counts; None takes the external contour.

        Raises
        ------
        UnknownNameError
            When a wish is for a structure whose DVH does not steer.
        InputError
            When a structure that steers is missing, or the grid's voxels are of another size than those trained on.
        """
        changes = [self._known(each) for each in wishes]
        anatomy = Anatomy.from_patient(
            patient, tuple(dict.fromkeys(self.layout.structures + self.spec.structures)), mask
        )
        wanted = self.fitting(patient.ct.grid) if grid is None else grid
        check_spacing(self.card, wanted, patient.name)
        seen = self._seen(anatomy if wanted == patient.ct.grid else anatomy.on(wanted))
        return self._answered(seen, changes, wanted)

    def _seen(self, anatomy: Anatomy) -> PlannedPatient:
        missing = [name for name in self.spec.structures if not anatomy.parts.get(name, np.zeros(1)).any()]
        if missing:
            known = ", ".join(anatomy.parts) or "none of those it knows"
            raise InputError(
                f"{anatomy.name} has no {' and no '.join(missing)}, but their DVHs steer the model "
                f"{self.card['name']}: rename structures; there are {known}"
            )
        voxels = np.flatnonzero(anatomy.inside).astype(np.int32)
        parts = np.stack([anatomy.parts[name].reshape(-1)[voxels] for name in self.spec.structures])
        return PlannedPatient(
            anatomy.name,
            anatomy.grid.shape,
            anatomy.grid.spacing,
            self.level,
            voxels,
            network_channels(anatomy, self.layout),
            parts.astype(np.float16),
            np.zeros((0, voxels.size), dtype=np.float16),
            np.zeros((0, self.scale.mean.size), dtype=np.float32),
        )

    def _answered(self, seen: PlannedPatient, changes: Sequence[Wish], grid: Grid) -> SteeredDose:
        names, levels = self.spec.structures, dvh_levels()
        target = names.index(self.spec.target)
        usual = steered(self._net, seen, self.scale.nothing(), target, self.device, self.spec.precision)[0]
        before = code_parts(dvh_code(usual, seen.parts), names)
        asked, dose = before, usual
        for change in changes:
            asked = change.applied(asked, levels)
        if changes:
            code = np.concatenate([asked[name] for name in names])
            dose = followed_doses(self._net, seen, code[None], self.scale, self.spec, self.device)[0]
        reached = code_parts(dvh_code(dose, seen.parts), names)
        whole = []
        for values in (dose, usual):
            volume = np.zeros(grid.size, dtype=np.float32)
            volume[seen.voxels] = self.level * values
            whole.append(volume.reshape(grid.shape))
        return SteeredDose(whole[0], whole[1], grid, self.level * levels, asked, reached, before)

    def _known(self, asked: Wish) -> Wish:
        names = {name.lower(): name for name in self.spec.structures}
        if asked.structure.lower() not in names:
            kind = f"structure that steers the model {self.card['name']}"
            raise UnknownNameError(kind, asked.structure, list(names.values()))
        return Wish(names[asked.structure.lower()], asked.change)


def save_dvh_planner(
    folder: str | Path,
    spec: DvhSpec,
    layout: Layout,
    scale: CodeScale,
    weights: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Path:
    """Write a DVH planner: its weights and its card.

    Parameters
    ----------
    folder : path-like
        Where; made when absent.
    spec, layout, scale : DvhSpec, Layout, CodeScale
        What was trained, on which channels and codes.
    weights : mapping of str to tensor
        Of the network.
    facts : mapping
        What else the card says: ``spacing``, ``level`` [Gy], data, scores, seconds, device, licence, limits.
    """
    described = {
        "layout": layout.as_dict(),
        "channels": list(layout.channels),
        "codes": {"mean": scale.mean.round(6).tolist(), "spread": scale.spread.round(6).tolist()},
        "spec": spec.model_dump(mode="json"),
        **facts,
    }
    return save_model(folder, FORMAT, spec.name, weights, described)


def load_dvh_planner(model: str | Path, device: str = "cpu") -> DvhPlanner:
    """Return a DVH planner that comes with radplan, by name, or one that `save_dvh_planner` wrote, by its folder.

    Raises
    ------
    UnknownNameError
        When there is neither a model nor a folder of that name.
    FileError
        When the card is missing or of another format, or the weights are damaged, pickled or not the card's.
    InputError
        When torch finds no such device.
    """
    return DvhPlanner(read_model(model, (FORMAT,)), device)
