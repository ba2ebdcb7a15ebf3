"""Trained proposers of dose: kept as weights and a model card, applied to patients, scored on OpenKBP."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.ai.baseline import BoostedTrees
from radplan.ai.cards import (
    Model,
    check_digest,
    check_spacing,
    digest,
    fitting_grid,
    load_weights,
    read_model,
    save_model,
)
from radplan.ai.channels import network_channels, torch_threads_kept
from radplan.ai.data import Sample
from radplan.ai.features import Anatomy, Layout
from radplan.ai.loop import torch_device
from radplan.ai.metrics import PatientScore, patient_score
from radplan.ai.spec import TrainSpec
from radplan.ai.train import FORMAT, dose_net, predicted
from radplan.geometry.grid import Grid
from radplan.io.openkbp import DOSE_MASK, LEVELS, ORGANS, read_openkbp
from radplan.io.staging import staged_file
from radplan.patient.patient import Patient

Volume = npt.NDArray[np.float32]

TREES = "trees.npz"
"""File of a model's trees, in its folder."""


class DoseProposer:
    """A network that proposes dose for an anatomy, with the card that says what it was trained on.

    Where the specification has trees, the dose is the mean of the network's and theirs.

    Parameters
    ----------
    model : Model
        Card and weights; see `save_proposer`.
    device : str
        Where it calculates: ``"cpu"`` or ``"cuda"``.

    Raises
    ------
    InputError
        When the weights do not fit the card's network, or torch finds no such device.
    """

    def __init__(self, model: Model, device: str = "cpu") -> None:
        self.card, self.device = dict(model.card), torch_device(device)
        self.spec = TrainSpec.model_validate(self.card["spec"])
        self.layout = Layout.from_dict(self.card["layout"])
        self._net = dose_net(self.spec, self.layout)
        load_weights(self._net, model)
        self._net.to(device)
        self._trees = None
        if self.spec.trees is not None:
            check_digest(model.folder / TREES, self.card["trees"]["sha256"])
            self._trees = BoostedTrees.load(model.folder / TREES, self.layout)

    @property
    def fractions(self) -> int:
        """Number of fractions of the plans trained on, OpenKBP's."""
        return 35

    def predict(self, patient: Patient, grid: Grid | None = None, mask: str | None = None) -> tuple[Volume, Grid]:
        """Return the proposed course dose [Gy] and its grid; 0 where dose does not count.

        Parameters
        ----------
        patient : Patient
            With targets and organs named as the card's layout names them; organs may be absent.
        grid : Grid, optional
            Where dose is wanted; None takes the CT's.
        mask : str, optional
            Structure in which dose counts; None takes the external contour.

        Raises
        ------
        InputError
            When no target of the layout is there, or the grid's voxels are of another size than those trained on.
        """
        anatomy = Anatomy.from_patient(patient, self.layout.structures, mask)
        if grid is not None and grid != patient.ct.grid:
            anatomy = anatomy.on(grid)
        return self.propose(anatomy), anatomy.grid

    def fitting(self, grid: Grid) -> Grid:
        """Return a grid of voxels of a size that was trained on: the given one, or one of the middle of that range."""
        return fitting_grid(self.card, grid)

    def propose(self, anatomy: Anatomy) -> Volume:
        """Return the proposed course dose [Gy] (nz, ny, nx) of an anatomy; see `predict`."""
        check_spacing(self.card, anatomy.grid, anatomy.name)
        channels = network_channels(anatomy, self.layout)
        voxels = np.flatnonzero(anatomy.inside).astype(np.int32)
        nothing = np.zeros(voxels.size)
        sample = Sample(
            anatomy.name,
            anatomy.grid.shape,
            voxels,
            channels,
            np.arange(voxels.size, dtype=np.int32),
            nothing.astype(np.float32),
            nothing.astype(np.uint16),
            True,
            anatomy.grid.voxel_volume,
        )
        dose = predicted(self._net, sample, self.layout, self.spec.precision, self.device)
        volume = np.zeros(anatomy.grid.size, dtype=np.float32)
        volume[voxels] = self.layout.prescription * dose
        proposed = volume.reshape(anatomy.grid.shape)
        if self._trees is None or self.spec.trees is None:
            return proposed
        with torch_threads_kept():
            beside = self._trees.dose(anatomy, channels)
        share = np.float32(self.spec.trees.share)
        return (1 - share) * proposed + share * beside


def save_proposer(
    folder: str | Path,
    spec: TrainSpec,
    layout: Layout,
    weights: Mapping[str, Any],
    facts: Mapping[str, Any],
    half: bool = True,
    trees: BoostedTrees | None = None,
) -> Path:
    """Write ``weights.safetensors``, the model card ``model.json``, and ``trees.npz`` where there are trees.

    Parameters
    ----------
    folder : path-like
        Where; made when absent.
    spec, layout : TrainSpec, Layout
        What was trained, and on which channels.
    weights : mapping of str to tensor
        Of the network.
    facts : mapping
        What else the card says: ``spacing`` with the least and largest voxel sizes trained on ``low`` and ``high``
        (x, y, z) [mm], data, scores, seconds, device, licence, limits.
    half : bool
        Keep weights as float16.
    trees : BoostedTrees, optional
        Whose dose is averaged with the network's, as `spec.trees` says.
    """
    beside: dict[str, Any] = {}
    if trees is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with staged_file(Path(folder) / TREES) as partial:
            trees.save(partial)
        beside = {"trees": {"number": int(trees.roots.size), "sha256": digest(Path(folder) / TREES)}}
    described = {
        "layout": layout.as_dict(),
        "channels": list(layout.channels),
        "spec": spec.model_dump(mode="json"),
        **beside,
        **facts,
    }
    return save_model(folder, FORMAT, spec.name, weights, described, half)


def load_proposer(model: str | Path, device: str = "cpu") -> DoseProposer:
    """Return a proposer that comes with radplan, by name, or one that `save_proposer` wrote, by its folder.

    Raises
    ------
    UnknownNameError
        When there is neither a model nor a folder of that name.
    FileError
        When the card is missing or of another format, or the weights are damaged, pickled or not the card's.
    InputError
        When torch finds no such device.
    """
    return DoseProposer(read_model(model, (FORMAT,)), device)


def openkbp_scores(
    propose: Any, files: Sequence[Path], layout: Layout | None = None
) -> tuple[list[PatientScore], list[float]]:
    """Return the official scores of proposed doses for OpenKBP's patients, and the processor seconds each took.

    Parameters
    ----------
    propose : callable
        From an `Anatomy` to a dose (nz, ny, nx) [Gy], such as `DoseProposer.propose`.
    files : sequence of path-like
        Patients at full resolution; all their structures count, those outside the dose mask too.
    layout : Layout, optional
        Structures to show to `propose`; None takes all of the challenge's.
    """
    names = layout.structures if layout is not None else (*LEVELS, *ORGANS)
    results, seconds = [], []
    for path in files:
        case = read_openkbp(path)
        start = time.process_time()
        anatomy = Anatomy.from_patient(case.patient, names, DOSE_MASK)
        dose = propose(anatomy)
        seconds.append(time.process_time() - start)
        drawn = {n: case.patient.structures[n].mask() for n in (*LEVELS, *ORGANS) if n in case.patient.structures}
        volume = anatomy.grid.voxel_volume
        results.append(patient_score(anatomy.name, dose, case.dose, anatomy.inside, drawn, list(LEVELS), volume))
    return results, seconds
