"""
Protons: dose, LET, RBE and spots
=================================

Two proton fields of a box, with the RBE of Wedenberg: maps, profiles along the beams, and the spots of each layer.
"""

import radplan as rp
from radplan.engines import ParticlePencilBeam
from radplan.viz.maps import draw_maps
from radplan.viz.profiles import draw_profiles
from radplan.viz.spots import draw_spots

patient = rp.load_patient("box")
machine = rp.load_machine("generic_proton")
beams = rp.place_beams(patient, machine, gantry=[45, 315], bixel_width=8.0, layer_spacing=6.0)
dij = rp.dose_influence(patient, beams, machine, grid=6.0, engine=ParticlePencilBeam(biology="wedenberg"))
goals = [
    rp.Goal("OuterTarget", rp.SquaredDeviation(60.0), weight=100, quantity="rbe_x_dose"),
    rp.Goal("BODY", rp.SquaredOverdosing(30.0), weight=1, quantity="rbe_x_dose"),
]
plan = rp.optimize(dij, goals, patient, fractions=30)
maps = draw_maps(plan)

# %%
# Along each beam's axis.
profiles = draw_profiles(plan)

# %%
# Where the spots lie, and what they weigh.
spots = draw_spots(plan)

# %%
# LET in the target as a histogram: protons near the end of their range lie at the right.
let = rp.draw_dvh(plan, "let")
