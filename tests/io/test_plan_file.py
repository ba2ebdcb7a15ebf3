"""Plan files are read whole or refused with the place of every fault."""

from __future__ import annotations

import json
import time
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


@pytest.mark.parametrize("number", ["5e1", "50", "50.", "+5.0e+1", "500e-1", "0050"])
@pytest.mark.parametrize("name", ["plan.yaml", "plan.json"])
def test_numbers_may_be_written_as_people_write_them(tmp_path: Path, number: str, name: str) -> None:
    parameters = f'"parameters": {{"reference": {number}}}, "weight": 1e3'
    goal = f'{{"structure": "PTV", "objective": "squared_deviation", {parameters}}}'
    if name == "plan.json" and number in ("50.", "+5.0e+1", "0050"):
        pytest.skip("no number of JSON")
    entry = read_plan_file(written(tmp_path, f'{{"goals": [{goal}]}}', name)).goals[0]
    assert entry.parameters == {"reference": 50.0}
    assert entry.weight == 1000.0


def test_words_of_yaml_1_1_stay_words(tmp_path: Path) -> None:
    text = "case: 2024-13-45\ngoals: [{structure: NO, objective: mean}, {structure: 12:30, objective: mean}]"
    spec = read_plan_file(written(tmp_path, text))
    assert spec.case == "2024-13-45"
    assert [goal.structure for goal in spec.goals] == ["NO", "12:30"]
    with pytest.raises(FileError, match=r"goals\[0\]\.weight: .*\(got 'yes'\)"):
        read_plan_file(written(tmp_path, "goals: [{structure: A, objective: mean, weight: yes}]"))
    with pytest.raises(FileError, match=r"goals\[0\]\.weight: expected a number \(got True\)"):
        read_plan_file(written(tmp_path, "goals: [{structure: A, objective: mean, weight: true}]"))
    with pytest.raises(FileError, match=r"structure: .*\(got 7; put a name that reads as a number.*into quotes"):
        read_plan_file(written(tmp_path, "goals: [{structure: 7, objective: mean}]"))


def bomb(levels: int) -> str:
    """Nine aliases of nine aliases of ...: 9^levels values in a few hundred bytes."""
    lines = ["n0: &n0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"n{k}: &n{k} [{', '.join([f'*n{k - 1}'] * 9)}]" for k in range(1, levels)]
    return "\n".join(lines)


def merge_bomb(levels: int) -> str:
    lines = ["m0: &m0 {" + ", ".join(f"k{k}: 1" for k in range(9)) + "}"]
    lines += [f"m{k}: &m{k} {{<<: [{', '.join([f'*m{k - 1}'] * 9)}]}}" for k in range(1, levels)]
    return "\n".join(lines)


HOSTILE = {
    "aliases.yaml": bomb(9) + "\ngoals: *n8",
    "aliases as a grid.yaml": bomb(9) + "\nengine: {grid: *n8}",
    "aliases as a key.yaml": bomb(9) + "\n? *n8\n: 1",
    "merges.yaml": merge_bomb(9) + "\nengine: *m8",
    "in itself.yaml": "goals: &g [*g]",
    "deep.yaml": "goals: " + "[" * 5000,
    "deep but whole.yaml": "goals: " + "[" * 60 + "]" * 60,
    "deep keys.yaml": "{a: " * 3000,
    "many.yaml": "goals: [" + "1," * 400_000 + "]",
    "number.yaml": "fractions: " + "9" * 5000,
    "tags.yaml": "fractions: !!int x\nprescription: !!float abc",
    "truth.yaml": "deliverable: !!bool x",
    "time.yaml": "case: !!timestamp x",
    "python.yaml": "case: !!python/object/apply:os.system [ls]",
    "binary.yaml": "fractions: !!binary YQ==",
    "deep.json": "[" * 100_000,
    "deep keys.json": '{"a":' * 50_000,
    "number.json": '{"fractions": ' + "9" * 5000 + "}",
    "not a number.json": '{"prescription": NaN}',
    "many keys.json": "{" + ",".join(f'"k{k}": 1' for k in range(250_000)) + "}",
    "long key.yaml": "a" * 100_000 + ": 1",
    "long text.yaml": "fractions: " + "x" * 900_000,
    "large.yaml": "case: " + "x" * 1_100_000,
    "large.json": '{"case": "' + "x" * 17_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_end_soon_in_one_short_error(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, HOSTILE[name], name)
    start = time.process_time()
    with pytest.raises(FileError) as caught:
        read_plan_file(path)
    assert time.process_time() - start < 5.0
    assert len(str(caught.value)) < 3000
