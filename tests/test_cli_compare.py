"""The verbs that list and compare: machines, gamma, compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from radplan.cli.main import main

FAST = ("--gantry", "0,120,240", "--bixel-width", "12", "--grid", "7", "--no-figures")


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    folder = tmp_path_factory.mktemp("compare")
    for name, angles in (("three", "0,120,240"), ("two", "0,90")):
        given = [*FAST[2:], "--gantry", angles, "--out", str(folder / name)]
        assert main(["plan", "box", *given]) == 0
    return str(folder / "three"), str(folder / "two")


def test_what_is_built_in_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["machines"]) == 0
    told = capsys.readouterr().out
    assert "generic_photon_6mv" in told
    assert "Millennium 120" in told
    assert "TrueBeam" in told


def test_a_dose_agrees_with_itself(plans: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["gamma", plans[0], plans[0]]) == 0
    told = capsys.readouterr().out
    assert "100.00 %" in told
    assert "0.000 Gy" in told
    assert told.count("1.0000") == 2
    assert main(["gamma", plans[0], plans[1], "--criteria", "2,2"]) == 0
    assert "100.00 %" not in capsys.readouterr().out


def test_plans_stand_beside_each_other(
    plans: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *plans, "--out", str(tmp_path / "dvh.png")]) == 0
    told = capsys.readouterr().out
    assert "OuterTarget three" in told
    assert "OuterTarget two" in told
    assert (tmp_path / "dvh.png").stat().st_size > 10_000
    assert main(["compare", *plans, "--out", str(tmp_path / "absent" / "dvh.png")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["compare", *plans, "--out", "dvh.txt"]) == 2
    assert "--out takes a file that ends in .png, .pdf, .svg" in capsys.readouterr().err
    assert main(["compare", plans[0]]) == 2
