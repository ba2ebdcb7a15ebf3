"""From anatomy to the fluence of an arc: dose, what each control point sees of it, fluence, and its correction.

The dose between the two fluences is a forward model's, differentiable; only what physics does not know is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from radplan.ai import as_torch
from radplan.ai.arc_case import ArcCase
from radplan.ai.layers import OperatorLayer
from radplan.ai.nets.fluence_net import Discriminator, FluenceNet
from radplan.ai.nets.resunet import DoseNet
from radplan.ai.spec import AirtSpec

Tensor = Any

_SMOOTH = 0.0025
"""Weight of the judge's squared slope at real maps (R1; Mescheder et al., ICML 2018)."""

_OF_BEAMS = ("conformal", "conformal highest", "plate")
"""Channels of the dose proposer that tell what open fields give."""

_LOUD = 20.0
"""Factor on errors before the correction sees them: a twentieth of the prescription speaks as loud as fluence."""

_TOO_MUCH, _TOO_LITTLE = 2.0, 1.0
"""Weights of dose above and below the prescription in the target's error."""


@dataclass(frozen=True, eq=False)
class ArcInputs:
    """A case as tensors.

    Parameters
    ----------
    case : ArcCase
        What it was made of.
    channels, voxels : tensor
        Of the dose proposer, in the anatomy's voxels.
    maps : tensor of shape (1 + structures, control points, v, u)
        Which pixels open, and target and organs as each control point sees them.
    open : tensor of shape (variables,)
        Flat indices of the pixels that open.
    doses : tensor of shape (voxels of the Dij,)
        Their flat indices in the dose grid.
    shares : tensor of shape (structures, voxels of the Dij)
        Of each structure, summing to 1.
    dose, bev : torch.nn.Module
        From monitor units to dose per fraction, and from a volume to maps.
    """

    case: ArcCase
    channels: Tensor
    voxels: Tensor
    maps: Tensor
    open: Tensor
    doses: Tensor
    shares: Tensor
    dose: nn.Module
    bev: OperatorLayer

    @classmethod
    def of(cls, case: ArcCase) -> ArcInputs:
        """Return a case's tensors, on the CPU."""
        return cls(
            case,
            torch.from_numpy(np.ascontiguousarray(case.channels)),
            torch.from_numpy(np.flatnonzero(case.anatomy.inside)),
            torch.from_numpy(case.maps),
            torch.from_numpy(case.open),
            torch.from_numpy(np.asarray(case.dij.voxels).astype(np.int64)),
            torch.from_numpy(case.shares.astype(np.float32)),
            as_torch(case.dij, "physical_dose"),
            case.bev.as_torch(),
        )

    def dose_of(self, fluence: Tensor) -> Tensor:
        """Return the dose (voxels of the Dij,), over the prescription, of fluence (control points, v, u)."""
        return self.dose(fluence.reshape(-1)[self.open] * self.case.unit)[0] / self.case.prescription

    def seen(self, values: Tensor, voxels: Tensor) -> Tensor:
        """Return the maps (control points, v, u) of values in some voxels of the dose grid."""
        volume = torch.zeros(self.case.anatomy.grid.size, dtype=values.dtype).index_copy(0, voxels, values)
        return self.bev(volume.view(self.case.anatomy.grid.shape))

    def blamed(self, errors: Tensor) -> Tensor:
        """Return the maps (k, control points, v, u) of errors (k, voxels of the Dij); see `ArcCase.blamed`."""
        return torch.from_numpy(self.case.blamed(errors.detach().numpy()))


class AirtNet(nn.Module):  # type: ignore[misc]
    """The networks of a planner of arcs.

    Source: Arberet et al., arXiv 2603.06338 (2026). Here residual U-Nets take the place of MedNeXt, and both fluence
    networks see target and organs besides dose.

    Parameters
    ----------
    spec : AirtSpec
        Sizes, and which parts there are.
    channels : sequence of str
        Names of the dose proposer's channels.
    """

    def __init__(self, spec: AirtSpec, channels: Sequence[str]) -> None:
        super().__init__()
        sizes, maps = spec.network, 2 + len(spec.organs)
        self.kept = [k for k, name in enumerate(channels) if sizes.conformal or name not in _OF_BEAMS]
        self.proposer = DoseNet(len(self.kept), sizes.widths, sizes.pool, sizes.head)
        self.first = FluenceNet(maps + 1, sizes.fluence, start=1.0)
        self.by_goals = sizes.error == "goals"
        shown = maps + 3 + self.by_goals
        self.correction = FluenceNet(shown, sizes.fluence, start=0.0) if sizes.correction else None
        self.rounds = sizes.rounds
        self.judge = Discriminator(sizes.fluence) if sizes.shaping else None

    def forward(
        self,
        inputs: ArcInputs,
        sparing: Tensor,
        given: Tensor | None = None,
        real: Tensor | None = None,
        corrected: bool = True,
    ) -> dict[str, Tensor]:
        """Return ``proposed`` dose, first and last fluence, their doses, and the error that the correction saw first.

        No gradient passes from the correction to the parts before it. With real maps these parts stay as they are,
        ``cheat`` is what the last fluence loses before the judge, which stays too, and ``judged`` what the judge loses.

        Parameters
        ----------
        inputs : ArcInputs
            The case.
        sparing : tensor of shape (structures,)
            Share by which each organ is asked to get less than the first fluence gives it; the target's counts not.
        given : tensor of shape (voxels of the anatomy,), optional
            Dose that the first fluence network is shown instead of the proposed one.
        real : tensor of shape (control points, v, u), optional
            Fluence that apertures give.
        corrected : bool
            Whether the correction is applied; otherwise the last fluence is the first.
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and real is None):
            everything = torch.arange(inputs.voxels.numel())
            channels = inputs.channels[self.kept]
            proposed = self.proposer(channels, inputs.voxels, inputs.case.anatomy.grid.shape, everything)
            seen = inputs.seen(proposed if given is None else given, inputs.voxels)
            first = self.first(torch.cat([seen[None], inputs.maps])).abs() * inputs.maps[0]
            result = {"proposed": proposed, "first": first, "first_dose": inputs.dose_of(first)}
        if self.correction is None or not corrected:
            return {**result, "last": first, "last_dose": result["first_dose"]}
        result |= self._corrected(self.correction, inputs, first.detach(), result["first_dose"].detach(), sparing)
        if self.judge is not None and real is not None:
            fixed = {name: value.detach() for name, value in self.judge.named_parameters()}
            last = result["last"]
            result["cheat"] = -functional_call(self.judge, fixed, (last,)).mean()
            result["judged"] = _judged(self.judge, real, last.detach())
        return result

    def _corrected(
        self, correction: FluenceNet, inputs: ArcInputs, first: Tensor, before: Tensor, sparing: Tensor
    ) -> dict[str, Tensor]:
        """Return ``last`` fluence, ``last_dose`` and the first ``error``; the correction is applied `rounds` times."""
        last, dose, errors = first, before, []
        for _ in range(self.rounds):
            error = dose_error(dose.detach(), before, inputs.shares, sparing)
            if self.by_goals:
                slope = inputs.case.goal_error(dose.detach().numpy()).astype(np.float32)
                error = torch.cat([error, torch.from_numpy(slope)[None]])
            errors.append(error)
            maps = torch.cat([last[None], inputs.blamed(_LOUD * error), inputs.maps])
            last = (last + correction(maps)).abs() * inputs.maps[0]
            dose = inputs.dose_of(last)
        return {"error": errors[0], "last": last, "last_dose": dose}


def _judged(judge: Discriminator, real: Tensor, made_up: Tensor) -> Tensor:
    """Return a judge's hinge loss, with its squared slope at real maps (R1)."""
    shown = real.detach().requires_grad_(True)
    scores = judge(shown)
    loss = torch.relu(1.0 - scores).mean() + torch.relu(1.0 + judge(made_up)).mean()
    (slope,) = torch.autograd.grad(scores.sum(), shown, create_graph=True)
    return loss + 0.5 * _SMOOTH * (slope**2).sum(dim=(1, 2)).mean()


def dose_error(dose: Tensor, before: Tensor, shares: Tensor, sparing: Tensor) -> Tensor:
    r"""Return what is wrong with a dose in the target and in organs (2, voxels), > 0 where there is too much.

    .. math::
        E_1 = M_T\,[2 (D - 1)_+ - (1 - D)_+], \qquad E_2 = \sum_o M_o\,(D - (1 - s_o) D_0)_+

    Parameters
    ----------
    dose, before : tensor of shape (voxels,)
        D and D_0, over the prescription.
    shares : tensor of shape (structures, voxels)
        Where each structure is, the target first.
    sparing : tensor of shape (structures,)
        s_o.

    Notes
    -----
    Source: Arberet et al., arXiv 2603.06338 (2026).
    """
    inside = shares / shares.amax(dim=1, keepdim=True).clamp(min=1e-12)
    target = _TOO_MUCH * torch.relu(dose - 1.0) - _TOO_LITTLE * torch.relu(1.0 - dose)
    organs = torch.relu(dose[None] - (1.0 - sparing[1:, None]) * before[None])
    return torch.stack([inside[0] * target, (inside[1:] * organs).sum(dim=0)])
