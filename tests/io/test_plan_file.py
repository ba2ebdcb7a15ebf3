"""Plan files are read whole or refused with the place of every fault."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from radplan.errors import FileError, InputError
from radplan.io.plan_file.reading import PlanSpec, plan_spec, read_plan_file

WHOLE = """
machine: generic_photon_6mv
fractions: 25
prescription: 50.0
beams: {gantry: [0, 72, 144, 216, 288], couch: 0, bixel_width: 5.0, isocenter: [0, 1.5, -2]}
engine: {name: photon_pencil_beam, grid: [5, 5, 2.5], device: "torch:cpu", dtype: float64}
goals:
  - {structure: PTV, objective: squared_deviation, parameters: {reference: 50.0}, weight: 1000}
  - {structure: Cord, objective: squared_overdosing, parameters: {reference: 20.0}, weight: 300, quantity: rbe_x_dose}
constraints:
  - {structure: Cord, objective: mean, upper: 1.0e+1}
robust: composite
solver: {name: scipy, options: {max_iterations: 10}}
normalize: {structure: PTV, D95: 50.0}
external: {threshold: -300, name: Skin}
structures:
  Ring: ring(PTV, 3 mm, 30 mm)
  Overlap: {shape: "PTV & (Cord + 5 mm)", role: oar, priority: 1}
densities: [{structure: Couch, density: 0.2}, {structure: Bolus, hu: 0}]
metrics: [V20Gy, D0.1cc]
outputs: {figures: false, beside: {table: clinic.csv, names: {PTV: ptv}}}
"""


def written(folder: Path, text: str, name: str = "plan.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_whole_file(tmp_path: Path) -> None:
    spec = read_plan_file(written(tmp_path, WHOLE))
    assert spec.beams.gantry == (0.0, 72.0, 144.0, 216.0, 288.0)
    assert spec.beams.isocenter == (0.0, 1.5, -2.0)
    assert spec.engine.grid == (5.0, 5.0, 2.5)
    assert spec.goals[1].quantity == "rbe_x_dose"
    assert spec.constraints[0].upper == 10.0
    assert spec.structures["Ring"].shape == "ring(PTV, 3 mm, 30 mm)"
    assert spec.structures["Overlap"].priority == 1
    assert [entry.hu for entry in spec.densities] == [None, 0.0]
    assert spec.outputs.beside is not None
    assert spec.outputs.beside.names == {"PTV": "ptv"}
    assert spec.normalize
    assert (spec.normalize.structure, spec.normalize.metric, spec.normalize.level) == ("PTV", "D95", 50.0)


def test_a_plan_comes_back_from_what_is_written_of_it(tmp_path: Path) -> None:
    spec = read_plan_file(written(tmp_path, WHOLE))
    again = read_plan_file(written(tmp_path, json.dumps(spec.model_dump(mode="json")), "plan.json"))
    assert again == spec


def test_defaults_are_nine_beams_of_five_millimetres() -> None:
    spec = PlanSpec()
    assert spec.beams.gantry == tuple(range(0, 360, 40))
    assert spec.beams.bixel_width == spec.engine.grid == 5.0


def test_normalization_can_be_switched_off(tmp_path: Path) -> None:
    assert read_plan_file(written(tmp_path, "normalize: false")).normalize is False


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("fractoins: 25", r"fractoins: unknown key; did you mean 'fractions'\? \(known: case, machine"),
        ("beams: {gantries: [0]}", r"beams\.gantries: unknown key; did you mean 'gantry'\?"),
        ("goals: [{structure: A, objective: mean, wieght: 1}]", r"goals\[0\]\.wieght: .* 'weight'"),
        ("goals: [{objective: mean}]", r"goals\[0\]\.structure: is missing"),
        ("goals: [{structure: A, objective: mean, weight: -1}]", r"goals\[0\]\.weight: .*\(got -1\)"),
        ("fractions: 0", r"fractions: .*greater than 0 \(got 0\)"),
        ("fractions: many", r"fractions: .*\(got 'many'\)"),
        ("beams: {bixel_width: .nan}", r"beams\.bixel_width: .*finite"),
        ("beams: {gantry: []}", r"beams\.gantry: .*at least 1"),
        ("normalize: {structure: PTV}", r"normalize: expected one metric with its level"),
        ("normalize: {structure: PTV, D95: 50, D2: 60}", r"normalize: expected one metric"),
        ("constraints: [{structure: A, objective: mean}]", r"constraints\[0\]: a constraint needs lower or upper"),
        ("structures: {Ring: {shpe: PTV}}", r"structures\.Ring\.shpe: unknown key; did you mean 'shape'"),
        ("structures: {Ring: {shape: PTV, role: tumour}}", r"structures\.Ring\.role: "),
        ("structures: {Ring: 5}", r"structures\.Ring: .*\(got 5\)"),
        ("densities: [{structure: Couch}]", r"densities\[0\]: give either density or hu"),
        ("densities: [{structure: Couch, density: -1}]", r"densities\[0\]\.density: .*\(got -1\)"),
        ("external: {treshold: -300}", r"external\.treshold: .* 'threshold'"),
        ("outputs: {beside: {tables: x}}", r"outputs\.beside\.tables: unknown key; did you mean 'table'"),
        ("goals: [{structure: A, objective: mean, quantity: {nmae: let}}]", r"nmae: unknown key; did you mean 'name'"),
        ("engine: {grid: {shap: [1, 1, 1]}}", r"engine\.grid\.shap: unknown key; did you mean 'shape'"),
        ("engine: {grid: [5, -5, 5]}", r"engine\.grid: expected a spacing > 0 mm, .* \(got \[5, -5, 5\]\)"),
        ("biology: true", r"biology: expected the name of an RBE model, .* \(got True\)"),
        ("normalize: 60", r"normalize: expected one metric with its level, .* \(got 60\)"),
        ("beams: {bixel_width: 5, spot_spacing: 5}", r"beams: spot_spacing and bixel_width are the same length"),
        ("beams: {range_shifter: {thicknes: 4}}", r"range_shifter\.thicknes: unknown key; did you mean 'thickness'"),
        ("tissues: [{structure: PTV, alpha_x: 0.1}]", r"tissues\[0\]\.beta_x: is missing"),
        ("outputs: {beside: {label: clinic}}", r"outputs\.beside: give either table or plan"),
        ("fractions: 1\nfractions: 2", r"line 2: the key 'fractions' is written twice"),
        ("fractions: [1", r"is not YAML"),
        ("- 1\n- 2", r"holds a list"),
        ("", r"is empty; the least"),
    ],
)
def test_a_fault_is_named_with_its_place(tmp_path: Path, text: str, match: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(FileError, match=match) as caught:
        read_plan_file(path)
    assert str(path) in str(caught.value)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"fractoins.*robost"):
        read_plan_file(written(tmp_path, "fractoins: 25\nrobost: composite"))


def test_json_faults(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="is not JSON"):
        read_plan_file(written(tmp_path, "{", "plan.json"))
    with pytest.raises(FileError, match="written twice"):
        read_plan_file(written(tmp_path, '{"fractions": 1, "fractions": 2}', "plan.json"))


def test_missing_and_binary_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="no such plan file"):
        read_plan_file(tmp_path / "none.yaml")
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match="cannot be read"):
        read_plan_file(path)


def test_plain_data_are_checked_the_same_way() -> None:
    with pytest.raises(InputError, match="did you mean 'machine'"):
        plan_spec({"machin": "generic_photon_6mv"})
