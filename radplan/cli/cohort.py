"""The verb ``radplan cohort``: many patients planned by one specification."""

from __future__ import annotations

import logging
from typing import Annotated

import typer

from radplan.errors import UnknownNameError

ACTIONS = ("run", "status", "merge")


def command(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="run, status or merge.")],
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="The cohort (YAML).")],
    shard: Annotated[str, typer.Option(metavar="I/N", help="Which part of the patients.")] = "1/1",
    scheduler: Annotated[
        str, typer.Option(metavar="S", help="serial, local (Dask on this machine) or tcp://... of a Dask scheduler.")
    ] = "serial",
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where to, instead of the specification's out.")
    ] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Make tasks of another specification again.")] = False,
) -> int:
    """Make a cohort, tell how far it is, or merge its table and data card. A stopped run goes on where it was."""
    from radplan.autoplan.cohort.run import Shard, cohort_status, merge_cohort, run_cohort
    from radplan.autoplan.cohort.spec import read_cohort

    if action not in ACTIONS:
        raise UnknownNameError("action of radplan cohort", action, ACTIONS)
    logging.basicConfig(format="radplan: %(levelname)s: %(message)s", level=logging.ERROR)
    cohort = read_cohort(spec)
    if out is not None:
        cohort = cohort.model_copy(update={"out": out})
    if action == "status":
        states = cohort_status(cohort)
        print(f"{cohort.name}: {cohort.size} patients; " + ", ".join(f"{n} {state}" for state, n in states.items()))
        return 0
    if action == "merge":
        table, card = merge_cohort(cohort)
        print(f"{table}\n{card}")
        return 0
    outcomes = run_cohort(
        cohort, Shard.read(shard), scheduler, redo, lambda index, outcome: print(f"{index:06d} {outcome}", flush=True)
    )
    print(f"{cohort.name}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    return 3 if outcomes["failed"] else 0
