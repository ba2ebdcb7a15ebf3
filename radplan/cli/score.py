"""The verb ``radplan score``: a plan or a dose judged by a scorecard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from radplan.cli.console import show_warnings


def command(
    dose: Annotated[
        str, typer.Argument(metavar="DOSE", help="An RTDOSE or NRRD dose, an OpenKBP patient, or a plan's folder.")
    ],
    card: Annotated[
        str, typer.Option(metavar="CARD", help="Scorecard file (radplan's or PlanScoreCard), or a protocol's name.")
    ],
    patient: Annotated[
        str | None, typer.Option(metavar="CASE", help="Whose structures are judged; a plan's folder knows its own.")
    ] = None,
    factor: Annotated[float, typer.Option(metavar="F", help="What the dose is multiplied by first.")] = 1.0,
    json_file: Annotated[
        str | None, typer.Option("--json", metavar="FILE", help="Write the score as JSON, too.")
    ] = None,
) -> int:
    """Judge a dose by a scorecard: value, score and maximum of each criterion."""
    from radplan.autoplan.protocol import load_scorecard, understand
    from radplan.io.staging import staged_file
    from radplan.plan.of_dose import plan_of_dose
    from radplan.workflows.doses import given_dose

    show_warnings()
    judged, rules = load_scorecard(card)
    given = given_dose(dose, patient)
    seen = given.patient if rules is None else understand(given.patient, rules).patient
    score = judged.score(plan_of_dose(given.dose * factor, given.grid, seen))
    if json_file is not None:
        with staged_file(Path(json_file)) as partial:
            partial.write_text(json.dumps(score.to_spec(), indent=1) + "\n", encoding="utf-8")
    print(score.table())
    return 0
