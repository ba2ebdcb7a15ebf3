"""Running a cohort: tasks one after the other, or on a Dask cluster; status, merging, export."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from radplan.autoplan.cohort.spec import CohortSpec
from radplan.autoplan.cohort.task import finished, run_task, task_folder, task_hash
from radplan.errors import InputError, RadplanError
from radplan.io.staging import staged_file

Told = Callable[[int, str], None]


@dataclass(frozen=True)
class Shard:
    """A part of a cohort's tasks: those whose number leaves rest ``number - 1`` when divided by ``count``.

    >>> Shard.read("2/3").tasks(7)
    (1, 4)
    """

    number: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= self.count:
            raise InputError(f"shards are written I/N with 1 <= I <= N, got {self.number}/{self.count}")

    @classmethod
    def read(cls, text: str) -> Shard:
        """Return the shard that ``I/N`` stands for."""
        number, sign, count = text.partition("/")
        if not (sign and number.strip().isdigit() and count.strip().isdigit()):
            raise InputError(f"shards are written I/N, such as 2/5, got {text!r}")
        return cls(int(number), int(count))

    def tasks(self, size: int) -> tuple[int, ...]:
        """Return the numbers of its tasks in a cohort of some size."""
        return tuple(range(self.number - 1, size, self.count))


def run_cohort(
    spec: CohortSpec,
    shard: Shard | None = None,
    scheduler: str = "serial",
    redo: bool = False,
    told: Told | None = None,
) -> Counter[str]:
    """Run the tasks of a cohort that are not done yet; returns how many were done, skipped, failed.

    The whole cohort ends with its table and data card, see `merge_cohort`; after shards call that.

    Parameters
    ----------
    spec : CohortSpec
        What to make.
    shard : Shard, optional
        Which part; all when left out.
    scheduler : str
        ``"serial"``; ``"local"``, a Dask cluster of this machine's cores with one thread each; or the address of a Dask
        scheduler, ``"tcp://..."``.
    redo : bool
        Whether finished tasks of another specification are made again.
    told : callable, optional
        Told number and outcome of each task.

    Raises
    ------
    InputError
        When a finished task was made from another specification, or Dask is not installed.
    """
    tasks = (shard or Shard()).tasks(spec.size)
    _check_done(spec, tasks, redo)
    outcomes: Counter[str] = Counter()
    for index, outcome in _outcomes(spec, tasks, scheduler, redo):
        outcomes[outcome] += 1
        if told is not None:
            told(index, outcome)
    if len(tasks) == spec.size and outcomes["done"] + outcomes["skipped"]:
        merge_cohort(spec)
    return outcomes


def cohort_status(spec: CohortSpec) -> Counter[str]:
    """Return how many tasks are done, failed, of another specification, missing."""
    states: Counter[str] = Counter()
    for index in range(spec.size):
        folder = task_folder(spec, index)
        state = finished(folder)
        if state is not None:
            states["done" if state == task_hash(spec, index) else "other specification"] += 1
        else:
            states["failed" if (folder / "failed.json").exists() else "missing"] += 1
    return states


def merge_cohort(spec: CohortSpec) -> tuple[Path, Path]:
    """Write ``cohort.csv``, a row for each plan, and the data card ``card.json`` of the finished tasks.

    Raises
    ------
    InputError
        When no task of this specification is finished.
    """
    rows, rejected = [], Counter[str]()
    anatomies = 0
    for index in range(spec.size):
        folder = task_folder(spec, index)
        if finished(folder) != task_hash(spec, index):
            continue
        told = json.loads((folder / "done.json").read_text())
        anatomies += int(told["rejected"])
        for number, variant in enumerate(told["variants"]):
            rejected.update(reason.split("=")[0].split(" 1")[0].strip() for reason in variant["rejected"])
            row = {"patient": told["patient"], "index": index, "variant": number, "score": variant["score"]}
            row |= {f"target {name}": value for name, value in variant["target"].items()}
            row |= {f"{name} mean": value for name, value in variant["means"].items()}
            rows.append({**row, "hottest": variant["hottest"], "rejected": "; ".join(variant["rejected"])})
    if not rows:
        raise InputError(f"no patient of {spec.name!r} in {spec.out} is finished: run the cohort first")
    out = Path(spec.out)
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = io.StringIO(newline="")
    writer = csv.DictWriter(table, names)
    writer.writeheader()
    writer.writerows(rows)
    kept = [row for row in rows if not row["rejected"]]
    card = {
        "format": "radplan-data-card", "version": 1, "cohort": spec.model_dump(mode="json", exclude={"out"}),
        "fingerprint": spec.fingerprint(), "patients": len({row["index"] for row in rows}), "plans": len(rows),
        "kept_plans": len(kept), "rejected_plans": dict(rejected), "rejected_anatomies": anatomies,
        "columns": {name: _spread(row[name] for row in kept if name in row) for name in names if name[-4:] == "mean"},
        "licence": "generated data: Apache-2.0" if spec.generator else "that of the cases",
    }  # fmt: skip
    written = {"cohort.csv": table.getvalue(), "card.json": json.dumps(card, indent=1, sort_keys=True) + "\n"}
    for name, text in written.items():
        with staged_file(out / name) as partial:
            partial.write_text(text, encoding="utf-8", newline="")
    return out / "cohort.csv", out / "card.json"


def _check_done(spec: CohortSpec, tasks: Iterable[int], redo: bool) -> None:
    """Refuse a cohort that is half made from another specification, before any work."""
    if redo:
        return
    other = [index for index in tasks if finished(task_folder(spec, index)) not in (None, task_hash(spec, index))]
    if other:
        raise InputError(
            f"{len(other)} tasks in {spec.out} were made from another specification or version of radplan, the first "
            f"is {other[0]}: give --redo to make them again, or another out"
        )


def _outcomes(spec: CohortSpec, tasks: tuple[int, ...], scheduler: str, redo: bool) -> Iterable[tuple[int, str]]:
    if scheduler == "serial":
        return ((index, run_task(spec, index, redo)) for index in tasks)
    return _on_dask(spec, tasks, scheduler, redo)


def _on_dask(spec: CohortSpec, tasks: tuple[int, ...], scheduler: str, redo: bool) -> Iterable[tuple[int, str]]:
    """Run tasks on a Dask cluster; a task whose worker dies is tried again, and recorded as failed at last."""
    try:
        from distributed import Client, LocalCluster, as_completed
    except ImportError as error:
        raise InputError("a scheduler other than serial needs Dask: pip install 'radplan[cluster]'") from error
    local = (
        LocalCluster(threads_per_worker=1, dashboard_address=":0", env=_ONE_THREAD) if scheduler == "local" else None
    )
    with Client(local if local is not None else scheduler) as client:
        futures = {
            client.submit(run_task, spec, index, redo, key=f"{spec.name}-{index}", retries=2): index for index in tasks
        }
        for future in as_completed(futures):
            if isinstance(future.exception(), RadplanError):  # a full disk or a changed specification ends the run
                raise future.exception()
            yield futures[future], future.result() if future.status == "finished" else "failed"
    if local is not None:
        local.close()


_ONE_THREAD: dict[str, Any] = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
"""What keeps a worker to one thread."""


def _spread(values: Iterable[float]) -> dict[str, float]:
    known = sorted(values)
    if not known:
        return {}
    middle = known[len(known) // 2]
    return {"lowest": known[0], "median": middle, "highest": known[-1]}
