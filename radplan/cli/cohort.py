"""The verb ``radplan cohort``: many patients planned by one specification."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from radplan.cli.arguments import refuse
from radplan.cli.console import show_warnings
from radplan.errors import InputError, UnknownNameError

ACTIONS = ("run", "status", "merge", "export")


def command(
    action: Annotated[str, typer.Argument(metavar="ACTION", help="run, status, merge or export.")],
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="The cohort (YAML).")],
    shard: Annotated[str, typer.Option(metavar="I/N", help="Which part of the patients.")] = "1/1",
    scheduler: Annotated[
        str, typer.Option(metavar="S", help="serial, local (Dask on this machine) or tcp://... of a Dask scheduler.")
    ] = "serial",
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Where to, instead of the specification's out.")
    ] = None,
    layout: Annotated[str, typer.Option(metavar="L", help="Of export: arrays, gdp_hmm or openkbp.")] = "arrays",
    split: Annotated[
        str | None, typer.Option(metavar="A/B/C", help="Of export: patients to train, validate and test.")
    ] = None,
    to: Annotated[str | None, typer.Option(metavar="DIR", help="Of export: where to.")] = None,
    redo: Annotated[bool, typer.Option("--redo", help="Make tasks of another specification again.")] = False,
) -> int:
    """Make a cohort with its table and data card, tell how far it is, merge shards, or write it as a data set.

    A stopped run goes on where it was.
    """
    from radplan.autoplan.cohort.export import export_cohort
    from radplan.autoplan.cohort.run import Shard, cohort_status, merge_cohort, run_cohort
    from radplan.autoplan.cohort.spec import read_cohort

    if action not in ACTIONS:
        raise UnknownNameError("action of radplan cohort", action, ACTIONS)
    if action != "run":
        refuse(
            f"the action {action}", {"--shard": shard != "1/1", "--scheduler": scheduler != "serial", "--redo": redo}
        )
    if action != "export":
        refuse(f"the action {action}", {"--layout": layout != "arrays", "--split": split, "--to": to})
    show_warnings(logging.ERROR)
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
    if action == "export":
        print(export_cohort(cohort, to or f"{cohort.out}_{layout}", layout, _counts(split)))
        return 0
    outcomes = run_cohort(
        cohort, Shard.read(shard), scheduler, redo, lambda index, outcome: print(f"{index:06d} {outcome}", flush=True)
    )
    print(f"{cohort.name}: " + ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items()))
    card = Path(cohort.out, "card.json")
    if shard == "1/1" and outcomes["done"] + outcomes["skipped"]:
        print(card)
    return 3 if outcomes["failed"] else 0


def _counts(split: str | None) -> tuple[int, int, int] | None:
    """Return the numbers of a split such as 40/6/14."""
    if split is None:
        return None
    words = split.split("/")
    if len(words) != 3 or not all(word.strip().isdigit() for word in words):
        raise InputError(f"--split is written A/B/C, such as 40/6/14 patients, got {split!r}")
    return int(words[0]), int(words[1]), int(words[2])
