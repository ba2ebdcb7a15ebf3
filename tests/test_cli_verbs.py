"""The table of verbs, what other packages add to it, and how lists are written on the command line."""

from __future__ import annotations

import signal
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from radplan.cli import arguments, console, main
from radplan.errors import InputError


@pytest.mark.parametrize(
    "words",
    [["--gantry", "0,72,144"], ["--gantry", "0", "72", "144"], ["--gantry=0", "--gantry", "72,144"]],
)
def test_lists_are_written_by_comma_by_blank_or_one_by_one(words: list[str]) -> None:
    given = arguments.expanded([*words, "--out", "o"], {"--gantry"}, set())
    values = [word.removeprefix("--gantry=") for word in given if word not in ("--gantry", "--out", "o")]
    assert arguments.numbers(values, "--gantry") == [0.0, 72.0, 144.0]
    assert given[-2:] == ["--out", "o"]


def test_negative_angles_are_no_options_and_a_case_may_follow_a_list() -> None:
    given = arguments.expanded(["--couch", "-10", "10", "box"], {"--couch"}, set())
    assert given == ["--couch", "-10", "--couch", "10", "box"]


def test_what_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="--gantry takes numbers"):
        arguments.numbers(["0,x"], "--gantry")


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["pln", "box"], "Did you mean 'plan'"),
        (["plan", "box", "--gantri", "0"], "--gantry"),
        (["recalc"], "Missing argument 'RTPLAN'"),
        (["plan", "box", "--fractions", "many"], "--fractions"),
    ],
)
def test_usage_errors_are_one_line(words: list[str], match: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("radplan: error: ")
    assert match in lines[0]


def test_version_and_module() -> None:
    import radplan

    done = subprocess.run([sys.executable, "-m", "radplan", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"radplan {radplan.__version__}\n"


def greet(name: str = "world") -> int:
    """Greet somebody."""
    sys.stdout.write(f"hello {name}\n")
    return 7


def test_other_packages_add_verbs_by_entry_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point = EntryPoint("greet", f"{__name__}:greet", main.GROUP)
    broken = EntryPoint("broken", "radplan.nowhere:command", main.GROUP)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[greet.__module__])
    monkeypatch.setattr(main, "entry_points", lambda group: [point, broken])
    assert main.main(["--help"]) == 0
    assert "greet" in capsys.readouterr().out
    assert main.main(["greet", "--name", "you"]) == 7
    assert capsys.readouterr().out == "hello you\n"
    assert main.main(["broken"]) == 2
    assert "the verb 'broken' of another package cannot be loaded" in capsys.readouterr().err


def test_every_verb_of_the_table_has_a_command_with_help(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in main.VERBS:
        assert main.main([verb, "--help"]) == 0
        assert f"radplan {verb}" in capsys.readouterr().out


def test_verbs_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; from radplan.cli.main import main; sys.exit(main([]))"
    environment = {"_RADPLAN_COMPLETE": "complete_bash", "COMP_WORDS": "radplan pl", "COMP_CWORD": "1"}
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "plan" in done.stdout.split()


def test_tables_fit_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    row = {f"V{k}0Gy": 99.99 for k in range(1, 15)}
    console.print_table({"A target with a name that does not end": row, "[PTV] [/bold]": row}, "[Gy]")
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    said = "\n".join(lines)
    assert all(head in said for head in row)
    assert "[PTV] [/bold]" in said


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM that a process can take")
def test_sigterm_while_optimising_keeps_the_best_plan(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from radplan.cli import console, main\n"
        "class Ended(console.Console):\n"
        "    def __call__(self, told):\n"
        "        super().__call__(told)\n"
        "        if told.step == 'optimise' and not told.finished: os.kill(os.getpid(), signal.SIGTERM)\n"
        "console.Console = Ended\n"
        "sys.exit(main.main(['plan', 'box', '--gantry', '0,90', '--bixel-width', '20', '--grid', '15',"
        f" '--no-figures', '--out', {str(tmp_path / 'out')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert "interrupted" in (tmp_path / "out/plan.json").read_text()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_name_that_the_console_cannot_show_stops_nothing(tmp_path: Path) -> None:
    code = "import sys; from radplan.cli.main import main; sys.exit(main(['dicom', sys.argv[1]]))"
    folder = tmp_path / "脊髓"
    folder.mkdir()
    environment = {"PYTHONIOENCODING": "cp1252", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert b"\\u810a" in done.stdout
