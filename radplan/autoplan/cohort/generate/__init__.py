"""Anatomy generators: seeded patients of a site, with CT and contours."""

from __future__ import annotations

from radplan.autoplan.cohort.generate.base import GENERATORS, Anatomy, AnatomyGenerator, draw
from radplan.autoplan.cohort.generate.pelvis import Pelvis
from radplan.autoplan.cohort.generate.thorax import Thorax

__all__ = ["GENERATORS", "Anatomy", "AnatomyGenerator", "Pelvis", "Thorax", "draw"]
