"""What a recalculated plan leaves: its files and figures, and its doses beside a reference on the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radplan.cli.console import Console, print_table

if TYPE_CHECKING:
    from radplan.plan import Plan
    from radplan.recalc import IonRecalculation, Recalculation
    from radplan.recalc.comparison import Comparison, StructureComparison


def written(
    recalculation: Recalculation | IonRecalculation,
    save: Callable[..., tuple[Path, ...]],
    out: str,
    read: tuple[str, Sequence[str]],
    console: Console,
    figures: bool,
) -> list[Path]:
    """Write a recalculation and its figures into a folder, all or none; return the files.

    Parameters
    ----------
    recalculation : Recalculation or IonRecalculation
        What to write.
    save : callable
        `save_recalculation` or `save_ion_recalculation`.
    out : str
        The folder.
    read : (str, sequence of str)
        The RTPLAN and the files of the reference, whose names are written down.
    console : Console
        Knows the seconds since the beginning.
    figures : bool
        Whether png files are drawn.
    """
    from radplan.io.staging import staged
    from radplan.viz import figures_available

    told: dict[str, Any] = {
        "rtplan": Path(read[0]).name,
        "reference": [Path(path).name for path in read[1]],
        "seconds": round(time.perf_counter() - console.first, 2),
        "processor_seconds": round(time.process_time(), 2),
    }
    with staged(out) as partial:
        paths = list(save(recalculation, partial, told))
        if figures and figures_available():
            from radplan.viz.recalc import save_recalculation_figures

            paths += save_recalculation_figures(recalculation, partial)
    if figures and not figures_available():
        print("figures: none, matplotlib is not installed (pip install 'radplan[viz]')")
    return [Path(out, path.name) for path in paths]


def tell_doses(recalculation: Recalculation | IonRecalculation) -> None:
    """Print what a reader of the numbers has to know, and the doses: beside the reference where there is one."""
    from radplan.recalc.comparison import METRICS

    for note in recalculation.notes:
        print(f"note: {note}")
    plan = recalculation.plan
    if recalculation.comparison is not None:
        tell_comparison(recalculation.comparison)
    else:
        rows = {name: {kind: row[kind] for kind in METRICS if kind in row} for name, row in plan.metrics().items()}
        print_table(rows, f"[{plan.unit(plan.prescribed)}]")
    if len(plan.model.scenarios) > 1:
        _tell_scenarios(plan)


def _tell_scenarios(plan: Plan) -> None:
    """Print how far D95 and D2 of targets, and mean and D2 of the others, reach over the scenarios."""
    from radplan.plan import scenario_metrics
    from radplan.plan.robustness import extremes

    table = scenario_metrics(plan, names=("D95", "Dmean", "D2"))
    judged = list(next(iter(table.values())))
    targets = [name for name in judged if plan.patient.structures[name].role == "target"]
    print(f"\nlowest and highest of {len(plan.model.scenarios)} scenarios")
    for names, kinds in ((targets, ("D95", "D2")), ([n for n in judged if n not in targets], ("Dmean", "D2"))):
        ends = {name: {kind: extremes(table, name, kind) for kind in kinds} for name in names}
        rows = {
            name: {f"{kind} {end}": value for kind, pair in row.items() for end, value in zip(("low", "high"), pair)}
            for name, row in ends.items()
        }
        if rows:
            print_table(rows, f"[{plan.unit(plan.prescribed)}]")


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
