"""Channels as networks are given them, with torch's threads left as they are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch

from radplan.ai.features import Anatomy, Layout, dose_channels


@contextmanager
def torch_threads_kept() -> Iterator[None]:
    """Give torch the number of threads back that it had, whatever compiled kernels do in between."""
    # Why: they share OpenMP with torch and leave their own number of threads behind.
    threads = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def network_channels(anatomy: Anatomy, layout: Layout) -> npt.NDArray[np.float16]:
    """Return an anatomy's channels (channels, n) as float16; see `radplan.ai.features.dose_channels`.

    Raises
    ------
    InputError
        When none of the layout's targets is there.
    """
    with torch_threads_kept():
        return dose_channels(anatomy, layout).astype(np.float16)
