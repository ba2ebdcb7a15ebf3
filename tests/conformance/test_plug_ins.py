"""A plug-in of each kind is one file in another package: found by its entry point, checked, and used in a plan."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

QUANTITY = """
from dataclasses import dataclass
from radplan.arrays import Array
from radplan.quantities import Quantity, Voxel

@dataclass(frozen=True)
class OxygenDose(Quantity):
    oxygen: Voxel[Array]
    name = "oxygen_dose"
    unit = "Gy"
    needs = ("physical_dose",)
    additive = True

    def forward(self, physical_dose):
        return self.oxygen * physical_dose

    def vjp(self, cotangent, physical_dose):
        return (self.oxygen * cotangent,)
"""

OBJECTIVE = """
from dataclasses import dataclass
from radplan.arrays import namespace, weighted_sum
from radplan.optim.objectives import Objective

@dataclass(frozen=True)
class CubicOverdosing(Objective):
    reference: float
    name = "cubic_overdosing"
    pushes = "down"

    def value(self, values, weights):
        return weighted_sum(self._over(values) ** 3, weights)

    def gradient(self, values, weights):
        return 3.0 * weights * self._over(values) ** 2

    def _over(self, values):
        return namespace(values).clip(values - self.reference, min=0.0)

    @property
    def level(self):
        return self.reference

    @classmethod
    def examples(cls):
        return [cls(1.0)]
"""

SOLVER = """
from dataclasses import dataclass
from radplan.optim.solvers import Solver
from radplan.optim.solvers.projected_lbfgs import ProjectedLBFGS

@dataclass(frozen=True)
class Patient(Solver):
    tolerance: float = 1e-7
    name = "patient"

    def solve(self, problem, x0=None, callback=None):
        return ProjectedLBFGS(max_iterations=2000, tolerance=self.tolerance).solve(problem, x0, callback)
"""

ENGINE = """
from dataclasses import dataclass
import numpy as np
from radplan import geometry
from radplan.engines import Engine
from radplan.influence import Dij

@dataclass(frozen=True)
class SecondEngine(Engine):
    depth: float = 100.0
    name = "second_proton_engine"
    radiation = ("protons",)

    @classmethod
    def examples(cls):
        return [cls()]

    def images_for(self, machine):
        return ("physical_dose",)

    def influence(self, patient, beams, machine, scope):
        points, density, columns = scope.grid.points(scope.voxels), patient.density(), []
        for beam in beams:
            depth = scope.error.depths(geometry.radiological_depth(density, patient.ct.grid, beam.source, points))
            x, y, _ = geometry.isocentre_plane(geometry.world_to_beam(points, beam.isocenter, beam.rotation), beam.sad)
            for u, v in beam.bixels:
                away = (x - u) ** 2 + (y - v) ** 2
                columns.append(1e-3 * np.exp(-away / 200.0 - ((depth - self.depth) / 30.0) ** 2))
        biology = {**patient.voxel_parameters(scope.grid, scope.voxels), "rbe": np.full(scope.voxels.size, 1.1)}
        kept = {"voxel_parameters": biology, "device": scope.device, "dtype": scope.dtype, "radiation": "protons"}
        return Dij.from_matrices({"physical_dose": np.stack(columns, axis=1)}, scope.grid, scope.voxels, **kept)
"""

PLUG_INS = {
    "quantity": ("oxygen_dose", "OxygenDose", QUANTITY),
    "objective": ("cubic_overdosing", "CubicOverdosing", OBJECTIVE),
    "solver": ("patient", "Patient", SOLVER),
    "engine": ("second_proton_engine", "SecondEngine", ENGINE),
}

USE = """
import numpy as np
import radplan as rp
from radplan import testing
from radplan.engines import ENGINES
from radplan.engines.base import find_engine
from radplan.workflows.planning import run
from radplan.io.plan_file.reading import plan_spec

testing.check_quantity("oxygen_dose", devices=["numpy", "torch:cpu"])
testing.check_objective("cubic_overdosing", devices=["numpy", "torch:cpu"])
testing.check_solver("patient", devices=["numpy"])
testing.check_engine("second_proton_engine", devices=["numpy"])
assert {"second_proton_engine", "particle_pencil_beam"} <= set(ENGINES.names())
assert find_engine(None, "protons").name == "particle_pencil_beam"

outcome = run(plan_spec({
    "case": "box", "machine": "generic_proton", "beams": {"gantry": [0], "spot_spacing": 20, "layer_spacing": 20},
    "engine": {"name": "second_proton_engine", "options": {"depth": 120.0}, "grid": 15},
    "solver": {"name": "patient"}, "deliverable": False, "normalize": False,
    "goals": [
        {"structure": "OuterTarget", "objective": "squared_deviation", "parameters": {"reference": 60.0}},
        {"structure": "BODY", "objective": "cubic_overdosing", "parameters": {"reference": 30.0}},
    ],
}), progress=False)
model = outcome.plan.model.with_voxel_parameters(oxygen=0.8)
plan = rp.optimize(
    model, [rp.Goal("OuterTarget", rp.SquaredDeviation(48.0), quantity="oxygen_dose")], outcome.patient, fractions=30,
    solver="patient",
)
np.testing.assert_allclose(plan["oxygen_dose"], 0.8 * plan["physical_dose"], rtol=1e-5, atol=1e-9)
mean = plan.metrics("oxygen_dose")["OuterTarget"]["Dmean"]
assert 15.0 < mean < 50.0, mean
print("all kept")
"""


def test_each_kind_is_one_file_and_no_other_is_touched(tmp_path):
    groups = []
    for kind, (name, cls, source) in PLUG_INS.items():
        (tmp_path / f"their_{kind}.py").write_text(source, encoding="utf-8")
        groups.append(f"[radplan.{kind}]\n{name} = their_{kind}:{cls}\n")
    info = tmp_path / "theirs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("\n".join(groups), encoding="utf-8")
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stdout.endswith("all kept\n"), done.stderr
