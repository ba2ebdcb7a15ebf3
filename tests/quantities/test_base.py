"""What a quantity must state, said when it is forgotten."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from radplan.errors import InputError
from radplan.quantities import RBExDose, Voxel
from radplan.quantities.base import Quantity, unbound, voxel_fields

STATED: dict[str, Any] = {"name": "new", "unit": "Gy", "needs": ("physical_dose",), "additive": True}


@pytest.mark.parametrize("forgotten", STATED)
def test_nothing_that_must_be_stated_has_a_default(forgotten):
    stated = {key: value for key, value in STATED.items() if key != forgotten}
    with pytest.raises(InputError, match=f"New must state `{forgotten}`"):
        type("New", (Quantity,), stated)


@pytest.mark.parametrize(("key", "value"), [("needs", "physical_dose"), ("needs", ()), ("additive", 1)])
def test_statements_of_the_wrong_kind_are_refused(key, value):
    with pytest.raises(InputError, match=f"{key} of the quantity New must be"):
        type("New", (Quantity,), {**STATED, key: value})


def test_voxel_fields_are_found_by_annotation():
    assert voxel_fields(RBExDose) == ("alpha_x", "beta_x")
    evaluated = type("New", (Quantity,), {**STATED, "__annotations__": {"oxygen": Voxel[Any]}, "forward": None})
    assert voxel_fields(dataclass(frozen=True)(evaluated)) == ("oxygen",)


def test_an_option_without_a_default_is_refused():
    new = type("New", (Quantity,), {**STATED, "__annotations__": {"power": float}, "forward": None})
    with pytest.raises(InputError, match=r"New\.power has no default"):
        unbound(dataclass(frozen=True)(new))


def test_a_quantity_is_a_dataclass():
    with pytest.raises(InputError, match=r"New must be a dataclass: put @dataclass"):
        voxel_fields(type("New", (Quantity,), {**STATED}))


def test_a_ratio_says_so_and_has_a_floor():
    with pytest.raises(InputError, match="the ratio New needs an option `floor`"):
        type("New", (Quantity,), {**STATED, "additive": False, "ratio": True})
    annotations = {"floor": float}
    stated = {**STATED, "name": "oer_let", "additive": False, "ratio": True, "floor": 0.02, "forward": None}
    new = dataclass(frozen=True)(type("New", (Quantity,), {**stated, "__annotations__": annotations}))
    assert new().floored(0.5) == new(0.5)
    assert new.title == "Oer LET"
    assert RBExDose.title == "RBE-weighted dose"
    assert not RBExDose.ratio
