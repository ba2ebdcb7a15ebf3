"""Compiled CPU kernels (numba), each behind a function that stands on its own test.

Threads that wait for each other sleep instead of spinning, unless ``OMP_WAIT_POLICY`` says otherwise: on a computer
that others use, too, spinning took a quarter of a plan's processor time.
"""

from __future__ import annotations

from os import environ

from radplan.kernels.forks import guard

environ.setdefault("OMP_WAIT_POLICY", "passive")
guard()
