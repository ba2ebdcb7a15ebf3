"""Losses of dose: absolute differences, and differences of DVHs by sorted doses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

Tensor = Any


_LEAST = 8
"""Fewest voxels of a structure whose DVH is looked at."""


def groups_of(members: Tensor, structures: int) -> list[Tensor]:
    """Return of each structure k the indices of the voxels whose `members` (m,) have bit k; none where they are few."""
    groups = [torch.nonzero((members >> k) & 1)[:, 0] for k in range(structures)]
    return [group if group.numel() >= _LEAST else group[:0] for group in groups]


def dvh_loss(predicted: Tensor, planned: Tensor, groups: Sequence[Tensor], targets: int) -> Tensor:
    r"""Return the mean over structures of their DVHs' distance and of the distance of the doses that are scored.

    With both doses of a structure sorted, :math:`\frac1n \sum_i |d_{(i)} - \hat d_{(i)}|` is the area between its two
    DVHs. To it are added the absolute differences of D1, D95 and D99 of targets, and of the mean and the hottest
    voxel but one of organs; each structure counts once.

    Parameters
    ----------
    predicted, planned : tensor of shape (m,)
        Doses.
    groups : sequence of tensor
        Of each structure its voxels; see `groups_of`.
    targets : int
        Number of targets, which come first.

    Returns
    -------
    tensor of shape ()
        In the unit of dose; 0 when all groups are empty.

    Notes
    -----
    Source: Nguyen et al., Med. Phys. 47 (2020) 837 for the loss by DVH; by sorting it is exact and needs no width.
    """
    terms = []
    for k, own in enumerate(groups):
        if own.numel() == 0:
            continue
        given = torch.sort(predicted[own]).values
        aimed = torch.sort(planned[own]).values
        term = (given - aimed).abs().mean()
        if k < targets:
            for part in (0.01, 0.05, 0.99):
                rank = round(part * (own.numel() - 1))
                term = term + (given[rank] - aimed[rank]).abs() / 3.0
        else:
            hot = (given[-2] - aimed[-2]).abs()
            term = term + 0.5 * hot + 0.5 * (given.mean() - aimed.mean()).abs()
        terms.append(term)
    return torch.stack(terms).mean() if terms else predicted.sum() * 0.0


def pooled(values: Tensor, parents: Tensor, count: int) -> Tensor:
    """Return means (count,) of values (n,) over the voxels of each parent; every parent has at least one."""
    sums = torch.zeros(count, dtype=values.dtype, device=values.device).index_add(0, parents, values)
    numbers = torch.zeros(count, dtype=values.dtype, device=values.device)
    return sums / numbers.index_add(0, parents, torch.ones_like(values)).clamp(min=1.0)
