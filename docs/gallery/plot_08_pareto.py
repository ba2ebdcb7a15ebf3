"""
A Pareto front
==============

Target against core: plans that are each the best for their weights, and one steered between them.
"""

import matplotlib.pyplot as plt

import radplan as rp

patient = rp.load_patient("tg119")
machine = rp.load_machine("generic_photon_6mv")
beams = rp.place_beams(patient, machine, gantry=range(0, 360, 72), bixel_width=12.0)
dij = rp.dose_influence(patient, beams, machine, grid=8.0)
goals = [
    rp.Goal("OuterTarget", rp.SquaredDeviation(50.0), weight=1000),
    rp.Goal("Core", rp.SquaredOverdosing(15.0), weight=300),
    rp.Goal("Ring", rp.SquaredOverdosing(40.0), weight=500),
    rp.Goal("BODY", rp.SquaredOverdosing(30.0), weight=100),
]
factors = [[1.0, 4.0**power, 1.0, 1.0] for power in range(-3, 4)]  # the weight of the core, from 1/64 to 64 times
front = rp.pareto(dij, goals, patient, fractions=30, factors=factors)
wish = float(front.values[:, 1].mean())
steered = front.navigate({"Core": wish})
reached = front.problem.goal_values(steered.x)

figure, axes = plt.subplots(figsize=(6.5, 4.5), layout="constrained")
axes.plot(front.values[:, 1], front.values[:, 0], "o-", label="the front")
axes.plot(float(reached[1]), float(reached[0]), "r*", ms=14, label="steered to a wish")
axes.set(xlabel="core: mean squared excess over 15 Gy", ylabel="target: mean squared deviation from 50 Gy")
axes.legend()

# %%
# The two ends of the front as DVHs: the target at its best, dashed the core at its best.
ends = rp.draw_dvh(front.plan(0), beside=front.plan(-1).dvh(), label="the other end")
