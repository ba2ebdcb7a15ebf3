"""
The gamma index
===============

One plan on two dose grids, compared point by point: where do they agree within 2 % and 2 mm?
"""

import matplotlib.pyplot as plt
import numpy as np

import radplan as rp

patient = rp.load_patient("box")
machine = rp.load_machine("generic_photon_6mv")
beams = rp.place_beams(patient, machine, gantry=[0, 120, 240], bixel_width=10.0)
fine = rp.dose_influence(patient, beams, machine, grid=4.0)
plan = rp.optimize(fine, patient.goals, patient, fractions=30, solver=rp.SOLVERS.get("lbfgs")(max_iterations=60))
coarse = rp.evaluate(rp.dose_influence(patient, beams, machine, grid=10.0), plan.x, patient, fractions=30)
agreement = rp.gamma(coarse, plan, percent=2, distance=2)
values = agreement.gamma.values
k = values.shape[0] // 2
figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), layout="constrained")
dose = panels[0].imshow(plan["physical_dose"][k], cmap="turbo")
figure.colorbar(dose, ax=panels[0], label="dose on 4 mm [Gy]")
index = panels[1].imshow(values[k], cmap="coolwarm", vmin=0, vmax=2)
figure.colorbar(index, ax=panels[1], label="gamma of 10 mm against 4 mm")
figure.suptitle(f"{agreement.passing:.1f} % within 2 % and 2 mm")

# %%
# How the gamma values are spread.
spread, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
axes.hist(values[np.isfinite(values)], bins=60)
axes.axvline(1.0, color="black", ls=":")
axes.set(xlabel="gamma", ylabel="voxels")
