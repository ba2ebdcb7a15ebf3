"""
Ions beside each other: protons, helium, carbon
===============================================

One field each to the same target. Heavier ions fall more sharply at the sides, and leave a tail of fragments behind.
A goal on a ring about the target keeps dose from piling up in front of it.
"""

import matplotlib.pyplot as plt
import numpy as np

import radplan as rp

patient = rp.load_patient("box").with_structure("Ring", "ring(OuterTarget, 0 mm, 15 mm)", role="ignored", priority=2)
profiles = {}
for name in ("generic_proton", "generic_helium", "generic_carbon"):
    machine = rp.load_machine(name)
    beams = rp.place_beams(patient, machine, gantry=[0], bixel_width=6.0, layer_spacing=5.0)
    dij = rp.dose_influence(patient, beams, machine, grid=5.0)
    goals = [
        rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), weight=100, quantity="rbe_x_dose"),
        rp.Goal("Ring", rp.SquaredOverdosing(60.0), weight=100, quantity="rbe_x_dose"),
        rp.Goal("BODY", rp.SquaredOverdosing(30.0), weight=10, quantity="rbe_x_dose"),
    ]
    plan = rp.optimize(dij, goals, patient, fractions=20)
    x, y, z = plan.model.grid.axes
    k, j, i = (int(np.argmin(abs(a - c))) for a, c in zip((z, y, x), plan.isocenter[::-1]))
    dose = plan["rbe_x_dose"]
    profiles[machine.radiation] = (dose[k, :, i], dose[k, j, :])

along, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
for label, (depth_profile, _) in profiles.items():
    axes.plot(y - y[0], depth_profile, label=label)
axes.set(xlabel="from the front backwards [mm]", ylabel="RBE-weighted dose [Gy(RBE)]", title="Along the beam")
axes.legend()

# %%
# From right to left through the target: the lateral fall.
across, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
for label, (_, lateral) in profiles.items():
    axes.plot(x, lateral, label=label)
axes.set(xlabel="x [mm]", ylabel="RBE-weighted dose [Gy(RBE)]", title="Across the beam")
axes.legend()
