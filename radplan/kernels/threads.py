"""Threads: those of BLAS and those of the compiled kernels share the cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import threadpoolctl


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold BLAS at one thread for the time of a solve or a calculation.

    Why: its pool and that of the compiled products fight for the cores; the small dot products of a solver gain nothing
    from threads, and nothing that an engine multiplies is large enough for them.
    """
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield
