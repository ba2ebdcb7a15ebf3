"""The comparison of a recalculated plan with a reference, as a table on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from radplan.cli.console import print_table

if TYPE_CHECKING:
    from radplan.recalc.comparison import Comparison, StructureComparison


def tell_comparison(comparison: Comparison) -> None:
    """Print ours, the reference's and the difference of each metric, the factor where it was asked for, and gamma."""
    factor = comparison.factor
    print()
    print_table(
        {row.structure: _compared(row, factor or 1.0) for row in comparison.rows},
        "[Gy(RBE)]" if comparison.quantity == "rbe_x_dose" else "[Gy]",
    )
    if factor is not None:
        fitted = f"the factor {factor:.4f}, which fits the mean of {comparison.fitted_to}"
        print(f"ref: the reference; diff: ours times {fitted}, minus the reference")
    else:
        print("ref: the reference; diff: ours minus the reference")
    if comparison.gamma is not None:
        gamma = comparison.gamma
        print(f"gamma {gamma.criteria}: {gamma.passing:.2f} % of {gamma.points} points pass, no factor applied")


def _compared(row: StructureComparison, factor: float) -> dict[str, float]:
    """Return each metric as ours, as the reference's, and the difference."""
    from radplan.recalc.comparison import METRICS

    cells: dict[str, float] = {}
    for kind in METRICS:
        cells |= {
            kind: row.ours[kind],
            f"{kind} ref": row.reference[kind],
            f"{kind} diff": row.difference(kind, factor),
        }
    return cells
