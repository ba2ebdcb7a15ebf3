"""Compiled CPU kernels (numba), each behind a function that stands on its own test."""

from __future__ import annotations

from radplan.kernels.forks import guard

guard()
