"""Plans of other systems calculated again: any photon RTPLAN to dose, DVHs and a comparison with a reference."""

from __future__ import annotations

from radplan.io.reference import ReferenceDose, read_reference
from radplan.recalc.comparison import Comparison, StructureComparison, compare
from radplan.recalc.files import save_recalculation
from radplan.recalc.recalculate import Recalculation, recalculate
from radplan.recalc.scene import SceneOptions

__all__ = [
    "Comparison",
    "Recalculation",
    "ReferenceDose",
    "SceneOptions",
    "StructureComparison",
    "compare",
    "read_reference",
    "recalculate",
    "save_recalculation",
]
