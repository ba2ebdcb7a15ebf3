"""The male pelvis: prostate, seminal vesicles, rectum with gas, bladder, femoral heads, penile bulb, pelvic bones.

Sizes: prostate 20-70 cm3, bladder 50-350 cm3, rectum 40-120 cm3, as drawn in trials of prostate radiotherapy
(Dearnaley et al., Lancet Oncol. 17 (2016) 1047); body 330-400 mm wide.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from radplan.autoplan.cohort.generate.base import (
    GENERATORS,
    Anatomy,
    AnatomyGenerator,
    Mask,
    Points,
    ellipsoid,
    grown,
    trunk,
)

_BONE, _WATER, _GAS = 400.0, 10.0, -800.0
"""Hounsfield units of tissues [HU]."""


@GENERATORS.register
@dataclass(frozen=True)
class Pelvis(AnatomyGenerator):
    """Anatomies of the male pelvis with a PTV of prostate and base of the seminal vesicles.

    Parameters
    ----------
    margin : tuple of float
        Smallest and largest margin from CTV to PTV [mm].
    """

    margin: tuple[float, float] = (4.0, 7.0)

    name: ClassVar[str] = "pelvis"
    extent: ClassVar[tuple[float, float, float]] = (448.0, 320.0, 220.0)

    def anatomy(self, random: np.random.Generator) -> Anatomy:
        n = partial(self.varied, random)
        points = self.points(random)
        width, depth = n(182.0, 12.0), n(118.0, 9.0)
        body = trunk(points, 4.0, width, depth, 2.5)
        prostate = ellipsoid(points, (0.0, 0.0, 0.0), (n(24.0, 3.0), n(19.0, 2.5), n(21.0, 3.0)))
        vesicles = ellipsoid(points, (0.0, n(13.0, 2.0), n(23.0, 3.0)), (n(24.0, 3.0), n(8.0, 1.5), n(10.0, 2.0)))
        vesicles &= ~prostate
        size = n(1.0, 0.3) ** (1.0 / 3.0)
        bladder = ellipsoid(
            points,
            (n(0.0, 4.0), n(-22.0, 4.0), n(36.0, 4.0)),
            (n(38.0, 4.0) * size, n(30.0, 3.0) * size, n(26.0, 3.0) * size),
        )
        bladder &= ~prostate & ~vesicles
        rectum, gas = self._rectum(random, points, prostate | vesicles | bladder)
        bulb = ellipsoid(points, (0.0, n(12.0, 2.0), n(-38.0, 2.0)), (n(11.0, 1.5), n(10.0, 1.0), n(8.0, 1.0)))
        bulb &= ~prostate & ~rectum
        apart, height = n(92.0, 4.0), n(16.0, 4.0)
        head = n(24.0, 2.0)
        left = ellipsoid(points, (apart, n(4.0, 3.0), height), (head,) * 3)
        right = ellipsoid(points, (-apart, n(4.0, 3.0), height), (head,) * 3)
        organs = prostate | vesicles | bladder | rectum | bulb
        pelvis = np.zeros_like(body)
        for side in (1.0, -1.0):
            shell = ellipsoid(points, (side * apart, 2.0, height + 8.0), (46.0, 40.0, 50.0))
            pelvis |= shell & ~ellipsoid(points, (side * (apart - 10.0), 2.0, height), (30.0, 34.0, 44.0))
        pelvis &= ~ellipsoid(points, (0.0, 0.0, 0.0), (56.0, 62.0, 400.0)) & ~organs & ~left & ~right
        muscle = trunk(points, 4.0, width - n(26.0, 5.0), depth - n(24.0, 4.0), 2.5)
        tissues = (
            (pelvis, _BONE), (left, 500.0), (right, 500.0), (bladder, _WATER), (rectum, 35.0), (gas, _GAS),
            (prostate, 40.0), (vesicles, 35.0), (bulb, 40.0),
        )  # fmt: skip
        hu = self.hounsfield(random, body, muscle, tissues)
        ctv = prostate | (vesicles & grown(prostate, 8.0, self.grid))
        ptv = grown(ctv, float(random.uniform(*self.margin)), self.grid) & body
        masks = {
            "PTV": ptv, "CTV": ctv, "Rectum": rectum, "Bladder": bladder, "Femur_Head_L": left, "Femur_Head_R": right,
            "PenileBulb": bulb, "Prostate": prostate, "SeminalVes": vesicles, "External": body,
        }  # fmt: skip
        return Anatomy(hu, {name: mask & body for name, mask in masks.items()}, ("PTV",))

    def _rectum(self, random: np.random.Generator, points: Points, others: Mask) -> tuple[Mask, Mask]:
        """Return a bent tube behind the prostate, and the gas in it."""
        x, y, z = points
        radius = self.varied(random, 15.0, 2.0)
        bend = self.varied(random, 0.0, 5.0) * np.sin(z / 60.0)
        back = self.varied(random, 36.0, 2.5) + 0.004 * (z - 10.0) ** 2 * np.where(z > 10.0, 1.0, 0.4)
        tube = (
            ((x - bend) ** 2 + ((y - back) / self.varied(random, 0.95, 0.08)) ** 2 <= radius**2)
            & (z > -42.0)
            & (z < 72.0)
        )
        share = max(0.0, self.varied(random, 0.35, 0.25))
        gas = ((x - bend) ** 2 + (y - back + 3.0) ** 2 <= (radius * share) ** 2) & (z > -30.0) & (z < 60.0)
        rectum = tube & ~others
        return rectum, gas & rectum
