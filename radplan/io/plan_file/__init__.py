"""Plan files: YAML or JSON that states a whole plan."""

from __future__ import annotations

from radplan.io.plan_file.reading import PlanSpec, plan_spec, read_plan_file

__all__ = ["PlanSpec", "plan_spec", "read_plan_file"]
