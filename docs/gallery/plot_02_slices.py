"""
Three planes of a plan
======================

The C-shape of TG-119 with five photon beams: CT, contours, colour wash and isodoses.
"""

import matplotlib.pyplot as plt

import radplan as rp

patient = rp.load_patient("tg119")
machine = rp.load_machine("generic_photon_6mv")
beams = rp.place_beams(patient, machine, gantry=range(0, 360, 72), bixel_width=10.0)
dij = rp.dose_influence(patient, beams, machine, grid=6.0)
plan = rp.optimize(dij, patient.goals, patient, fractions=30).scaled("OuterTarget", D95=50.0)
planes = rp.draw_slices(plan)

# %%
# One plane alone, and any quantity: here the equivalent dose in 2 Gy fractions, 15 mm further down.
figure, axes = plt.subplots(figsize=(8, 5))
rp.draw_slices(plan, "eqd2", plane="axial", slice=-15.0, ax=axes)

# %%
# What each beam gives, as dose of its own.
shares = plan.per_beam("physical_dose")
k = shares[0].shape[0] // 2
figure2, panels = plt.subplots(1, 5, figsize=(13, 2.4), layout="constrained")
for panel, beam, dose in zip(panels, plan.beams, shares):
    picture = panel.imshow(dose[k], cmap="turbo", vmin=0, vmax=30)
    panel.set_title(f"gantry {beam.gantry:g}°", fontsize=9)
    panel.axis("off")
bar = figure2.colorbar(picture, ax=panels, label="dose [Gy]")

# %%
# The weights of one beam as the source sees them, with the outlines of structures.
view = rp.draw_beams_eye_view(plan, beam=1)
