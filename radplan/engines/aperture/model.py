"""Photon dose of what a linac delivers: leaves, jaws and monitor units to dose, with a pullback by hand.

Segments that share gantry, collimator, couch and isocentre add their fluence on one map of the isocentre plane first;
a map becomes dose by one transform for each radial function of the kernel and one reading per voxel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from radplan import arrays
from radplan.arrays import Array
from radplan.beams.control_points import DeliveryPlan, TreatmentField
from radplan.engines.aperture.build import Builder, opening_box
from radplan.engines.aperture.options import ApertureOptions
from radplan.engines.aperture.pose import PosePart
from radplan.engines.aperture.reader import Voxels
from radplan.engines.aperture.variables import ApertureVariables, FieldLayout, aperture_variables
from radplan.engines.photon.terms import PhotonScene
from radplan.engines.scope import Scope
from radplan.errors import InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.influence import Rows, RowsModel
from radplan.kernels.threads import one_blas_thread
from radplan.machines.limits import MachineLimits, leaf_limits
from radplan.machines.mlc import MLC, matching_mlc
from radplan.machines.photon import PhotonMachine
from radplan.patient.patient import Patient

__all__ = ["ApertureModel", "ApertureOptions", "aperture_model"]


@dataclass(frozen=True, eq=False)
class ApertureModel(RowsModel):
    """A forward model whose variables are leaf ends, jaws and monitor units; make it with `aperture_model`.

    Dose per fraction in Gy. The order of the variables is that of `radplan.engines.aperture.variables`. Fluence is
    calculated in float64 where the device has it, maps and voxels in the model's dtype.

    Parameters
    ----------
    layouts : tuple of FieldLayout
        Where the variables of every field lie.
    parts : tuple of (int, PosePart)
        The field's position in `layouts`, and what it delivers from one pose.
    rows : Rows
        Grid, voxels, voxel parameters, device and dtype.
    variables : ApertureVariables
        Bounds, start and projection.
    machine : str
        Name of the linac model.
    density_scaling : bool
        Whether kernels are wider where density is low.
    """

    layouts: tuple[FieldLayout, ...]
    parts: tuple[tuple[int, PosePart], ...]
    rows: Rows
    variables: ApertureVariables
    machine: str = ""
    density_scaling: bool = False
    radiation: str = "photons"

    @property
    def images(self) -> tuple[str, ...]:
        return ("physical_dose",)

    def forward(self, x: Array, images: Iterable[str] | None = None) -> dict[str, Array]:
        """Return the images asked for, ``(1, voxels)`` each, at variables ``x (count,)``."""
        return {name: self._dose(x)[None, ...] for name in self._known(self.images if images is None else images)}

    def pullback(self, x: Array, cotangents: Mapping[str, Array]) -> Array:
        """Return the gradient ``(count,)`` for cotangents on images, in float64 where the device has it."""
        place, xp = self.device, self.device.xp
        wide = self._wide(x)
        sizes = [layout.stop - layout.offset for layout in self.layouts]
        totals = [xp.zeros(size, dtype=wide.dtype, device=place.native) for size in sizes]
        for name in self._known(cotangents):
            values = arrays.like(cotangents[name], wide, place.dtype(self.dtype))[0, ...]
            with one_blas_thread():
                for number, part in self.parts:
                    totals[number] = part.add_pullback(wide, values, totals[number])
        return xp.concat(totals)

    def field_fluence(self, x: Array, number: int) -> list[Array]:
        """Return the fluence ``(nx, ny)`` [MU] of each pose of a field from 0, without head scatter and profile."""
        wide = self._wide(x)
        return [part.total_fluence(wide) for found, part in self.parts if found == number]

    def restrict(self, voxels: Array) -> ApertureModel:
        """Return the model of some voxels only: sorted flat indices into the grid, each one of this model's."""
        parts = _restricted(self.parts, self.rows.places(voxels))
        return replace(self, parts=parts, rows=self.rows.restrict(voxels))

    def _dose(self, x: Array) -> Array:
        place, wide = self.device, self._wide(x)
        total = place.xp.zeros(self.voxels.size, dtype=place.dtype(self.dtype), device=place.native)
        with one_blas_thread():
            for _, part in self.parts:
                total = part.add_dose(wide, total)
        return total

    def _wide(self, x: Array) -> Array:
        if x.shape != (self.variables.count,):
            raise InputError(f"x must have shape ({self.variables.count},), got {tuple(x.shape)}")
        return self.device.xp.astype(x, arrays.accumulator(x))

    def _known(self, names: Iterable[str]) -> list[str]:
        for name in (found := list(names)):
            if name not in self.images:
                raise UnknownNameError("image", name, self.images)
        return found


def aperture_model(
    patient: Patient,
    plan: DeliveryPlan | Sequence[TreatmentField],
    machine: PhotonMachine,
    mlc: MLC | None = None,
    grid: float | tuple[float, float, float] | Grid = 5.0,
    options: ApertureOptions | None = None,
    device: str = "numpy",
    dtype: str = "float32",
    voxels: Literal["body"] | npt.ArrayLike = "body",
    limits: MachineLimits | str | None = None,
) -> ApertureModel:
    """Return the forward model of leaves, jaws and monitor units of a plan, beginning at the plan as it stands.

    Parameters
    ----------
    patient : Patient
        CT and structures; angles are those of a patient who lies as its ``patient_position`` says.
    plan : DeliveryPlan or sequence of TreatmentField
        Fields as the linac delivers them; `radplan.io.dicom.read_plan` reads them.
    machine : PhotonMachine
        A linac with monitor units.
    mlc : MLC, optional
        Transmission and leaf offset; the known collimator with the plan's leaf boundaries when left out.
    grid : float, (float, float, float) or Grid
        The dose grid, or its spacing [mm].
    options : ApertureOptions, optional
        Pixels, cut-off and so on.
    device, dtype : str
        Where it runs, and ``"float32"`` or ``"float64"``.
    voxels : "body" or array of shape (n,)
        The rows: the external contour grown by one voxel, or sorted flat indices into the grid.
    limits : MachineLimits or str, optional
        Within which leaves may be moved; those of the first known linac with the collimator when left out. Leaves of a
        collimator that no known linac has stay where they are without.

    Raises
    ------
    InputError
        When the machine has no monitor units or no extended source, or plan, patient, machine and collimator do not
        agree.
    """
    scope = Scope.of(patient, grid, voxels, None, device, dtype, stored=False)
    chosen = ApertureOptions() if options is None else options
    return aperture_model_of(patient, plan, machine, mlc, chosen, scope, limits)


def aperture_model_of(
    patient: Patient,
    plan: DeliveryPlan | Sequence[TreatmentField],
    machine: PhotonMachine,
    mlc: MLC | None,
    options: ApertureOptions,
    scope: Scope,
    limits: MachineLimits | str | None = None,
) -> ApertureModel:
    """Return the model of a plan where a scope wants dose, with the range error of its case; see `aperture_model`."""
    fields = tuple(plan)
    mlcs = [_checked(treated, machine, mlc) for treated in fields]
    if not fields:
        raise InputError("the plan has no fields")
    if isinstance(plan, DeliveryPlan) and plan.patient_position not in ("", patient.patient_position):
        raise InputError(
            f"plan {plan.name!r} treats the patient {plan.patient_position}, but patient {patient.name!r} lies "
            f"{patient.patient_position}: give the patient_position the plan was made for"
        )
    layouts: list[FieldLayout] = []
    for treated in fields:
        layouts.append(FieldLayout.of(treated, layouts[-1].stop if layouts else 0, "collimator" in options.free))
    boxes = [opening_box(layout, options.margin) for layout in layouts]
    scene = PhotonScene.of(patient, machine, scope, options.density_scaling)
    builder = Builder(scene, options, scope.device, scope.dtype, patient.patient_position)
    return ApertureModel(
        layouts=tuple(layouts),
        parts=builder.parts(layouts, mlcs, boxes),
        rows=scope.rows(patient, rbe=1.0),
        variables=aperture_variables(layouts, [leaf_limits(one, limits) for one in mlcs], boxes, options.free),
        machine=machine.name,
        density_scaling=scene.density_scaling,
    )


def _restricted(
    parts: tuple[tuple[int, PosePart], ...], rows: npt.NDArray[np.int64]
) -> tuple[tuple[int, PosePart], ...]:
    """Return parts for some voxels; those that shared their voxels do so still."""
    made: dict[int, Voxels] = {}
    for _, part in parts:
        made.setdefault(id(part.read.voxels), part.read.voxels.restrict(rows))
    return tuple((number, part.restrict(rows, made[id(part.read.voxels)])) for number, part in parts)


def _checked(one: TreatmentField, machine: PhotonMachine, mlc: MLC | None) -> MLC | None:
    """Return the collimator of a field, after a check that it belongs to the machine and the plan."""
    if machine.reference is None:
        raise InputError(f"machine {machine.name!r} has no monitor units: apertures need a machine with a reference")
    if machine.source_sigma < 0.1:
        raise InputError(f"machine {machine.name!r}: apertures need a source, got source_fwhm {machine.source_fwhm} mm")
    if abs(one.sad - machine.sad) > 0.5:
        raise InputError(f"{one.label}: has SAD {one.sad:g} mm, but machine {machine.name!r} {machine.sad:g} mm")
    if one.leaf_boundaries is None:
        return None
    if mlc is None:
        return machine.collimation.of(matching_mlc(one.leaf_boundaries))
    if not mlc.fits(one.leaf_boundaries):
        raise InputError(
            f"{one.label}: has {one.leaf_boundaries.size - 1} leaf pairs from {one.leaf_boundaries[0]:g} mm, but MLC "
            f"{mlc.name!r} has {mlc.pairs} from {mlc.boundaries[0]:g} mm"
        )
    return mlc
