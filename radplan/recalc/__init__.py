"""Plans of other systems calculated again: RTPLANs of photons and of scanned ions, beside a reference."""

from __future__ import annotations

from radplan.io.reference import ReferenceDose, read_reference
from radplan.recalc.comparison import Comparison, StructureComparison, compare
from radplan.recalc.files import save_recalculation
from radplan.recalc.ion_files import save_ion_recalculation
from radplan.recalc.ions import IonRecalculation, recalculate_ions
from radplan.recalc.recalculate import Recalculation, recalculate
from radplan.recalc.scene import SceneOptions

__all__ = [
    "Comparison",
    "IonRecalculation",
    "Recalculation",
    "ReferenceDose",
    "SceneOptions",
    "StructureComparison",
    "compare",
    "read_reference",
    "recalculate",
    "recalculate_ions",
    "save_ion_recalculation",
    "save_recalculation",
]
