"""Clocks pyRadPlan's SciPy search: processor time and best cost after each iteration, for the peer's scripts."""

from __future__ import annotations

import time

import pyRadPlan.optimization.solvers._scipy_solver as scipy_solver


def clock_iterations(problems: list) -> list[tuple[float, int, float]]:
    """Return a list that fills, during the next search, with processor seconds, evaluations and the best cost so far.

    `problems` is a list whose first member is the planning problem by the time the search runs.
    """
    clocks: list[tuple[float, int, float]] = []
    minimise = scipy_solver.minimize

    def clocked(*args, **options):
        told, begun = options.get("callback"), time.process_time()

        def after_iteration(x, *rest, **more):
            problem = problems[0]
            spent = time.process_time() - begun
            clocks.append((spent, len(problem._obj_times), float(min(problem.obj_history))))
            return told(x, *rest, **more) if told is not None else None

        return minimise(*args, **(options | {"callback": after_iteration}))

    scipy_solver.minimize = clocked
    return clocks
