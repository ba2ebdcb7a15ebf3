"""The course: every exercise is asked, answered and checked; a check fails when the answer is wrong; lessons run."""

from __future__ import annotations

import importlib.util
import re
import sys
import types
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

mpl.use("Agg")
COURSE = Path(__file__).resolve().parents[2] / "docs" / "course"
LESSONS = sorted(COURSE.glob("[01][0-9]_*.md"))
CELL = re.compile(r"^```\{code-cell\}\n(?::tags:[^\n]*\n\n)?(.*?)^```", re.MULTILINE | re.DOTALL)


def load_checks():
    spec = importlib.util.spec_from_file_location("checks", COURSE / "checks.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["checks"] = module
    spec.loader.exec_module(module)
    return module


checks = load_checks()


@pytest.mark.parametrize("name", checks.EXERCISES)
def test_a_right_answer_passes_and_a_wrong_one_does_not(name, capsys) -> None:
    exercise = checks.EXERCISES[name]
    truth = np.atleast_1d(np.asarray(exercise.truth(), dtype=float))
    checks.check(name, truth if truth.size > 1 else float(truth[0]))
    assert "is right" in capsys.readouterr().out
    wrong = truth + np.where(truth == 0.0, 1.0, np.abs(truth)) * 2.0 * exercise.tolerance
    for answer in (wrong, truth[::-1] + 1.0, float("nan"), None, "five", [*truth, 1.0], ...):
        with pytest.raises(checks.NotYet):
            checks.check(name, answer)


def test_an_exercise_that_is_not_there_is_told() -> None:
    with pytest.raises(checks.NotYet, match="no exercise '99z'"):
        checks.check("99z", 1.0)


def test_there_are_ten_lessons_and_each_asks_its_own_exercises() -> None:
    assert len(LESSONS) == 10
    asked = {}
    for number, path in enumerate(LESSONS, start=1):
        text = path.read_text(encoding="utf-8")
        asked |= dict.fromkeys(re.findall(r'check\("(\w+)"', text), number)
        for name in re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE):
            assert f'check("{name}", answer)' in text, f"{path.name} asks {name} and does not check it"
    assert asked == {name: exercise.lesson for name, exercise in checks.EXERCISES.items()}


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_lessons_run(path, monkeypatch, tmp_path) -> None:
    if path.stem == "10_network":
        pytest.importorskip("torch", reason="torch is not installed")
    from radplan.quantities import QUANTITIES

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(QUANTITIES, "_entries", dict(QUANTITIES.__dict__.get("_entries", {})), raising=False)
    text = path.read_text(encoding="utf-8")
    lesson = types.ModuleType(f"lesson_{path.stem}")  # a class of a lesson looks for its module
    monkeypatch.setitem(sys.modules, lesson.__name__, lesson)
    space = lesson.__dict__
    for cell in CELL.finditer(text):
        line = text[: cell.start(1)].count("\n")
        exec(compile("\n" * line + cell.group(1), str(path), "exec"), space)
    from matplotlib import pyplot

    pyplot.close("all")


@pytest.mark.slow
def test_examples_of_public_names_run(monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    path = COURSE.parent / "examples" / "public_names.py"
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), {"__name__": "__names__"})
