"""A folder of results is one result: replaced in one step, without leftovers, and finished where it was cut short."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from radplan.errors import FileError
from radplan.io import staging
from radplan.io.staging import MANIFEST, changed, listed, recovered, staged

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="permissions and processes of POSIX")


def write(folder: Path, whole: bool = True, **files: str) -> None:
    with staged(folder, whole) as partial:
        for name, text in files.items():
            (partial / f"{name}.txt").write_text(text)


def read(folder: Path) -> dict[str, str]:
    return {path.stem: path.read_text() for path in folder.iterdir() if path.name != MANIFEST}


def test_a_new_result_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    write(tmp_path / "out", a="1", b="1")
    write(tmp_path / "out", whole=False, c="1")
    assert listed(tmp_path / "out") == ("a.txt", "b.txt", "c.txt")
    write(tmp_path / "out", b="2")
    assert read(tmp_path / "out") == {"b": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("exchange", [True, False])
def test_files_of_others_stay(exchange: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not exchange:
        monkeypatch.setattr(staging, "_exchanged", lambda first, second: False)
    out = tmp_path / "out"
    write(out, a="1", b="1")
    (out / "mine.txt").write_text("note")
    write(out, b="2")
    assert read(out) == {"b": "2", "mine": "note"}
    assert changed(out) == ()


def test_a_folder_that_cannot_be_exchanged_is_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staging, "_exchanged", lambda first, second: False)
    write(tmp_path / "out", a="1", b="1")
    write(tmp_path / "out", b="2")
    assert read(tmp_path / "out") == {"b": "2"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_the_folder_one_stands_in_is_not_taken_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out", a="1")
    monkeypatch.chdir(tmp_path / "out")
    write(Path(), b="2")
    assert read(Path()) == {"b": "2"}
    assert Path("b.txt").exists()


KILLED = """
import os, sys
from pathlib import Path
from radplan.io import staging
calls, replace = [0], Path.replace
def counted(path, target):
    if calls[0] == int(sys.argv[2]): os._exit(137)
    calls[0] += 1
    return replace(path, target)
Path.replace = counted
with staging.staged(sys.argv[1]) as partial:
    for name in "bcd": (partial / f"{name}.txt").write_text("2")
"""


@POSIX
@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_what_was_cut_short_beside_files_of_others_is_finished(moved: int, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, a="1", b="1", c="1")
    (out / "mine.txt").write_text("note")
    done = subprocess.run([sys.executable, "-c", KILLED, str(out), str(moved)], check=False)
    assert done.returncode == 137
    assert (out / staging._COMMIT).is_dir()
    assert read(recovered(out)) == {"b": "2", "c": "2", "d": "2", "mine": "note"}
    assert changed(out) == ()


@POSIX
def test_what_a_killed_process_left_half_written_goes_with_the_next_run(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom radplan.io.staging import staged\n"
        "with staged(sys.argv[1]) as partial: (partial / 'a.txt').write_text('half'); os._exit(137)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "out")], check=False)
    assert [path.name.startswith(".radplan-") for path in tmp_path.iterdir()] == [True]
    write(tmp_path / "out", a="whole")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@POSIX
def test_permissions_follow_the_umask_and_those_of_the_folder(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        write(tmp_path / "out", a="1")
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
        (tmp_path / "out").chmod(0o750)
        write(tmp_path / "out", a="2")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out/a.txt").stat().st_mode & 0o777 == 0o600


def test_changed_files_are_known(tmp_path: Path) -> None:
    write(tmp_path, a="1", b="1")
    (tmp_path / "a.txt").write_text("9")
    (tmp_path / "b.txt").unlink()
    assert changed(tmp_path) == ("a.txt", "b.txt")


def test_a_list_never_reaches_out_of_its_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("note")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / MANIFEST).write_text(json.dumps({"files": {"../mine.txt": "0"}}))
    write(tmp_path / "out", a="1")
    assert (tmp_path / "mine.txt").read_text() == "note"


def test_an_error_leaves_the_old_result(tmp_path: Path) -> None:
    write(tmp_path / "out", a="1")

    def half(folder: Path) -> None:
        with staged(folder) as partial:
            (partial / "a.txt").write_text("2")
            raise OSError(28, "No space left on device")

    with pytest.raises(FileError, match="No space left"):
        half(tmp_path / "out")
    assert read(tmp_path / "out") == {"a": "1"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
