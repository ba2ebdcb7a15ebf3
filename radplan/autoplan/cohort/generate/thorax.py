"""The thorax: lungs, heart, spinal cord, oesophagus, liver's dome, and a tumour in or beside a lung.

Sizes: lungs together 2.5-5 l, heart 500-800 cm3, tumour 10-150 cm3, as in locally advanced lung cancer (Bradley et al.,
Lancet Oncol. 16 (2015) 187).
"""

from __future__ import annotations

from collections.abc import Mapping
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

_LUNG, _BONE = -740.0, 350.0
"""Hounsfield units of tissues [HU]."""


@GENERATORS.register
@dataclass(frozen=True)
class Thorax(AnatomyGenerator):
    """Anatomies of the thorax with a PTV around a tumour of the lung.

    Parameters
    ----------
    margin : tuple of float
        Smallest and largest margin from tumour to PTV [mm].
    """

    margin: tuple[float, float] = (8.0, 13.0)

    name: ClassVar[str] = "thorax"
    extent: ClassVar[tuple[float, float, float]] = (432.0, 300.0, 260.0)

    def anatomy(self, random: np.random.Generator) -> Anatomy:
        n = partial(self.varied, random)
        points = self.points(random)
        x, y, _ = points
        width, depth = n(178.0, 11.0), n(118.0, 8.0)
        body = trunk(points, 0.0, width, depth, 2.4)
        heart = ellipsoid(
            points, (n(22.0, 5.0), n(-22.0, 4.0), n(-40.0, 6.0)), (n(55.0, 4.0), n(46.0, 3.0), n(52.0, 4.0))
        )
        cord = ((x - n(0.0, 1.0)) ** 2 + (y - n(72.0, 3.0)) ** 2) <= 6.5**2
        vertebra = ((x / 22.0) ** 2 + ((y - 54.0) / 17.0) ** 2 <= 1.0) | (
            ((x / 26.0) ** 2 + ((y - 76.0) / 20.0) ** 2) <= 1.0
        )
        gullet = ((x - n(4.0, 3.0)) / 10.0) ** 2 + ((y - n(28.0, 2.0)) / 7.0) ** 2 <= 1.0
        gullet &= ~heart & ~vertebra
        lungs = {}
        for name, side in (("Lung_L", 1.0), ("Lung_R", -1.0)):
            lung = ellipsoid(
                points,
                (side * n(80.0, 4.0), n(4.0, 3.0), n(5.0, 6.0)),
                (n(58.0, 4.0), n(84.0, 5.0), n(118.0, 8.0)),
                2.6,
            )
            lungs[name] = lung & ~heart & ~gullet & ~grown(vertebra, 3.0, self.grid) & (side * x > 12.0)
        dome = (
            ellipsoid(points, (-62.0, -4.0, n(-128.0, 8.0)), (100.0, 84.0, n(66.0, 6.0))) & ~heart & ~gullet & ~vertebra
        )
        lungs = {name: lung & ~dome for name, lung in lungs.items()}
        gtv = self._tumour(random, points, lungs)
        muscle = trunk(points, 0.0, width - n(20.0, 4.0), depth - n(18.0, 3.0), 2.4)
        both = lungs["Lung_L"] | lungs["Lung_R"]
        tissues = (
            (both, _LUNG), (vertebra, _BONE), (cord, 35.0), (heart, 42.0), (dome, 58.0), (gullet, 25.0), (gtv, 40.0),
        )  # fmt: skip
        hu = self.hounsfield(random, body, muscle, tissues)
        ptv = grown(gtv, float(random.uniform(*self.margin)), self.grid) & body & ~cord
        masks = {
            "PTV": ptv, "GTV": gtv, "Lung_L": lungs["Lung_L"] & ~gtv, "Lung_R": lungs["Lung_R"] & ~gtv,
            "Heart": heart & ~gtv, "SpinalCord": cord, "Esophagus": gullet & ~gtv & ~cord, "Liver": dome & ~gtv,
            "External": body,
        }  # fmt: skip
        return Anatomy(hu, {name: mask & body for name, mask in masks.items()}, ("PTV",))

    def _tumour(self, random: np.random.Generator, points: Points, lungs: Mapping[str, Mask]) -> Mask:
        """Return a tumour in a lung, nearer to the middle than to the ribs."""
        side = 1.0 if random.uniform() < 0.5 else -1.0
        centre = (
            side * float(random.uniform(35.0, 75.0)),
            float(random.uniform(-25.0, 30.0)),
            float(random.uniform(-30.0, 60.0)),
        )
        radius = float(random.uniform(14.0, 30.0))
        axes = (radius * float(random.uniform(0.8, 1.25)), radius, radius * float(random.uniform(0.8, 1.25)))
        return ellipsoid(points, centre, axes) & grown(lungs["Lung_L"] | lungs["Lung_R"], 12.0, self.grid)
