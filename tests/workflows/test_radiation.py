"""Plan files of particles: what is resolved, what is refused, and a small proton plan from the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from radplan.biology.rbe import RBE_MODELS, McNamara
from radplan.cli import main as cli
from radplan.engines.particle.pencil_beam import ParticlePencilBeam
from radplan.errors import InputError, UnknownNameError
from radplan.io.load import load_patient
from radplan.io.plan_file.reading import plan_spec, read_plan_file
from radplan.machines import library_machine
from radplan.optim.solvers import SOLVERS
from radplan.patient.phantoms import phantom
from radplan.workflows.radiation import (
    beam_settings,
    check_density_scaling,
    check_radiation,
    machine_name,
    made,
    wanted_engine,
)
from radplan.workflows.setup import filled, prepare_patient, task, wanted_goals

EXAMPLES = Path(__file__).resolve().parents[2] / "docs/examples"

PLAN = """
case: box
machine: generic_proton
biology: wedenberg
beams: {gantry: [0, 90], spot_spacing: 11, layer_spacing: 11}
engine: {grid: 9, options: {let_threshold: 2.5}}
goals:
  - {structure: OuterTarget, objective: squared_deviation, parameters: {reference: 60}, weight: 100}
  - {structure: BODY, objective: squared_overdosing, parameters: {reference: 30}}
  - {structure: BODY, objective: mean, quantity: let}
  - {structure: BODY, objective: mean, quantity: {name: let_x_dose, parameters: {c: 0.05}}, weight: 0.1}
  - {structure: BODY, objective: mean, quantity: dirty_dose, weight: 0.1}
solver: {name: lbfgs, options: {max_iterations: 15}}
metrics: [V20Gy]
outputs: {quantities: [let, rbe, effect]}
"""

MEAN = {"structure": "BODY", "objective": "mean"}


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("protons")
    (folder / "plan.yaml").write_text(PLAN)
    assert cli.main(["plan", "--plan", str(folder / "plan.yaml"), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_a_proton_plan_writes_what_a_physicist_looks_for(planned: Path) -> None:
    names = {path.name for path in planned.iterdir()}
    assert names >= {"plan.json", "dose.npz", "weights.npz", "dvh.csv", "dvh_let.csv", "spots.csv", "RP.dcm"}
    assert names >= {"dvh.png", "slices.png", "maps.png", "profiles.png", "spots.png"}
    data = json.loads((planned / "plan.json").read_text())
    assert data["quantity"] == "rbe_x_dose"
    assert data["normalization"] == "OuterTarget D95 = 60 Gy(RBE)"
    assert data["metrics"]["OuterTarget"]["D95"] == pytest.approx(60.0, abs=1e-3)
    assert "V20Gy" in data["metrics"]["OuterTarget"]
    assert set(data["other_metrics"]) == {"physical_dose", "let", "let_x_dose", "dirty_dose", "rbe", "effect"}
    assert list(data["other_metrics"]["let"]["BODY"]) == ["mean", "D98", "D50", "D2", "max"]
    assert data["beams"][0]["layers"] > 3


def test_saved_quantities_belong_together(planned: Path) -> None:
    with np.load(planned / "dose.npz") as held:
        dose, rbe_dose = held["dose"].astype(np.float64), held["rbe_x_dose"].astype(np.float64)
        there = dose > 0.6
        np.testing.assert_allclose(held["rbe"][there], rbe_dose[there] / dose[there], rtol=1e-4)
        np.testing.assert_allclose(held["let_x_dose"][there], (0.05 * held["let"] * dose)[there], rtol=1e-4)
        assert np.all(held["dirty_dose"] <= held["dose"] * (1 + 1e-5))
        assert 1.0 < float(held["rbe"][there].min()) < 1.1 < float(held["rbe"][there].max())


def test_the_table_of_spots_holds_every_particle(planned: Path) -> None:
    with (planned / "spots.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:3] == ["beam", "gantry [deg]", "couch [deg]"]
    table = np.asarray(rows[1:], dtype=np.float64)
    with np.load(planned / "weights.npz") as held:
        x = held["x"]
    assert table.shape[0] == np.count_nonzero(x)
    assert table[:, 6].sum() == pytest.approx(x.sum(), rel=1e-4)
    np.testing.assert_allclose(table[:, 6], table[:, 7] * table[:, 8], rtol=1e-4)
    first = table[table[:, 0] == 1.0]
    assert np.all(np.diff(first[:, 3]) <= 0.0)  # deep layers first
    machine = library_machine("generic_proton")
    deepest = machine.entry(machine.energy_index(first[0, 3]))
    assert table[:, 8].min() >= 0.9999 * deepest.min_mu  # no spot below what the monitor can count
    assert first[0, 7] == pytest.approx(deepest.particles_per_mu / 1e6, rel=1e-4)


def test_a_proton_plan_is_made_again_from_its_json(planned: Path, tmp_path: Path) -> None:
    assert cli.main(["plan", "--plan", str(planned / "plan.json"), "--out", str(tmp_path), "--no-figures"]) == 0
    with np.load(planned / "weights.npz") as first, np.load(tmp_path / "weights.npz") as again:
        np.testing.assert_array_equal(again["x"], first["x"])


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"radiation": "proton"}, "did you mean 'protons'"),
        ({"radiation": "carbon", "machine": "generic_proton"}, "delivers protons"),
        ({"machine": "generic_proton", "biology": "mcnamarra"}, "did you mean 'mcnamara'"),
        ({"machine": "generic_proton", "biology": {"name": "mcnamara", "parameters": {"p": 1}}}, "option of the RBE"),
        ({"machine": "generic_proton", "biology": "mairani"}, "was made for helium"),
        ({"machine": "generic_proton", "biology": "tabulated"}, "needs alpha and beta"),
        ({"machine": "generic_carbon", "biology": "wedenberg"}, "was made for protons"),
        ({"biology": "wedenberg"}, "the engine 'photon_pencil_beam' knows none"),
        ({"beams": {"spot_spacing": 5}}, "write bixel_width"),
        ({"machine": "generic_proton", "goals": [{**MEAN, "quantity": "dirty_dose"}]}, "let_threshold: 2.5"),
        ({"goals": [{**MEAN, "quantity": "let"}]}, "photons of machine"),
        ({"machine": "generic_proton", "biology": False, "goals": [{**MEAN, "quantity": "effect"}]}, "needs a biology"),
        ({"machine": "generic_proton", "outputs": {"quantities": ["lett"]}}, "did you mean 'let'"),
        ({"machine": "generic_proton", "quantity": "rbe_dose"}, "did you mean 'rbe_x_dose'"),
        ({"machine": "generic_proton", "tissues": [{"structure": "Lung", "alpha_x": 0.1, "beta_x": 0.05}]}, "Lung"),
        ({"machine": "generic_proton", "engine": {"options": {"let_treshold": 2}}}, "did you mean 'let_threshold'"),
        (
            {
                "machine": "generic_proton",
                "goals": [{**MEAN, "quantity": {"name": "let_x_dose", "parameters": {"c": c}}} for c in (0.04, 0.05)],
            },
            "different options",
        ),
    ],
)
def test_what_particles_cannot_do_is_refused_before_the_long_work(wish: dict[str, object], match: str) -> None:
    spec = plan_spec({"goals": [MEAN], **wish})
    with pytest.raises((InputError, UnknownNameError), match=match):
        made_ready(spec)


def made_ready(spec):
    name = machine_name(spec)
    patient = load_patient("box")
    goals = wanted_goals(spec, patient)
    patient = prepare_patient(spec, patient)
    machine = library_machine(name)
    check_radiation(spec, machine)
    whole = filled(spec.model_copy(update={"machine": name}), patient, machine, goals)
    beam_settings(whole.beams, machine)
    return whole, task(whole, patient, machine), patient


def test_a_radiation_names_its_built_in_machine() -> None:
    assert machine_name(plan_spec({"radiation": "helium"})) == "generic_helium"
    assert machine_name(plan_spec({})) == "generic_photon_6mv"
    assert machine_name(plan_spec({"machine": "my.mat", "radiation": "protons"})) == "my.mat"


def test_goals_without_a_quantity_mean_the_prescribed_one() -> None:
    for wish, expected in (
        ({"radiation": "protons"}, "rbe_x_dose"),
        ({"radiation": "protons", "biology": False}, "physical_dose"),
        ({"radiation": "carbon", "quantity": "physical_dose"}, "physical_dose"),
        ({}, "physical_dose"),
    ):
        spec, made, _ = made_ready(plan_spec(wish))
        assert spec.quantity == expected
        assert {goal.quantity for goal in made.goals} == {expected}  # those that travel with the patient, too
    explicit = plan_spec({"radiation": "protons", "goals": [{**MEAN, "quantity": "physical_dose"}, MEAN]})
    assert [goal.quantity for goal in made_ready(explicit)[1].goals] == ["physical_dose", "rbe_x_dose"]


def test_particles_come_from_both_sides_unless_told_otherwise() -> None:
    assert made_ready(plan_spec({"radiation": "protons"}))[0].beams.gantry == (90.0, 270.0)
    spec = made_ready(plan_spec({"radiation": "protons", "beams": {"gantry": 30, "spot_spacing": 7}}))[0]
    assert (spec.beams.gantry, spec.beams.bixel_width, spec.beams.spot_spacing) == ((30.0,), 7.0, None)
    wish = plan_spec({"beams": {"range_shifter": {"thickness": 40, "isocenter_distance": 300}}})
    shifter = beam_settings(wish.beams, library_machine("generic_proton"))["range_shifter"]
    assert (shifter.thickness, shifter.isocenter_distance) == (40.0, 300.0)


@pytest.mark.parametrize("name", RBE_MODELS.names())
def test_every_rbe_model_is_chosen_by_its_name(name: str) -> None:
    model = RBE_MODELS.get(name)
    machine = library_machine(
        "generic_carbon" if model.needs == "tables" else f"generic_{model.radiation[0].rstrip('s')}"
    )
    engine = wanted_engine(plan_spec({"biology": name}), machine)
    assert isinstance(engine, ParticlePencilBeam)
    assert isinstance(engine.rbe_model(machine), model)
    engine = wanted_engine(plan_spec({"engine": {"name": engine.name, "options": {"biology": name}}}), machine)
    assert isinstance(engine.rbe_model(machine), model)  # type: ignore[attr-defined]


def test_coefficients_of_a_model_may_be_given() -> None:
    spec = plan_spec({"biology": {"name": "mcnamara", "parameters": {"p0": 0.999064}}})
    engine = wanted_engine(spec, library_machine("generic_proton"))
    assert engine.biology == McNamara(p0=0.999064)  # type: ignore[attr-defined]


def test_tissues_are_set_by_pattern_the_last_one_wins() -> None:
    wish = {"tissues": [{"structure": "*", "alpha_x": 0.15, "beta_x": 0.05}]}
    wish["tissues"].append({"structure": "Outer*", "alpha_x": 0.3, "beta_x": 0.03})
    patient = prepare_patient(plan_spec(wish), phantom("box"))
    found = {s.name: (s.alpha_x, s.beta_x) for s in patient.structures.values()}
    assert found == {"BODY": (0.15, 0.05), "OuterTarget": (0.3, 0.03)}


def test_the_examples_of_the_documentation_can_be_planned() -> None:
    """Read, resolved and checked; ``python -m tests.benchmarks.particle_examples`` makes the plans themselves."""
    carbon = read_plan_file(EXAMPLES / "carbon_tg119.yaml")
    patient = prepare_patient(carbon, phantom("tg119"))
    machine = library_machine(machine_name(carbon))
    whole = filled(carbon, patient, machine, wanted_goals(carbon, patient))
    assert {goal.quantity for goal in task(whole, patient, machine).goals} == {"rbe_x_dose"}
    proton = read_plan_file(EXAMPLES / "proton_thorax.yaml")
    engine = wanted_engine(proton, library_machine(machine_name(proton)))
    assert engine.biology == McNamara()  # type: ignore[attr-defined]
    assert beam_settings(proton.beams, library_machine("generic_proton"))["bixel_width"] == 7.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"lateral_cutoff": "5 cm"},
            "option of the engine 'photon_pencil_beam': lateral_cutoff must be a number or none",
        ),
        ({"lateral_cutoff": [50.0]}, r"lateral_cutoff must be a number or none, got \[50.0\]"),
        ({"pixel": None}, "pixel must be a number, got None"),
        ({"pixel": True}, "pixel must be a number, got True"),
        ({"density_scaling": 1}, "density_scaling must be true or false or none, got 1"),
        ({"interpolation": "cubit"}, "interpolation must be 'cubic' or 'linear', got 'cubit'"),
    ],
)
def test_options_of_another_kind_are_refused_by_name(options, message):
    spec = plan_spec({"engine": {"name": "photon_pencil_beam", "options": options}})
    with pytest.raises((InputError, UnknownNameError), match=message):
        wanted_engine(spec, library_machine("generic_photon_6mv"))


def test_density_scaling_is_refused_where_leaves_would_not_get_it():
    machine, box, vmat = library_machine("generic_photon_6mv"), load_patient("box"), {"technique": "vmat"}
    lungs = box.with_structure("Lunge re.", "OuterTarget - 5 mm")
    for patient, asked, given in ((box, True, "without"), (lungs, False, "with")):
        engine = {"options": {"density_scaling": asked}}
        check_density_scaling(plan_spec({"engine": engine}), patient, machine)
        with pytest.raises(InputError, match=rf"jaws of vmat are calculated {given} it.*recalc --density-scaling"):
            check_density_scaling(plan_spec({"engine": engine, "delivery": vmat}), patient, machine)
    for asked in (True, None):
        engine = {"options": {"density_scaling": asked}}
        check_density_scaling(plan_spec({"engine": engine, "delivery": vmat}), lungs, machine)


def test_a_plan_says_that_lungs_widen_kernels():
    box, machine = load_patient("box"), library_machine("generic_photon_6mv")
    lungs = box.with_structure("Lunge re.", "OuterTarget - 5 mm")
    for patient, told in ((box, {"density_scaling": False}), (lungs, {"density_scaling": True})):
        assert filled(plan_spec({}), patient, machine, []).engine.options == told


def test_options_may_be_whole_numbers_or_numpy_scalars():
    spec = plan_spec({"engine": {"name": "photon_pencil_beam", "options": {"lateral_cutoff": np.float32(60)}}})
    assert type(wanted_engine(spec, library_machine("generic_photon_6mv")).lateral_cutoff) is float


def test_options_of_solvers_are_checked_too():
    assert made(SOLVERS.get("lbfgs"), "solver", {"max_iterations": 1e2}).max_iterations == 100
    for given in (1.5, "many", None, float("inf"), float("nan")):
        with pytest.raises(InputError, match="option of the solver 'lbfgs': max_iterations must be a whole number"):
            made(SOLVERS.get("lbfgs"), "solver", {"max_iterations": given})
