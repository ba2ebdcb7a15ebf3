"""Compiled kernels after a fork: where their threads did not come along, an error and no process that hangs."""

from __future__ import annotations

import os
import sys
from typing import Any

from radplan.errors import CalculationError


def guard() -> None:
    """Let kernels raise in processes that are forked after kernels have run on GNU OpenMP threads.

    Why: such threads do not live on in the child. OpenMP ends it at the first parallel loop, and a pool that waits for
    it waits for ever. Other thread layers (tbb, workqueue) outlive a fork, and a process that forks before the first
    calculation has none.
    """
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=_close_kernels)


def _close_kernels() -> None:
    parallel: Any = sys.modules.get("numba.np.ufunc.parallel")
    if parallel is None or not parallel._is_initialized or parallel.threading_layer() != "omp":
        return
    from numba.core.dispatcher import Dispatcher

    kernel: Any
    for name, module in list(sys.modules.items()):
        if name.startswith("radplan."):
            for kernel in [value for value in vars(module).values() if isinstance(value, Dispatcher)]:
                kernel._reset_overloads()
                kernel._compile_for_args = _refuse


def _refuse(*_: Any, **__: Any) -> None:
    raise CalculationError(
        "this process was forked after its parent had calculated, whose threads do not live on here: start workers "
        "with multiprocessing.get_context('spawn') (as joblib and Dask do), or fork before the first calculation"
    )
