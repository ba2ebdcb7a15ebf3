"""
Bands of scenarios
==================

A proton plan in nine cases of setup and range: the DVH as it is planned, with bands from the best to the worst.
"""

import radplan as rp
from radplan.plan import plan_of_case

cases = rp.Scenarios.setup_and_range(setup=5.0, range=0.035)
patient = rp.load_patient("box")
machine = rp.load_machine("generic_proton")
beams = rp.place_beams(patient, machine, gantry=[90], bixel_width=10.0, layer_spacing=8.0, setup_margin=8.0)
dij = rp.dose_influence(patient, beams, machine, grid=8.0, scenarios=cases)
target = rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), 100, "rbe_x_dose", robust="expected")
body = rp.Goal("BODY", rp.SquaredOverdosing(40.0), 2, "rbe_x_dose")
plan = rp.optimize(dij, [target, body], patient, fractions=30, solver=rp.SOLVERS.get("lbfgs")(max_iterations=200))
bands = rp.draw_dvh(plan)

# %%
# The case in which ranges are 3.5 % shorter than planned.
short = rp.draw_slices(plan_of_case(plan, plan.model.scenarios.names[-1]), "rbe_x_dose")
