"""Contourers are plug-ins; TotalSegmentator's adapter is tried with a stand-in that thresholds."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from types import ModuleType
from typing import ClassVar

import numpy as np
import pytest

import radplan as rp
from radplan.autoplan.contour import CONTOURERS, Contourer, TotalSegmentator, contoured
from radplan.errors import CalculationError, InputError
from radplan.io.images import read_image, write_image
from radplan.patient import Structures

pytest.importorskip("SimpleITK")


@dataclass(frozen=True)
class Threshold(Contourer):
    """Draws what is denser than air."""

    name: ClassVar[str] = "threshold"

    def contour(self, ct):
        return {"Dense": ct.hu > -500.0, "Nothing": ct.hu > 5000.0}


def stand_in(draws: bool) -> ModuleType:
    """A module that does to files what TotalSegmentator does, by a threshold."""

    def totalsegmentator(source, out, task, fast, roi_subset):
        assert (task, fast, roi_subset) == ("total", True, ["liver"])
        out.mkdir()
        values, grid = read_image(source)
        if draws:
            write_image(out / "liver.nii.gz", (values > -500).astype(np.uint8), grid)

    module = ModuleType("totalsegmentator.python_api")
    module.totalsegmentator = totalsegmentator
    return module


def test_drawn_structures_join_those_of_the_patient() -> None:
    box = rp.load_patient("box")
    seen = contoured(box, Threshold())
    assert set(seen.structures) == {*box.structures, "Dense"}
    assert np.array_equal(seen.structures["Dense"].mask(), box.ct.hu > -500.0)
    assert seen.goals == box.goals


def test_totalsegmentator_is_called_on_files(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "totalsegmentator" in CONTOURERS.names()
    monkeypatch.setitem(sys.modules, "totalsegmentator", ModuleType("totalsegmentator"))
    monkeypatch.setitem(sys.modules, "totalsegmentator.python_api", stand_in(True))
    box = rp.load_patient("box")
    bare = replace(box, structures=Structures(), goals=())
    seen = contoured(bare, TotalSegmentator(fast=True, structures=("liver",)))
    assert np.array_equal(seen.structures["liver"].mask(), box.ct.hu > -500.0)
    monkeypatch.setitem(sys.modules, "totalsegmentator.python_api", stand_in(False))
    with pytest.raises(CalculationError, match="no structure"):
        contoured(bare, TotalSegmentator(fast=True, structures=("liver",)))


def test_what_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)
    with pytest.raises(InputError, match="pip install TotalSegmentator"):
        contoured(rp.load_patient("box"), "totalsegmentator")
