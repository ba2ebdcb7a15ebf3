"""The verbs autoplan, score and mimic, from a patient's folder to their files."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

import pytest

from radplan.autoplan.scorecard import Scorecard, write_scorecard
from radplan.cli.console import Once
from radplan.cli.main import main

CARD = Scorecard.from_spec(
    {
        "format": "radplan-scorecard", "version": 1, "name": "box", "site": "test", "prescription_gy": 60.0,
        "items": [
            {"structure": "OuterTarget", "metric": "dose_at_volume", "input": 95, "input_unit": "%",
             "points": [[50, 0], [60, 10]]},
            {"structure": "BODY", "metric": "mean_dose", "points": [[1, 5], [20, 0]]},
        ],
    }
)  # fmt: skip


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("verbs") / "plan"
    fast = ["--gantry", "0,120,240", "--bixel-width", "10", "--grid", "6", "--no-figures"]
    assert main(["plan", "box", *fast, "--out", str(out)]) == 0
    return out


def test_an_unknown_scorecard_is_told_with_the_known_ones(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("score", "report"):
        assert main([verb, str(planned), "--card", "head_and_neck"]) == 2
        assert "named 'head_and_neck'; did you mean 'head_neck'? (known: head_neck, lung," in capsys.readouterr().err


def test_a_report_gives_the_points_that_the_score_gives(
    planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By a protocol's names and helper structures, which are not those of the plan."""
    page = tmp_path / "report.html"
    assert main(["score", str(planned), "--card", "tg119"]) == 0
    total, best = (float(text) for text in capsys.readouterr().out.split("total")[1].split()[2:4])
    assert main(["report", str(planned), "--card", "tg119", "--out", str(page)]) == 0
    assert f"{total:.1f} of {best:.1f} points" in page.read_text(encoding="utf-8")


def test_a_plan_is_scored(planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    card = write_scorecard(CARD, tmp_path / "card.json")
    assert main(["score", str(planned), "--card", str(card), "--json", str(tmp_path / "score.json")]) == 0
    score = json.loads((tmp_path / "score.json").read_text())
    assert score["items"][0]["value"] == pytest.approx(60.0, abs=0.01)
    assert score["items"][0]["score"] == pytest.approx(10.0, abs=0.01)
    assert "OuterTarget D95% [Gy]" in capsys.readouterr().out
    nowhere = tmp_path / "absent" / "score.json"
    assert main(["score", str(planned), "--card", str(card), "--json", str(nowhere)]) == 2
    assert f"{nowhere}: cannot be written" in capsys.readouterr().err


def test_a_plan_is_made_again_from_its_dose(planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--gantry", "0,120,240", "--bixel-width", "10", "--grid", "6", "--out", str(tmp_path / "again")]
    assert main(["mimic", str(planned), *given]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("OuterTarget"))
    pairs = [cell.split(";") for cell in row.replace("; ", ";").split()[1:]]
    assert all(abs(float(theirs) - float(ours)) < 1.0 for theirs, ours in pairs)


def test_a_head_and_neck_patient_is_planned_by_protocol(
    shared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = shared("cases/openkbp/half/validation/pt_203.npz")
    out = tmp_path / "out"
    given = ["--protocol", "head_neck", "--rounds", "1", "--technique", "fluence", "--out", str(out)]
    assert main(["autoplan", str(case), *given]) == 0
    scores = json.loads((out / "scorecard.json").read_text())
    assert scores["best"]["total"] >= scores["first"]["total"]
    assert {"plan.json", "refinement.json", "refinement.png", "dvh.png"} <= {path.name for path in out.iterdir()}
    assert "gained" in capsys.readouterr().out


def test_what_is_missing_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["autoplan", "box", "--protocol", "head_nek"]) == 2
    assert "did you mean 'head_neck'" in capsys.readouterr().err
    assert main(["autoplan", "box", "--protocol", "prostate", "--out", str(tmp_path / "o")]) == 2
    assert "no target of the protocol" in capsys.readouterr().err
    assert main(["score", str(tmp_path / "none.dcm"), "--card", "prostate"]) == 2
    assert "--patient CASE" in capsys.readouterr().err


@pytest.mark.parametrize(("numbers", "told"), [(False, []), (True, ["only 92.1 % of structure External"])])
def test_a_warning_is_told_once(numbers: bool, told: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The same one again is not told; one of other numbers where numbers count, as they do not in a search."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(Once(numbers))
    logger = logging.Logger("rounds")
    logger.addHandler(handler)
    for share in (91.6, 91.6, 92.1):
        logger.warning("only %.1f %% of structure %s", share, "External")
    logger.warning("only %.1f %% of structure %s", 89.4, "Brainstem")
    assert capsys.readouterr().err.splitlines() == [
        "only 91.6 % of structure External",
        *told,
        "only 89.4 % of structure Brainstem",
    ]
