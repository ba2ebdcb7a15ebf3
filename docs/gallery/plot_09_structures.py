"""
Structures from structures
==========================

Margins, rings and booleans are written as expressions; goals may use them like any other structure.
"""

import matplotlib.pyplot as plt
import numpy as np

import radplan as rp

patient = rp.load_patient("tg119")
expressions = {
    "target": "OuterTarget",
    "margin of 8 mm": "margin(OuterTarget, 8 mm)",
    "ring from 5 to 15 mm": "ring(OuterTarget, 5 mm, 15 mm)",
    "target without core's 6 mm": "OuterTarget - margin(Core, 6 mm)",
}
z = int(np.argmin(abs(patient.ct.grid.axes[2])))
figure, panels = plt.subplots(1, 4, figsize=(13, 2.6), layout="constrained")
for panel, (title, text) in zip(panels, expressions.items()):
    panel.imshow(patient.external.mask()[z], cmap="Greys", alpha=0.25)
    panel.contour(patient.structures["Core"].mask()[z], [0.5], colors="green")
    panel.imshow(np.ma.masked_equal(patient.structure(text).mask()[z], 0), cmap="autumn")
    panel.set_title(title, fontsize=9)
    panel.axis("off")
