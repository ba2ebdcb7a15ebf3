"""
What machines are made of
=========================

Depth doses of the built-in photon beams, and energy tables of the particle beams.
"""

import matplotlib.pyplot as plt
import numpy as np

import radplan as rp

patient = rp.load_patient("box")
figure, axes = plt.subplots(figsize=(8, 4.4), layout="constrained")
for name in ("generic_photon_6mv", "generic_photon_10mv", "generic_photon_15mv"):
    machine = rp.load_machine(name)
    beams = rp.place_beams(patient, machine, gantry=[0], bixel_width=20.0)
    plan = rp.evaluate(rp.dose_influence(patient, beams, machine, grid=4.0), np.ones(beams.count), patient, fractions=1)
    x, y, z = plan.model.grid.axes
    k, i = int(np.argmin(abs(z - plan.isocenter[2]))), int(np.argmin(abs(x - plan.isocenter[0])))
    curve = plan["physical_dose"][k, :, i]
    axes.plot(y - y[np.argmax(curve > 0.2 * curve.max())], 100 * curve / curve.max(), label=name)
axes.set(xlim=(-5, 250), xlabel="depth [mm]", ylabel="dose [% of the maximum]", title="Photons")
axes.legend()

# %%
# Bragg curves of carbon ions, and the LET that goes with one of them.
machine = rp.load_machine("generic_carbon")
bragg, panels = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for k in range(10, len(machine.energies), 25):
    layer = machine.entry(k)
    panels[0].plot(layer.depth, layer.dose, label=f"{layer.energy:.0f} MeV/u")
    panels[1].plot(layer.depth, layer.let, label=f"{layer.energy:.0f} MeV/u")
panels[0].set(xlabel="depth [mm]", ylabel="dose per ion [MeV cm²/g]")
panels[1].set(xlabel="depth [mm]", ylabel="dose-averaged LET [keV/µm]", yscale="log")
panels[0].legend()

# %%
# The lateral spread of protons in water.
machine = rp.load_machine("generic_proton")
spread, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for k in range(5, len(machine.energies), 30):
    layer = machine.entry(k)
    sigma = layer.sigma if layer.sigma is not None else layer.sigma1
    axes.plot(layer.depth, sigma, label=f"{layer.energy:.0f} MeV")
axes.set(xlabel="depth [mm]", ylabel="spread in water [mm]")
axes.legend()
