"""
From fluence to leaves
======================

A plan of the C-shape, sequenced as step and shoot and as sliding windows: fluence, apertures, leaves in time.
"""

import radplan as rp
from radplan.delivery.fluence import field_fluence
from radplan.machines import library_mlc
from radplan.machines.limits import machine_limits
from radplan.viz.apertures import draw_apertures
from radplan.viz.delivery import draw_leaf_motion, draw_timing
from radplan.viz.fluence import draw_fluences

patient = rp.load_patient("tg119")
machine = rp.load_machine("generic_photon_6mv")
beams = rp.place_beams(patient, machine, gantry=range(0, 360, 90), bixel_width=10.0, mlc="Millennium 120")
dij = rp.dose_influence(patient, beams, machine, grid=8.0)
plan = rp.optimize(dij, patient.goals, patient, fractions=30, solver=rp.SOLVERS.get("lbfgs")(max_iterations=80))
stepped = rp.sequence(plan, "Millennium 120", method="engel", levels=7)
apertures = draw_apertures(stepped, panels=8)

# %%
# The fluence that sliding windows give, leaf ends and transmission included.
swept = rp.sequence(plan, "Millennium 120", method="sliding_window")
mlc = library_mlc("Millennium 120")
fluence = draw_fluences([(f"gantry {f.points[0].gantry:g}°", field_fluence(f, mlc)) for f in swept])

# %%
# Leaf pairs over the control points: what is open lies between the two lines.
motion = draw_leaf_motion(list(swept)[:2], rows=3)

# %%
# Dose rate and the fastest leaf over the time of delivery.
timing = draw_timing(swept, machine_limits("TrueBeam"))
