"""A custom forward model: open fields, each with one weight, as in conformal treatment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from radplan.arrays import like, namespace
from radplan.influence import Dij, Rows, RowsModel, Variables


@dataclass(frozen=True, eq=False)
class OpenFields(RowsModel):
    """Dose of a `Dij` whose bixels of one beam share a weight: ``d = D B x``, B (bixels, beams) says whose they are."""

    rows: Rows
    dij: Dij
    shares: Any
    variables: Variables
    radiation: str = "photons"
    linear: ClassVar[bool] = True

    @classmethod
    def of(cls, dij: Dij) -> OpenFields:
        beams = np.asarray(dij.beam_index)
        shares = (beams[:, None] == np.unique(beams)[None, :]).astype(np.float64)
        return cls(dij.rows, dij, shares, Variables(shares.shape[1], labels=("field weight [MU]",)))

    @property
    def images(self):
        return self.dij.images

    def forward(self, x, images=None):
        weights = namespace(x).matmul(like(self.shares, x), x)
        return self.dij.restrict(self.rows.voxels).forward(weights, images)

    def pullback(self, x, cotangents):
        weights = namespace(x).matmul(like(self.shares, x), x)
        bixels = self.dij.restrict(self.rows.voxels).pullback(weights, cotangents)
        return namespace(x).matmul(like(self.shares.T, bixels), bixels)
