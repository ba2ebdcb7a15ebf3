"""A patient as a planner of arcs sees it: channels, maps of each control point, and the dose that fluence gives.

Control points stand at equal angles all the way round, with one square grid of pixels each. Only pixels that see the
target open. Fluence is in units of the even fluence that gives the target the prescribed mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from radplan.ai.bev import BevProjector
from radplan.ai.channels import torch_threads_kept
from radplan.ai.features import Anatomy, Layout, dose_channels
from radplan.ai.spec import ArcSection
from radplan.analysis.metrics import metric
from radplan.autoplan.policy import POLICIES, SearchState
from radplan.autoplan.protocol import Protocol
from radplan.beams.place import place_beams
from radplan.engines import PhotonPencilBeam, dose_influence
from radplan.errors import InputError
from radplan.influence import Dij
from radplan.machines.photon import PhotonMachine
from radplan.optim import Goal, Problem
from radplan.patient.patient import Patient

Floats = npt.NDArray[np.float64]
Volume = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ArcCase:
    """What is known of a patient before a network is asked.

    Parameters
    ----------
    patient : Patient
        With the protocol's names and helper structures.
    protocol : Protocol
        Prescription and goals.
    anatomy : Anatomy
        On the dose grid.
    dij : Dij
        Dose per monitor unit of every pixel that may open, per fraction [Gy].
    layout : Layout
        Channels of the dose proposer.
    arc : ArcSection
        Control points and pixels.
    """

    patient: Patient
    protocol: Protocol
    anatomy: Anatomy
    dij: Dij
    layout: Layout
    arc: ArcSection

    @property
    def target(self) -> str:
        """Name of the target."""
        return next(iter(self.layout.levels))

    @property
    def prescription(self) -> float:
        """Dose prescribed to the target, per fraction [Gy]."""
        return self.protocol.targets[self.target] / self.protocol.fractions

    @property
    def shape(self) -> tuple[int, int, int]:
        """Control points and pixels, (control points, v, u)."""
        return self.arc.control_points, self.arc.pixels, self.arc.pixels

    @property
    def gantry(self) -> Floats:
        """Gantry angles of the control points [degree]."""
        return np.arange(self.arc.control_points, dtype=np.float64) * (360.0 / self.arc.control_points)

    @cached_property
    def isocentre(self) -> Floats:
        """World position of the isocentre [mm]."""
        return np.asarray(self._beams[0].isocenter, dtype=np.float64)

    @cached_property
    def open(self) -> npt.NDArray[np.int64]:
        """Flat index into (control points, v, u) of each variable of the Dij."""
        half, count = (self.arc.pixels - 1) / 2, self.arc.pixels
        index = []
        for number, beam in enumerate(self._beams):
            column, row = np.rint(beam.bixels / self.arc.pitch + half).astype(np.int64).T
            index.append((number * count + row) * count + column)
        return np.concatenate(index)

    @cached_property
    def unit(self) -> float:
        """Monitor units of a pixel at which even fluence gives the target the prescribed mean."""
        even = np.asarray(self.dij.forward(np.ones(self.dij.variables.count))["physical_dose"])[0]
        return self.prescription / float(even @ self.shares[0])

    @cached_property
    def shares(self) -> Floats:
        """Share of each structure of the layout that lies in each voxel of the Dij (structures, voxels)."""
        parts = np.stack([self._part(name) for name in self.layout.structures])
        return np.asarray(parts / np.maximum(parts.sum(axis=1, keepdims=True), 1e-9), dtype=np.float64)

    @cached_property
    def bev(self) -> BevProjector:
        """Projection from the dose grid to the control points' pixels."""
        x, y, z = self.isocentre.tolist()
        return BevProjector(
            self.anatomy.grid,
            self.anatomy.inside,
            (x, y, z),
            self.gantry.tolist(),
            pixels=(self.arc.pixels, self.arc.pixels),
            pitch=self.arc.pitch,
            sad=self._beams[0].sad,
        )

    @cached_property
    def channels(self) -> Volume:
        """Channels of the dose proposer (channels, voxels of the anatomy)."""
        with torch_threads_kept():
            return dose_channels(self.anatomy, self.layout)

    @cached_property
    def maps(self) -> Volume:
        """Which pixels open, and the mean of target and organs along each ray (1 + structures, *shape)."""
        opened = np.zeros(int(np.prod(self.shape)), dtype=np.float32)
        opened[self.open] = 1.0
        seen = [self.bev.apply(self.anatomy.parts[name]) for name in self.layout.structures]
        return np.stack([opened.reshape(self.shape), *seen]).astype(np.float32)

    @cached_property
    def goals(self) -> tuple[Goal, ...]:
        """Goals of the protocol, the target's heavier by the arc's evenness."""
        goals = POLICIES.get("adaptive")().goals(self.patient, self.protocol, SearchState(share=3.0))
        heavier = self.arc.evenness
        return tuple(
            replace(goal, weight=heavier * goal.weight) if goal.structure == self.target else goal for goal in goals
        )

    @cached_property
    def problem(self) -> Problem:
        """The goals as a cost of the Dij's variables."""
        return Problem(self.dij, self.goals, self.patient, self.protocol.fractions)

    def figures(self, dose: npt.ArrayLike) -> dict[str, float]:
        """Return the target's mean and homogeneity, and the organs' means, of a dose over the prescription (voxels,).

        The dose is given in the Dij's voxels.
        """
        given = np.asarray(dose, dtype=np.float64)
        means = (self.shares @ given).tolist()
        organs = {f"{name} mean": mean for name, mean in zip(self.layout.organs, means[1:], strict=True)}
        return {"target mean": means[0], "HI": metric("HI", given, self.shares[0]), **organs}

    def goal_error(self, dose: npt.ArrayLike) -> Floats:
        """Return the slope of the goals' cost by the dose (voxels,), over the root mean square of even fluence's slope.

        Parameters
        ----------
        dose : array of shape (voxels,)
            In the Dij's voxels, over the prescription.
        """
        return self._slope(np.asarray(dose, dtype=np.float64)) / self._even_slope

    @cached_property
    def _even_slope(self) -> float:
        even = np.asarray(self.dij.forward(self.weights(np.ones(self.shape)))["physical_dose"])[0] / self.prescription
        return float(np.sqrt(np.mean(self._slope(even) ** 2)))

    def _slope(self, dose: Floats) -> Floats:
        rows = np.searchsorted(np.asarray(self.dij.voxels), np.asarray(self.problem.model.voxels))
        images = {"physical_dose": (self.prescription * dose[rows])[None]}
        slope = np.zeros(dose.size)
        slope[rows] = np.asarray(self.problem.from_images(None, images).image_cotangents["physical_dose"])[0]
        return slope

    def blamed(self, errors: npt.ArrayLike) -> Volume:
        r"""Return what each pixel has to do with errors of dose (k, voxels of the Dij), as maps (k, *shape).

        The error is pulled back through the dose influence A and compared with the dose that the pixel gives the
        target: :math:`A^T e / \max(A^T M_T, 0.1 \max A^T M_T)`, with the target's shares M_T:
        the mean error in a target that nothing but the pixel irradiates.

        Parameters
        ----------
        errors : array of shape (k, voxels)
            Over the prescription.
        """
        rows = np.asarray(errors, dtype=np.float64)
        maps = np.zeros((len(rows), int(np.prod(self.shape))), dtype=np.float32)
        for row, error in zip(maps, rows, strict=True):
            row[self.open] = self._pulled(error) / self._reach
        return maps.reshape(len(rows), *self.shape)

    @cached_property
    def _reach(self) -> Floats:
        """Dose to the target of each variable, not less than a tenth of the most."""
        dose = self._pulled(self.shares[0] / self.shares[0].max())
        return np.asarray(np.maximum(dose, 0.1 * dose.max()), dtype=np.float64)

    def _pulled(self, dose: Floats) -> Floats:
        variables = np.asarray(self.dij.variables.start)
        return np.asarray(self.dij.pullback(variables, {"physical_dose": dose[None]}), dtype=np.float64)

    def weights(self, fluence: npt.ArrayLike) -> Floats:
        """Return the Dij's variables [MU] for fluence (control points, v, u) in units of `unit`."""
        return np.asarray(fluence, dtype=np.float64).reshape(-1)[self.open] * self.unit

    def fluence(self, weights: npt.ArrayLike) -> Volume:
        """Return fluence (control points, v, u) in units of `unit` for variables of the Dij [MU]."""
        whole = np.zeros(int(np.prod(self.shape)))
        whole[self.open] = np.asarray(weights, dtype=np.float64) / self.unit
        return whole.reshape(self.shape).astype(np.float32)

    def volume(self, dose: npt.ArrayLike) -> Volume:
        """Return a dose in the Dij's voxels as a volume (nz, ny, nx) on the dose grid."""
        whole = np.zeros(self.anatomy.grid.size, dtype=np.float32)
        whole[np.asarray(self.dij.voxels)] = np.asarray(dose)
        return whole.reshape(self.anatomy.grid.shape)

    @property
    def _beams(self) -> Any:
        return self.dij.beams

    def _part(self, name: str) -> Floats:
        return np.asarray(self.anatomy.parts[name].reshape(-1)[np.asarray(self.dij.voxels)], dtype=np.float64)


def arc_case(
    patient: Patient, protocol: Protocol, machine: PhotonMachine, arc: ArcSection, organs: Sequence[str]
) -> ArcCase:
    """Return a patient as a planner of arcs sees it; the dose influence is calculated here.

    Parameters
    ----------
    patient : Patient
        With the protocol's names; see `radplan.autoplan.protocol.understand`.
    protocol : Protocol
        With one target.
    machine : PhotonMachine
        The linac.
    arc : ArcSection
        Control points, pixels, dose grid.
    organs : sequence of str
        Organs that the networks see.

    Raises
    ------
    InputError
        When target or organs are missing, or the target is wider than the pixels reach.
    """
    target = next(iter(protocol.targets))
    missing = [name for name in (target, *organs) if name not in patient.structures]
    if missing:
        raise InputError(f"{patient.name} has no {' and no '.join(missing)}, which the planner of arcs needs")
    angles = np.arange(arc.control_points) * (360.0 / arc.control_points)
    beams = place_beams(patient, machine, gantry=angles.tolist(), bixel_width=arc.pitch, targets=[target])
    reach = max(float(np.abs(beam.bixels).max()) for beam in beams)
    if reach > (arc.pixels - 1) / 2 * arc.pitch + 1e-6:
        raise InputError(
            f"the target of {patient.name} needs pixels up to {reach:g} mm from the axis, the planner of arcs reaches "
            f"{(arc.pixels - 1) / 2 * arc.pitch:g} mm"
        )
    grid = patient.ct.grid.with_spacing(arc.grid)
    dij = dose_influence(patient, beams, machine, grid=grid, engine=PhotonPencilBeam(lateral_cutoff=arc.cutoff))
    layout = Layout({target: 1.0}, tuple(organs), tuple(angles.tolist()))
    seen = Anatomy.from_patient(patient, layout.structures).on(grid)
    return ArcCase(patient, protocol, seen, dij, layout, arc)
