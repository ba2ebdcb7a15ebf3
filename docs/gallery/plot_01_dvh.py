"""
Dose-volume histograms
======================

A box phantom with a cube to treat. Two plans of the same beams, with and without a goal on the body, beside each other.
"""

import radplan as rp

patient = rp.load_patient("box")
machine = rp.load_machine("generic_photon_6mv")
beams = rp.place_beams(patient, machine, gantry=[0, 90, 180, 270], bixel_width=10.0)
dij = rp.dose_influence(patient, beams, machine, grid=7.5)
target = rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), weight=100)
alone = rp.optimize(dij, [target], patient, fractions=30).scaled("OuterTarget", D95=57.0)
spared = rp.optimize(dij, [target, rp.Goal("BODY", rp.SquaredOverdosing(20.0), weight=50)], patient, fractions=30)
spared = spared.scaled("OuterTarget", D95=57.0)

# %%
# The plan with a goal on the body; dashed, the plan without.
dvh = rp.draw_dvh(spared, beside=alone.dvh(), label="no goal on the body")

# %%
# What it looks like in three planes.
slices = rp.draw_slices(spared)
