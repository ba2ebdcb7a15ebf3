"""Structures that no goal can see are named before dose is calculated, with advice that helps."""

from __future__ import annotations

import numpy as np
import pytest

from radplan.errors import InputError
from radplan.geometry.grid import Grid
from radplan.io.plan_file.reading import plan_spec
from radplan.patient import CT, Patient, Structure
from radplan.patient.plannable import check_plannable
from radplan.workflows import planning

GRID = Grid((6, 12, 12), (2.0, 2.0, 2.0), (0.0, 0.0, 0.0))


def block(name, low, high, role="oar"):
    mask = np.zeros(GRID.shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return Structure.from_mask(name, GRID, mask, role=role)


BODY = block("BODY", (1, 2, 2), (5, 10, 10), "external")
PTV = block("PTV", (2, 4, 4), (4, 8, 8), "target")
URETHRA = block("URETHRA", (2, 5, 5), (4, 7, 7))
COUCH = block("COUCH", (1, 11, 2), (5, 12, 10))
SEED = block("SEED", (2, 2, 2), (3, 3, 3))
EMPTY = Structure("EMPTY", GRID, np.zeros(0, dtype=np.int64))


def patient(*structures):
    hu = np.where(BODY.mask(), 0.0, -1000.0)
    return Patient("case", CT(GRID, hu), [BODY, PTV, *structures])


@pytest.mark.parametrize(
    ("structure", "grid", "message"),
    [
        (URETHRA, GRID, "'URETHRA' has no voxel left for its goals: all of it belongs to PTV, of higher priority"),
        (EMPTY, GRID, "'EMPTY' of patient case is empty: leave out its goals"),
        (COUCH, GRID, "'COUCH' of patient case lies where no dose is calculated, outside the external contour 'BODY'"),
        (SEED, Grid((2, 2, 2), (2.0, 2.0, 2.0), (12.0, 12.0, 6.0)), "'SEED' of patient case has no voxel on the dose"),
    ],
)
def test_what_no_goal_can_see_is_named(structure, grid, message):
    with pytest.raises(InputError, match=message):
        check_plannable(patient(structure), ["BODY", "PTV", structure.name], grid)


def test_the_advice_works():
    case = patient(URETHRA)
    with pytest.raises(InputError, match=r"structures: \{URETHRA_copy: \{shape: URETHRA, priority: 1\}\}"):
        check_plannable(case, ["PTV", "URETHRA"], GRID)
    check_plannable(case.with_structure("URETHRA_copy", "URETHRA", priority=1), ["PTV", "URETHRA_copy"], GRID)
    check_plannable(case, ["URETHRA", "BODY"], GRID)


def test_dose_is_not_calculated_for_a_plan_that_cannot_be(monkeypatch):
    def calculated(*_, **__):
        raise AssertionError("dose was calculated")

    monkeypatch.setattr(planning, "dose_influence", calculated)
    goals = [{"structure": name, "objective": "mean"} for name in ("OuterTarget", "Inner")]
    spec = {"case": "box", "goals": goals, "structures": {"Inner": "OuterTarget - 6 mm"}}
    with pytest.raises(InputError, match="'Inner' has no voxel left"):
        planning.run(plan_spec(spec), progress=False)
