"""Hounsfield units and the tables that turn them into density."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from radplan.errors import FileError, InputError, UnknownNameError
from radplan.geometry.grid import Grid
from radplan.patient import CT, HU_TABLES, HUTable, hu_table

GRID = Grid((2, 2, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_ct_refuses_values_that_are_not_finite_and_says_where(bad):
    hu = np.zeros(GRID.shape)
    hu[1, 0, 1] = bad
    with pytest.raises(InputError, match=r"1 values that are NaN or infinite, the first at voxel .* = \[1, 0, 1\]"):
        CT(GRID, hu)


def test_ct_refuses_another_shape():
    with pytest.raises(InputError, match=r"\(2, 2, 3\) do not fit the grid's \(2, 2, 2\)"):
        CT(GRID, np.zeros((2, 2, 3)))


def test_ct_keeps_its_own_read_only_copy():
    hu = np.zeros(GRID.shape, dtype=np.float32)
    ct = CT(GRID, hu)
    hu[0, 0, 0] = 5.0
    assert ct.hu[0, 0, 0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        ct.hu[0, 0, 0] = 1.0


@pytest.mark.parametrize("name", sorted(HU_TABLES))
def test_every_table_is_water_at_zero_and_never_falls(name):
    table = hu_table(name)
    assert table.relative_density(0.0) == 1.0
    assert (np.diff(table.relative_density(np.arange(-1000, 3001))) >= 0).all()


@pytest.mark.parametrize(
    ("hu", "density"),
    # Relative electron densities from Schneider's mass densities and compositions (Phys. Med. Biol. 45 (2000) 459).
    [(-1000, 0.0011), (-700, 0.308), (-98, 0.933), (500, 1.263), (1000, 1.515), (1500, 1.767)],
)
def test_schneider_table_follows_the_paper_away_from_water(hu, density):
    assert hu_table("schneider").relative_density(hu) == pytest.approx(density, abs=6e-4)


def test_schneider_table_bridges_the_step_of_the_paper_at_101_hu():
    table = hu_table("schneider")
    assert table.relative_density(100.0) == pytest.approx(1.1015, rel=0.022)  # just below the paper's step down
    assert table.relative_density(101.0) == pytest.approx(1.0591, rel=0.022)  # just above it


def test_matrad_table_is_matrads_default_and_clips():
    table = hu_table("matrad")
    assert table.relative_density([-2000.0, 225.0, 4000.0]).tolist() == pytest.approx([0.001, 1.147, 2.505])


def test_hu_outside_the_table_names_the_range_and_the_place():
    table = dataclasses.replace(hu_table("schneider"), clip=False)
    with pytest.raises(InputError, match=r"HU 3500 at index \(0, 1\) .* covers -1024 to 3071 HU"):
        table.relative_density([[0.0, 3500.0]])
    with pytest.raises(InputError, match="HU -1025"):
        table.relative_density(-1025.0)
    assert dataclasses.replace(table, clip=True).relative_density(3500.0) == pytest.approx(2.5378)


@pytest.mark.parametrize(
    "text",
    ["# CT 1\n-1000 0.0\n0 1.0\n1000 1.5\n", "HU,density\n-1000,0.0\n0,1.0\n1000,1.5\n", "-1000;0\n\n0;1\n1000;1.5"],
)
def test_table_from_a_users_file(tmp_path, text):
    path = tmp_path / "own.csv"
    path.write_text(text)
    table = hu_table(path)
    assert table.name == "own.csv"
    assert table.relative_density([-500.0, 500.0]).tolist() == [0.5, 1.25]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("-1000 0\n0 one\n", "line 2 is '0 one'; expected two numbers"),
        ("-1000 0\n0 1 2\n", "line 2 is '0 1 2'"),
        ("0 1\n-1000 0\n", "HU must rise"),
        ("-1000 1\n0 0.5\n", "must not fall"),
        ("0 1\n", "two or more points"),
        ("", "two or more points"),
        ("-1000 nan\n0 1\n", "NaN"),
    ],
)
def test_a_faulty_file_is_named_with_its_fault(tmp_path, text, message):
    path = tmp_path / "own.txt"
    path.write_text(text)
    with pytest.raises(FileError, match=message) as caught:
        hu_table(path)
    assert "own.txt" in str(caught.value)


def test_unknown_table_offers_the_nearest():
    with pytest.raises(UnknownNameError, match="no HU table named 'schnieder'; did you mean 'schneider'"):
        hu_table("schnieder")
    with pytest.raises(FileError, match="no such file"):
        hu_table("nowhere.csv")


def test_table_needs_as_many_densities_as_hu():
    with pytest.raises(InputError, match="got 2 HU and 1 densities"):
        HUTable("short", (0.0, 1.0), (1.0,))
