"""Quantities: what goals, metrics and plans are written in, and how they are worked out from a model's images."""

from radplan.quantities.base import QUANTITIES, Quantity, Voxel
from radplan.quantities.dose import AlphaDose, PhysicalDose, SqrtBetaDose
from radplan.quantities.effect import BED, EQD2, Effect, RBExDose
from radplan.quantities.let import LET, DirtyDose, LETAll, LETAllDose, LETDose, LETxDose
from radplan.quantities.primaries import PrimaryDose, PrimaryFluence, PrimaryLET, PrimaryLETDose, TrackLET
from radplan.quantities.protons import ProtonDose, ProtonFluence, ProtonTrackLET
from radplan.quantities.rbe import RBE
from radplan.quantities.resolver import BoundQuantity, Evaluation, QuantityResolver

__all__ = [
    "BED",
    "EQD2",
    "LET",
    "QUANTITIES",
    "RBE",
    "AlphaDose",
    "BoundQuantity",
    "DirtyDose",
    "Effect",
    "Evaluation",
    "LETAll",
    "LETAllDose",
    "LETDose",
    "LETxDose",
    "PhysicalDose",
    "PrimaryDose",
    "PrimaryFluence",
    "PrimaryLET",
    "PrimaryLETDose",
    "ProtonDose",
    "ProtonFluence",
    "ProtonTrackLET",
    "Quantity",
    "QuantityResolver",
    "RBExDose",
    "SqrtBetaDose",
    "TrackLET",
    "Voxel",
]
