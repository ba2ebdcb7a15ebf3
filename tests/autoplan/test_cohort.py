"""Cohorts: patients that depend on their number alone, results that do not depend on who made them or how often."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from radplan.autoplan.cohort.generate import GENERATORS, draw
from radplan.autoplan.cohort.generate.base import broken_rules
from radplan.autoplan.cohort.run import Shard, cohort_status, merge_cohort, run_cohort
from radplan.autoplan.cohort.spec import CohortSpec, read_cohort
from radplan.autoplan.cohort.task import variant_weights
from radplan.cli.main import main
from radplan.errors import FileError, InputError, UnknownNameError

PROTOCOL = {
    "format": "radplan-protocol", "version": 1, "name": "tiny", "targets": {"PTV": 60.0}, "fractions": 20,
    "beams": {"gantry": [0, 120, 240]}, "grid": 16.0, "bixel_width": 16.0, "lateral_cutoff": 30.0,
    "scorecard": {"name": "tiny", "site": "test", "items": [
        {"structure": "PTV", "metric": "dose_at_volume", "input": 95, "input_unit": "%", "points": [[40, 0], [60, 10]]},
        {"structure": "Rectum", "metric": "mean_dose", "points": [[5, 10], [30, 0]]}]},
}  # fmt: skip


def cohort(folder: Path, out: str = "out", **changes: object) -> Path:
    protocol = folder / "tiny.json"
    protocol.write_text(json.dumps(PROTOCOL))
    data = {
        "name": "tiny", "seed": 7, "count": 6, "generator": "pelvis", "options": {"spacing": 8.0},
        "protocol": str(protocol), "out": str(folder / out),
        "variants": {"count": 2, "groups": {"rectum": ["Rectum"]}}, **changes,
    }  # fmt: skip
    file = folder / f"{out}.yaml"
    file.write_text(yaml.safe_dump(data))
    return file


def contents(out: Path) -> dict[str, bytes]:
    """Bytes of all files of all cases but their times."""
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "timing.json"
    }


def work_until(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until a process has had some seconds of processor time, on however busy a machine, or has ended."""
    stat, ticks = Path(f"/proc/{process.pid}/stat"), os.sysconf("SC_CLK_TCK")
    began = time.monotonic()
    while process.poll() is None:
        if stat.exists():
            worked = sum(int(word) for word in stat.read_text().rpartition(")")[2].split()[11:13]) / ticks
        else:
            worked = time.monotonic() - began
        if worked >= seconds:
            return
        time.sleep(0.05)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CohortSpec]:
    folder = tmp_path_factory.mktemp("cohort")
    spec = read_cohort(cohort(folder))
    assert run_cohort(spec) == {"done": 6}
    return folder, spec


@pytest.mark.parametrize("name", GENERATORS.names())
def test_anatomies_keep_their_rules_and_depend_on_their_number_alone(name: str) -> None:
    generator = GENERATORS.get(name)(spacing=8.0)
    first, _ = draw(generator, 3, 5)
    again, _ = draw(generator, 3, 5)
    other, _ = draw(generator, 3, 6)
    assert np.array_equal(first.ct.hu, again.ct.hu)
    assert not np.array_equal(first.ct.hu, other.ct.hu)
    random = np.random.default_rng(0)
    anatomy = next(a for a in (generator.anatomy(random) for _ in range(50)) if not broken_rules(a, generator.grid))
    assert anatomy.masks["PTV"].any()


def test_the_deformation_does_not_fold() -> None:
    generator = GENERATORS.get("pelvis")(spacing=8.0, variation=2.0)
    for seed in range(5):
        x, y, z = generator.points(np.random.default_rng(seed))
        gradients = [np.gradient(axis, generator.spacing) for axis in (z, y, x)]
        jacobian = np.linalg.det(np.moveaxis(np.asarray(gradients), (0, 1), (-2, -1)))
        assert jacobian.min() > 0.0


def test_shards_are_the_whole(made: tuple[Path, CohortSpec]) -> None:
    assert sorted(sum((Shard(k, 5).tasks(13) for k in range(1, 6)), ())) == list(range(13))
    folder, whole = made
    spec = read_cohort(cohort(folder, "parts"))
    for k in (2, 1):
        run_cohort(spec, Shard(k, 2))
    merge_cohort(spec)
    assert contents(folder / "parts") == contents(folder / "out")
    assert run_cohort(whole) == {"skipped": 6}


def test_killed_at_any_time_the_rerun_is_the_undisturbed_one(made: tuple[Path, CohortSpec]) -> None:
    folder, _ = made
    file = cohort(folder, "killed")
    spec = read_cohort(file)
    random = np.random.default_rng(1)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(int(os.environ.get("RADPLAN_KILLS", "3"))):
        process = subprocess.Popen(
            [sys.executable, "-m", "radplan.cli.main", "cohort", "run", str(file)], env=environment, cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        work_until(process, float(random.uniform(1.0, 6.0)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if cohort_status(spec) == {"done": 6}:  # whole before the kills are through: compare, and begin anew
            assert contents(folder / "killed") == contents(folder / "out")
            shutil.rmtree(folder / "killed")
    run_cohort(spec)
    assert contents(folder / "killed") == contents(folder / "out")
    assert cohort_status(spec) == {"done": 6}


@pytest.mark.slow
def test_a_local_cluster_makes_the_same(made: tuple[Path, CohortSpec]) -> None:
    pytest.importorskip("distributed")
    folder, _ = made
    spec = read_cohort(cohort(folder, "dask"))
    assert run_cohort(spec, scheduler="local") == {"done": 6}
    assert contents(folder / "dask") == contents(folder / "out")


@pytest.mark.slow
def test_a_killed_worker_costs_only_its_task(made: tuple[Path, CohortSpec]) -> None:
    distributed = pytest.importorskip("distributed")
    folder, _ = made
    spec = read_cohort(cohort(folder, "lost"))
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        with distributed.Client(cluster) as client:
            victim = next(iter(client.run(os.getpid).values()))
        done = []

        def kill_once(index: int, outcome: str) -> None:
            if not done:
                os.kill(victim, signal.SIGKILL)
            done.append((index, outcome))

        assert run_cohort(spec, scheduler=cluster.scheduler_address, told=kill_once) == {"done": 6}
    assert sorted(done) == [(index, "done") for index in range(6)]
    assert contents(folder / "lost") == contents(folder / "out")


def test_a_full_disk_is_one_clear_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = cohort(tmp_path, "full", count=2)
    with monkeypatch.context() as patched:
        patched.setattr(np, "savez_compressed", full)
        assert main(["cohort", "run", str(file)]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list((tmp_path / "full" / "case").iterdir())
    assert main(["cohort", "merge", str(file)]) == 2
    assert "run the cohort first" in capsys.readouterr().err


def test_a_pickle_that_calls_is_a_recorded_failure(tmp_path: Path) -> None:
    class Calling:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "called"),)

    np.savez(tmp_path / "calling.npz", np.asarray({"img": Calling()}, dtype=object))
    cases = [str(tmp_path / "calling.npz")]
    spec = read_cohort(cohort(tmp_path, "pickles", generator=None, count=None, options={}, cases=cases))
    assert run_cohort(spec) == {"failed": 1}
    assert "mkdir" in json.loads((tmp_path / "pickles" / "case" / "000000" / "failed.json").read_text())["error"]
    assert not (tmp_path / "called").exists()


def test_the_table_and_the_data_card(made: tuple[Path, CohortSpec]) -> None:
    folder, _ = made
    table, card = folder / "out" / "cohort.csv", folder / "out" / "card.json"  # the run ended with them
    assert len(table.read_text().splitlines()) == 13
    told = json.loads(card.read_text())
    assert (told["patients"], told["plans"]) == (6, 12)
    with np.load(folder / "out" / "case" / "000000" / "patient.npz", allow_pickle=False) as held:
        assert held["structure_PTV"].max() == 8


def test_a_changed_specification_is_refused(made: tuple[Path, CohortSpec]) -> None:
    folder, _ = made
    changed = read_cohort(cohort(folder, "out", seed=8))
    with pytest.raises(InputError, match="another specification"):
        run_cohort(changed)


def test_a_failure_is_recorded_and_the_rest_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = cohort(tmp_path, "cases", generator=None, count=None, options={}, cases=["box", str(tmp_path / "none.mat")])
    assert main(["cohort", "run", str(file)]) == 3
    assert "2 failed" in capsys.readouterr().out  # the box has no PTV of 60 Gy under that name, the other is no file
    told = json.loads((tmp_path / "cases" / "case" / "000001" / "failed.json").read_text())
    assert "none.mat" in told["error"]
    assert main(["cohort", "status", str(file)]) == 0


def test_trade_offs_fill_their_strata(made: tuple[Path, CohortSpec]) -> None:
    variants = {"count": 9, "groups": {"a": ["A"], "b": ["B"]}, "lowest": 0.1, "highest": 10.0}
    spec = CohortSpec(name="x", seed=1, count=1, generator="pelvis", protocol="prostate", out="o", variants=variants)
    factors = variant_weights(spec, 0)
    assert factors[0].tolist() == [1.0, 1.0]
    strata = np.floor((np.log10(factors[1:]) + 1.0) / 2.0 * 8).astype(int)
    assert all(sorted(column) == list(range(8)) for column in strata.T.tolist())


def test_bad_specifications_name_the_entry(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="count"):
        read_cohort(cohort(tmp_path, "a", count=0))
    with pytest.raises(UnknownNameError, match="pelvis"):
        read_cohort(cohort(tmp_path, "b", generator="pelvs"))
    with pytest.raises(UnknownNameError, match="protocol"):
        read_cohort(cohort(tmp_path, "c", protocol="prostat"))
    with pytest.raises(InputError, match="options of the generator"):
        read_cohort(cohort(tmp_path, "d", options={"spacin": 3.0}))
