"""An example of each public name whose docstring has none: cells of one script, shown in the reference."""

import numpy as np

import radplan as rp

patient = rp.load_patient("box")
machine = rp.load_machine("generic_photon_6mv")
beams = rp.place_beams(patient, machine, gantry=[0, 90, 180, 270], bixel_width=20.0, mlc="Millennium 120")
dij = rp.dose_influence(patient, beams, machine, grid=15.0)
goals = [rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), 100), rp.Goal("BODY", rp.SquaredOverdosing(20.0), 1)]
plan = rp.optimize(dij, goals, patient, fractions=30)

# %% load_machine
machine = rp.load_machine("generic_photon_6mv")  # or the path of a matRad .mat or a radplan .npz file
print(machine.name, machine.radiation)

# %% optimize
goals = [
    rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), weight=100),
    rp.Goal("BODY", rp.SquaredOverdosing(20.0), weight=1),
]
plan = rp.optimize(dij, goals, patient, fractions=30)
print(plan.solution.status, plan.metrics()["OuterTarget"]["Dmean"])

# %% evaluate
same = rp.evaluate(dij, plan.x, patient, fractions=30)
assert np.array_equal(same["physical_dose"], plan["physical_dose"])

# %% pareto
front = rp.pareto(dij, goals, patient, fractions=30, levels=3)
print(len(front), front.labels, front.values.shape)
between = front.navigate({"BODY": float(front.values[:, 1].mean())})

# %% select_beams
chosen = rp.select_beams(patient, machine, goals, 2, gantry=[0, 90, 180, 270], bixel_width=20.0, grid=15.0)
print(chosen.gantry, chosen.gains)

# %% priorities
wished, steps = rp.priorities(dij, goals, patient, fractions=30)  # the target first, then the body within 3 % of that
print(len(steps), wished.metrics()["OuterTarget"]["D95"])

# %% save_plan
files = rp.save_plan(plan, "out/box")
print([path.name for path in files])

# %% sequence
delivery = rp.sequence(plan, "Millennium 120", method="siochi", levels=7)
print(delivery.mu, [len(field.points) for field in delivery])

# %% export_rtplan
path = rp.export_rtplan(delivery, patient, "out/RP.dcm", limits="TrueBeam")

# %% recalculate
again = rp.recalculate(path, patient, grid=15.0)
print(again.plan.metrics()["OuterTarget"]["Dmean"])

# %% save_recalculation
rp.save_recalculation(again, "out/again")

# %% Recalculation
again = rp.recalculate(path, patient, grid=15.0)
dose = again.plan["physical_dose"]  # course total [Gy], (nz, ny, nx)

# %% plan_from_dose
given = plan["physical_dose"]  # a course total [Gy] on a grid, such as the dose of another system
mimicry = rp.plan_from_dose(given, dij.grid, dij, patient, fractions=30, iterations=30)
print(mimicry.plan.metrics()["OuterTarget"]["Dmean"])

# %% ForwardModel
model: rp.ForwardModel = dij
images = model.forward(np.ones(model.variables.count))  # per fraction, (scenarios, voxels) [Gy]
gradient = model.pullback(np.ones(model.variables.count), {"physical_dose": np.ones_like(images["physical_dose"])})

# %% LinearOperator
operator: rp.LinearOperator = dij.operators["physical_dose"][0]  # of the nominal case
dose = operator.apply(plan.x.astype(np.float32))  # (voxels,) [Gy per fraction]
back = operator.adjoint(np.ones_like(dose))  # (bixels,): the exact transpose

# %% Solver
from radplan.optim import ProjectedLBFGS

solver: rp.Solver = ProjectedLBFGS(max_iterations=20)
quick = rp.optimize(dij, goals, patient, fractions=30, solver=solver)

# %% SOLVERS
print(rp.SOLVERS.names())

# %% ENGINES
print(rp.ENGINES.names())

# %% OBJECTIVES
print(rp.OBJECTIVES.names())
assert rp.OBJECTIVES.get("squared_deviation") is rp.SquaredDeviation

# %% QUANTITIES
print(rp.QUANTITIES.names())

# %% ArcOptions
options = rp.ArcOptions(spacing=30.0, effort=0.1)  # coarse and quick, for an example

# %% plan_arcs
arc = rp.plan_arcs(patient, goals, machine, arcs=1, options=options, grid=15.0, fractions=30)
print(arc.mu, [len(field.points) for field in arc])

# %% refine_apertures
refined = rp.refine_apertures(delivery, goals, patient, machine, "Millennium 120", dij=None, grid=15.0, fractions=30)

# %% resequence
again = rp.resequence(plan, machine, "Millennium 120", intermediate_doses=1, iterations=2)
print(delivery.mu, again.mu)

# %% Protocol
from radplan.autoplan.protocol import load_protocol, protocol_names

protocol: rp.Protocol = load_protocol(protocol_names()[0])

# %% Scorecard
card: rp.Scorecard = protocol.scorecard
print(card.name, len(card.items))

# %% auto_plan
# A patient with contours under any names; takes minutes, so it is not run here: see docs/autoplan.md.
# refinement = rp.auto_plan(rp.load_patient("patients/pt_201"), "head_and_neck")
# print(refinement.best.score.percent)

# %% Objective
objective: rp.Objective = rp.SquaredOverdosing(20.0)  # [the quantity's unit], a course total
value = objective.value(np.asarray([10.0, 30.0]), np.asarray([0.5, 0.5]))  # values (m,), weights (m,) that sum to 1
slope = objective.gradient(np.asarray([10.0, 30.0]), np.asarray([0.5, 0.5]))
assert (float(value), slope.tolist()) == (50.0, [0.0, 10.0])

# %% commission_photons
# A clinic's own files are needed, so it is not run here.
# linac = rp.commission_photons("tank/", name="our_6mv", energy=6.0)
# print(linac.parameters, linac.undetermined)

# %% particle_machine_from_beam_model
# A clinic's own file is needed, so it is not run here.
# machine = rp.particle_machine_from_beam_model("beam_model.csv", name="our_gantry", energies=range(70, 230, 5))

# %% scanned_plan
protons = rp.load_machine("generic_proton")
spots = rp.place_beams(patient, protons, gantry=[0], bixel_width=20.0, layer_spacing=20.0)
scanned = rp.scanned_plan(
    spots, np.full(spots.count, 50.0), protons, fractions=30
)  # weights [1e6 particles per fraction]

# %% export_ion_plan
ion_path = rp.export_ion_plan(scanned, patient, "out/RN.dcm")

# %% read_ion_plan
same_plan = rp.read_ion_plan(ion_path)

# %% recalculate_ions
ions = rp.recalculate_ions(same_plan, patient, protons, grid=15.0, fractions=30)

# %% IonRecalculation
ions = rp.recalculate_ions(ion_path, patient, protons, grid=15.0, fractions=30)

# %% save_ion_recalculation
rp.save_ion_recalculation(ions, "out/ions")

# %% verify
# Histories take minutes, so it is not run here.
# verification = rp.verify("out/RP.dcm", patient, histories=10_000_000)
# print(verification)

# %% verify_protons
# A program is unpacked from a wheel (pip download --no-deps opentps-core), so it is not run here.
# verification = rp.verify_protons("out/protons", "opentps_core-2.0.0-py3-none-any.whl", histories=1_000_000)
# print(verification.passing, verification.simulated.statistical_percent)
