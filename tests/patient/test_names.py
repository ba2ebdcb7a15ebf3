"""Names of structures are read as a physicist reads them, and refused where a physicist would ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from radplan.patient.names import names_lung, normalise, read_name


def spellings() -> list[tuple[str, str]]:
    lines = Path(__file__).with_name("spellings.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition(":") for line in lines if line and not line.startswith("#")]
    return [(name, word.strip()) for name, _, words in pairs for word in words.split(";") if word.strip() != "?"]


def test_three_hundred_spellings() -> None:
    assert len(spellings()) >= 300


@pytest.mark.parametrize(("expected", "spelling"), spellings())
def test_a_spelling_is_read(expected: str, spelling: str) -> None:
    reading = read_name(spelling)
    if expected == "?":
        assert reading.canonical == ""
        assert len(reading.candidates) > 1
    elif expected == "-":
        assert reading.canonical == ""
    else:
        assert reading.canonical == expected


def test_two_names_of_one_structure_are_ambiguous_unless_one_is_marked() -> None:
    assert normalise(["Cord", "Spinal Cord"]).matched == {}
    assert {name.original for name in normalise(["Cord", "Spinal Cord"]).ambiguous} == {"Cord", "Spinal Cord"}
    chosen = normalise(["Cord_old", "Spinal Cord"])
    assert chosen.originals == {"SpinalCord": "Spinal Cord"}
    assert [name.original for name in chosen.unmatched] == ["Cord_old"]


def test_lungs_are_known_by_any_name() -> None:
    lungs = ["Lung_L", "LUNGS", "RightLung", "lung", "Lunge li.", "poumon d", "Lungs-CTV", "Lung total - GTV"]
    parts = ["LUNG_L_noITV", "Lung_R_PRV05", "ipsilung", "rtlung", "LungPTV", "Long", "Longen-GTV"]
    assert [name for name in (*lungs, *parts) if not names_lung(name)] == []
    others = ["Liver", "PTV", "Heart", "BODY", "Trachea", "Plunge", "Oblongata", "PTV_long", "Long_Axis", "SpinalLong"]
    assert [name for name in (*others, "Tube_long", "PTV_Lung", "GTV_lung_re") if names_lung(name)] == []


def test_doses_of_targets() -> None:
    found = normalise(["PTV 70", "PTV_6300", "PTV56Gy", "CTV60"])
    assert found.targets == {"PTV_7000": 70.0, "PTV_6300": 63.0, "PTV_5600": 56.0}


def test_names_of_a_thorax_and_of_head_and_neck_patients() -> None:
    thorax = normalise(["LUNGS", "LUNG_R", "LUNG_L", "GTVp", "CTVp", "PTV4140", "SPINALCORD", "HEART", "LIVER"])
    assert sorted(thorax.matched) == sorted(
        ["Lungs", "Lung_R", "Lung_L", "GTVp", "CTVp", "PTV_4140", "SpinalCord", "Heart", "Liver"]
    )
    neck = normalise(["Brainstem", "SpinalCord", "RightParotid", "LeftParotid", "Esophagus", "Larynx", "Mandible",
                      "PTV56", "PTV63", "PTV70"])  # fmt: skip
    assert len(neck.matched) == 10
