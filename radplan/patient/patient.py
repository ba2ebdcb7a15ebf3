"""The patient: a CT, its structures, and the goals that travel with them."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt

from radplan.errors import InputError, UnknownNameError
from radplan.geometry.frames import PATIENT_POSITIONS
from radplan.geometry.grid import Grid
from radplan.patient.ct import CT, HU_TABLES, HUTable
from radplan.patient.expressions import evaluate_expression
from radplan.patient.structures import (
    Floats,
    Membership,
    Role,
    Structure,
    Structures,
    Voxels,
    after_overlap,
    resample_weights,
    rounded_off,
)
from radplan.tables import html_table

logger = logging.getLogger(__name__)

EXTERNAL_THRESHOLD = -400.0
"""Hounsfield unit above which a voxel may be patient, when the outline has to be found."""


class TravellingGoal(Protocol):
    """What a patient knows of a goal that travels along: which structure it is for; see `radplan.Goal`."""

    @property
    def structure(self) -> str:
        """Name of the structure."""

    def to_spec(self) -> dict[str, Any]:
        """Return it as plain data."""


@dataclass(frozen=True, eq=False)
class DensityOverride:
    """A structure whose density is known better than from the CT: a couch, bolus, contrast medium or metal.

    Parameters
    ----------
    structure : Structure
        Where it applies, in part in partial voxels; it may lie outside the body.
    density : float
        Electron density relative to water [1], >= 0.
    dosed : bool
        Whether dose is calculated in it as in the body: for bolus, not for a couch.

    Raises
    ------
    InputError
        When the density is negative or no number.

    >>> from radplan.patient.phantoms import phantom
    >>> DensityOverride(phantom("box").structures["OuterTarget"], 0.25).density
    0.25
    """

    structure: Structure
    density: float
    dosed: bool = False

    def __post_init__(self) -> None:
        if not (np.isfinite(self.density) and self.density >= 0):
            raise InputError(
                f"the density of {self.structure.name!r} must be a number >= 0 relative to water, got {self.density}"
            )


@dataclass(frozen=True, eq=False)
class Patient:
    """A CT with structures, and what is asked of them.

    Parameters
    ----------
    name : str
        What the patient or phantom is called.
    ct : CT
        The images.
    structures : Structures or iterable of Structure
        Drawn on the CT's grid.
    goals : sequence of Goal
        What is asked of the structures, doses as course totals [Gy].
    fractions : int, optional
        Number of fractions the goals were written for.
    hu_table : HUTable
        From Hounsfield units to electron density relative to water.
    prescription : float, optional
        Course dose the targets shall have [Gy].
    membership : {"volume", "nearest"}
        How structures meet a dose grid: by exact shares of voxels, or by voxel centres as matRad does.
    overrides : sequence of DensityOverride
        Given densities that replace the CT's, later ones over earlier ones; see `with_density`.
    patient_position : str
        How the patient lay in the scanner and lies on the treatment couch, DICOM: ``"HFS"`` (head first, supine),
        ``"HFP"``, ``"FFS"``, ... It says where the angles of the room enter; the axes are always the patient's.

    Raises
    ------
    InputError
        When a structure lies on another grid than the CT, or a goal names no structure.
    UnknownNameError
        When a goal names a structure that is not there.

    >>> from radplan.patient.phantoms import phantom
    >>> patient = phantom("box")
    >>> patient.target_names, float(patient.density().max())
    (('OuterTarget',), 1.0)
    """

    name: str
    ct: CT
    structures: Structures
    goals: tuple[TravellingGoal, ...] = ()
    fractions: int | None = None
    hu_table: HUTable = field(default_factory=lambda: HU_TABLES["schneider"])
    prescription: float | None = None
    membership: Membership = "volume"
    overrides: tuple[DensityOverride, ...] = ()
    patient_position: str = "HFS"

    def __post_init__(self) -> None:
        held = self.structures if isinstance(self.structures, Structures) else Structures(self.structures)
        object.__setattr__(self, "structures", held)
        object.__setattr__(self, "overrides", tuple(self.overrides))
        for structure in (*held.values(), *(override.structure for override in self.overrides)):
            if structure.grid != self.ct.grid:
                raise InputError(
                    f"structure {structure.name!r} lies on another grid than the CT: "
                    f"{structure.grid} and {self.ct.grid}"
                )
        outlines = [s.name for s in held.values() if s.role == "external"]
        if len(outlines) > 1:
            raise InputError(
                f"a patient has one external contour, got {', '.join(outlines)}: give the others another role"
            )
        if self.fractions is not None and not (self.fractions >= 1 and float(self.fractions).is_integer()):
            raise InputError(f"fractions must be a whole number >= 1, got {self.fractions}")
        if self.patient_position not in PATIENT_POSITIONS:
            raise UnknownNameError("patient position", self.patient_position, PATIENT_POSITIONS)
        if self.membership not in get_args(Membership):
            raise UnknownNameError("membership method", self.membership, get_args(Membership))
        object.__setattr__(self, "goals", tuple(_checked_goal(goal, held) for goal in self.goals))

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.ct.grid.shape))
        dose = "" if self.prescription is None else f", {self.prescription:g} Gy"
        fractions = "" if self.fractions is None else f" in {self.fractions} fractions"
        return f"Patient({self.name!r}, CT {shape}, {len(self.structures)} structures{dose}{fractions})"

    def _repr_html_(self) -> str:
        rows = [[s.name, s.role, f"{s.volume / 1000:.1f}"] for s in self.structures.values()]
        return html_table(["structure", "role", "cm3"], rows, repr(self))

    @property
    def target_names(self) -> tuple[str, ...]:
        """Names of the targets to aim at: those that carry goals, or every target when none does."""
        targets = [s.name for s in self.structures.values() if s.role == "target"]
        wanted = {goal.structure for goal in self.goals}
        return tuple([name for name in targets if name in wanted] or targets)

    @cached_property
    def external(self) -> Structure:
        """The patient's outline: the structure of that role, or one found by threshold, which is announced."""
        for structure in self.structures.values():
            if structure.role == "external":
                return structure
        found = find_external(self.ct)
        logger.warning(
            "patient %s has no external contour: taking the largest connected region above %g HU (%.0f cm3)",
            self.name,
            EXTERNAL_THRESHOLD,
            found.volume / 1000,
        )
        return found

    def density(self) -> npt.NDArray[np.float32]:
        """Return electron density relative to water (nz, ny, nx) [1]; read-only.

        It is the CT's inside the external contour and 0 outside, replaced where `overrides` give densities: these count
        outside the external contour as well.

        Raises
        ------
        InputError
            When a voxel inside has a Hounsfield unit beyond an HU table that does not clip, and no override fills it;
            names the range and the voxel.
        """
        return self._density

    @cached_property
    def _density(self) -> npt.NDArray[np.float32]:
        inside = self.external.mask().reshape(-1)
        for override in self.overrides:
            whole, part = override.structure.voxels, override.structure.fraction
            inside[whole if part is None else whole[part == 1]] = False
        voxels = np.flatnonzero(inside)
        hu = self.ct.hu.reshape(-1)[voxels]
        bad = self.hu_table.first_outside(hu)
        if bad is not None:
            z, y, x = (int(i) for i in np.unravel_index(voxels[bad], self.ct.grid.shape))
            raise InputError(
                f"patient {self.name}: "
                + self.hu_table.outside_message(float(hu[bad]), f"voxel [z, y, x] = [{z}, {y}, {x}]")
            )
        self.hu_table.announce_clipped(hu, f"patient {self.name}")
        density = np.zeros(self.ct.grid.size, dtype=np.float32)
        density[voxels] = self.hu_table.relative_density(hu)
        for override in self.overrides:
            where, part = override.structure.voxels, override.structure.fraction
            share = 1.0 if part is None else part
            density[where] = share * override.density + (1.0 - share) * density[where]
        density.flags.writeable = False
        return density.reshape(self.ct.grid.shape)

    def dosed_mask(self) -> npt.NDArray[np.bool_]:
        """Return the voxels of the CT (nz, ny, nx) whose dose counts: the external contour and bolus."""
        mask = self.external.mask()
        for override in self.overrides:
            if override.dosed:
                mask |= override.structure.mask()
        return mask

    def structure(self, text: str, name: str | None = None) -> Structure:
        """Return the structure of that name or structure expression, such as ``"PTV - (CORD + 5 mm)"``.

        The name of the external contour works also where it was found by threshold. See `evaluate_expression`.
        """
        if text in self.structures:
            return self.structures[text] if name is None else replace(self.structures[text], name=name)
        held: Mapping[str, Structure] = self.structures
        if re.search(r"\bexternal\b", text):
            held = {self.external.name: self.external, **held}
        return evaluate_expression(text, held, name)

    def with_structure(
        self, name: str, shape: str | Structure, role: Role | None = None, priority: int | None = None
    ) -> Patient:
        """Return the patient with one more structure.

        Parameters
        ----------
        name : str
            Its name, a new one.
        shape : str or Structure
            A structure expression, such as ``"PTV - (CORD + 5 mm)"``, or a structure; one drawn on another grid is
            brought to the CT's by exact shares of voxels.
        role : {"target", "oar", "external", "ignored"}, optional
            The part it plays; None keeps a given structure's role and makes an expression an organ at risk.
        priority : int, optional
            Rank where structures overlap; None keeps a given structure's and takes the role's for an expression.

        Raises
        ------
        InputError
            When the name is taken, or the expression cannot be read or names an unknown structure.

        >>> from radplan.patient.phantoms import phantom
        >>> patient = phantom("box").with_structure("Shell", "ring(OuterTarget, 3 mm, 9 mm)")
        >>> patient.structures["Shell"].role
        'oar'
        """
        if name in self.structures:
            raise InputError(f"patient {self.name} already has a structure {name!r}; choose another name")
        if isinstance(shape, Structure):
            made = replace(self._on_ct(shape), name=name)
            role, priority = role or shape.role, shape.priority if priority is None else priority
        else:
            made = self.structure(shape, name)
        made = replace(made, role=role or "oar", priority=priority)
        if made.voxels.size == 0:
            logger.warning("structure %s of patient %s is empty", name, self.name)
        return replace(self, structures=Structures([*self.structures.values(), made], self.structures.left_out))

    def with_density(
        self,
        structure: str | Structure,
        density: float | None = None,
        hu: float | None = None,
        dosed: bool = False,
    ) -> Patient:
        """Return the patient with a given density in a structure, whatever the CT shows there.

        Inside a structure outside the external contour (couch, bolus) the density counts too: rays are attenuated from
        there on, and the source-to-surface distance ends there. Of several overrides of a voxel the last counts.

        Parameters
        ----------
        structure : str or Structure
            A structure's name, a structure expression, or a structure that need not be one of the patient's.
        density : float, optional
            Electron density relative to water [1], >= 0.
        hu : float, optional
            Hounsfield unit [HU] that the patient's HU table turns into the density. One of the two is given.
        dosed : bool
            Whether dose is calculated in the structure, as is wanted of bolus. Otherwise a structure outside the
            external contour attenuates and gets no dose, as is wanted of a couch.

        Raises
        ------
        InputError
            When not exactly one of density and hu is given, or the value is impossible.

        >>> from radplan.patient.phantoms import phantom
        >>> patient = phantom("box").with_density("OuterTarget", 0.25)
        >>> patient.density()[30, 30, 30].item()
        0.25
        """
        if (density is None) == (hu is None):
            raise InputError(f"give either a density or a Hounsfield unit, got density={density} and hu={hu}")
        # Why not clipped: a number that somebody wrote down was meant to be in the table.
        table = replace(self.hu_table, clip=False)
        value = density if density is not None else float(table.relative_density(hu or 0.0))
        where = self._on_ct(structure) if isinstance(structure, Structure) else self.structure(structure)
        return replace(self, overrides=(*self.overrides, DensityOverride(where, float(value), dosed)))

    def _on_ct(self, structure: Structure) -> Structure:
        if structure.grid == self.ct.grid:
            return structure
        found = resample_weights(structure.grid, structure.voxels, structure.fraction, self.ct.grid)
        voxels, fraction = rounded_off(*found)
        return replace(structure, grid=self.ct.grid, voxels=voxels, fraction=fraction)

    def body_voxels(self, grid: Grid) -> Voxels:
        """Return the body on a dose grid: the external contour grown by one voxel of the CT, and bolus.

        These are the voxels of `grid` that hold some of the patient, or whose centres lie in a CT voxel of the contour
        or one that shares a face with it, and those that hold some of a structure whose density is given and that
        shall get dose (`with_density`); as sorted flat indices (n,) into `grid`.
        """
        from scipy import ndimage

        outline = self.external
        grown = ndimage.binary_dilation(outline.mask()).reshape(-1)
        body = np.zeros(grid.size, dtype=bool)
        body[resample_weights(outline.grid, np.flatnonzero(grown), None, grid, "nearest")[0]] = True
        for part in (outline, *(override.structure for override in self.overrides if override.dosed)):
            body[resample_weights(part.grid, part.voxels, part.fraction, grid, "volume")[0]] = True
        if not body.any():
            raise InputError(
                f"the dose grid {grid} does not meet patient {self.name}: place it over the external contour"
            )
        return np.flatnonzero(body).astype(np.int64)

    def structure_weights(
        self,
        name: str,
        grid: Grid,
        voxels: Voxels | None = None,
        overlap_with: Sequence[str] | None = None,
        method: Membership | None = None,
    ) -> tuple[Voxels, Floats]:
        """Return the voxels of `grid` that make up a structure and their weights, which sum to 1.

        Parameters
        ----------
        name : str
            The structure.
        grid : Grid
            The dose grid.
        voxels : array of shape (m,), optional
            Sorted flat indices to choose from, as a forward model has them; None allows all.
        overlap_with : sequence of str, optional
            Structures it contends with: it loses the voxels of those with higher priority. None: the whole structure.
        method : {"volume", "nearest"}, optional
            See `resample_weights`; None takes the patient's `membership`.

        Returns
        -------
        voxels : array of shape (n,)
            Sorted flat indices into `grid`.
        weights : array of shape (n,)
            Share of the structure's volume in each [1], > 0.

        Raises
        ------
        InputError
            When nothing of the structure is left: empty, lost to others by overlap, or outside the grid or `voxels`.
        """
        structure = self.structures[name] if name in self.structures or name != self.external.name else self.external
        members: tuple[Voxels, Floats | None] = (structure.voxels, structure.fraction)
        if structure.voxels.size == 0:
            raise InputError(f"structure {name!r} of patient {self.name} is empty")
        if overlap_with is not None:
            members = after_overlap(self.structures, [name, *overlap_with])[name]
            if members[0].size == 0:
                raise InputError(
                    f"structure {name!r} has no voxel left: all belong to structures of higher priority "
                    f"among {list(overlap_with)}"
                )
        where, coverage = resample_weights(structure.grid, *members, grid, method or self.membership)
        if voxels is not None:
            place = np.minimum(np.searchsorted(voxels, where), max(len(voxels) - 1, 0))
            held = np.asarray(voxels)[place] == where if len(voxels) else np.zeros(where.size, dtype=bool)
            where, coverage = where[held], coverage[held]
        total = float(coverage.sum())
        if total <= 0:
            raise InputError(
                f"structure {name!r} of patient {self.name} has no voxel on the dose grid: enlarge or refine the grid"
            )
        if (method or self.membership) == "volume":
            self._announce_loss(name, members, total * grid.voxel_volume)
        return where, coverage / total

    def _announce_loss(self, name: str, members: tuple[Voxels, Floats | None], found: float) -> None:
        count = members[0].size if members[1] is None else float(members[1].sum())
        share = found / (count * self.ct.grid.voxel_volume)
        if share < 0.95:
            logger.warning("only %.1f %% of structure %s lies where dose is calculated", 100 * share, name)

    def voxel_parameters(self, grid: Grid, voxels: npt.ArrayLike) -> dict[str, Floats]:
        """Return ``alpha_x`` [1/Gy] and ``beta_x`` [1/Gy^2], each (1, n), at the voxels (n,) of a dose grid.

        A voxel takes the values of the structure of highest priority at its centre (ignored structures left out, the
        first named of equal priority), and those of the external contour where there is none.
        """
        outline = self.external
        candidates = [outline, *(s for s in self.structures.values() if s.role != "ignored" and s is not outline)]
        drawn = sorted(range(1, len(candidates)), key=lambda i: (-candidates[i].effective_priority, -i))
        label = np.zeros(self.ct.grid.size, dtype=np.int32)
        for i in drawn:
            label[np.flatnonzero(candidates[i].mask())] = i
        nearest = self.ct.grid.nearest(grid.points(voxels))
        chosen = np.where(nearest >= 0, label[np.maximum(nearest, 0)], 0)
        return {
            "alpha_x": np.asarray([s.alpha_x for s in candidates], dtype=np.float64)[chosen][None, :],
            "beta_x": np.asarray([s.beta_x for s in candidates], dtype=np.float64)[chosen][None, :],
        }


def find_external(ct: CT, threshold: float = EXTERNAL_THRESHOLD) -> Structure:
    """Return the patient's outline: the largest connected region above `threshold` [HU], holes filled slice by slice.

    Thin bridges (one voxel) to a couch are cut in each slice before the largest region is chosen.

    Raises
    ------
    InputError
        When no voxel lies above the threshold.
    """
    from scipy import ndimage

    dense = ct.hu > threshold
    if not dense.any():
        raise InputError(
            f"no voxel of the CT lies above {threshold:g} HU: no patient is found; are these Hounsfield units?"
        )
    square = np.ones((1, 3, 3), dtype=bool)
    cross = ndimage.generate_binary_structure(2, 1)[None]
    in_slice = np.pad(cross, ((1, 1), (0, 0), (0, 0)))
    cut = ndimage.binary_opening(dense, square)
    labels, count = ndimage.label(cut if cut.any() else dense)
    sizes = np.bincount(labels.reshape(-1), minlength=count + 1)
    body = labels == int(np.argmax(sizes[1:])) + 1
    body = ndimage.binary_dilation(body, cross, mask=dense)
    air, count = ndimage.label(~body, in_slice)
    outside = np.zeros(count + 1, dtype=bool)
    for rim in (air[:, 0], air[:, -1], air[:, :, 0], air[:, :, -1]):
        outside[rim] = True
    body |= ~outside[air]
    return Structure.from_mask("external", ct.grid, body, role="external")


def _checked_goal(goal: TravellingGoal, structures: Structures) -> TravellingGoal:
    if isinstance(goal, Mapping):
        raise InputError(f"a patient's goals are Goals, got {dict(goal)}: make one with radplan.Goal.from_spec")
    if goal.structure not in structures:
        raise UnknownNameError("structure", goal.structure, structures, structures.why_absent(goal.structure))
    return goal
