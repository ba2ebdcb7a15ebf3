"""Plan files: what a plan is asked to be, read from YAML or JSON and checked."""

from __future__ import annotations

from radplan.io.plan_file.reading import EXAMPLE, PlanSpec, plan_spec, read_plan_file

__all__ = ["EXAMPLE", "PlanSpec", "plan_spec", "read_plan_file"]
