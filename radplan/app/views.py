"""Views of plans as Panel components: for the app, and as widgets in a notebook.

>>> slice_view(plan)  # doctest: +SKIP
>>> dvh_view({"mine": plan, "other": other})  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import panel as pn
import param
from panel.custom import JSComponent

from radplan.plan import Plan
from radplan.report.curves import dvh_figure
from radplan.report.volume import slice_data

_RENDER = """
export async function render({ model, el }) {
  const root = document.createElement("div");
  el.appendChild(root);
  const show = async () => {
    if (!model.data || !model.data.ct) { root.textContent = ""; return; }
    root.radplan = await showSlices(root, model.data);
    model.shown = (model.shown || 0) + 1;
  };
  model.on("data", show);
  await show();
}
"""


class SliceView(JSComponent):  # type: ignore[misc]
    """Three linked planes of a plan with sliders: CT, structures, isodoses; cut in the browser.

    Parameters
    ----------
    data : dict
        As `radplan.report.volume.slice_data` gives it; empty shows nothing.
    shown : int
        How often the browser has shown something.
    """

    data = param.Dict(default={})
    shown = param.Integer(default=0)

    _esm = files("radplan.report").joinpath("slices.js").read_text(encoding="utf-8") + _RENDER
    _stylesheets = [files("radplan.report").joinpath("page.css").read_text(encoding="utf-8")]


def slice_view(plan: Plan, quantities: Sequence[str] | None = None) -> SliceView:
    """Return three linked planes of a plan, as a widget."""
    return SliceView(data=slice_data(plan, quantities), sizing_mode="stretch_width", min_height=420)


def dvh_view(plans: Plan | Mapping[str, Plan], quantity: str | None = None) -> Any:
    """Return DVHs of one plan or several, as a widget."""
    return pn.pane.Bokeh(dvh_figure(plans, quantity), sizing_mode="stretch_width", min_height=460)


def metrics_html(plans: Mapping[str, Plan], quantity: str | None = None) -> str:
    """Return the metrics of plans as one HTML table, plans beside each other for every structure."""
    from radplan.tables import html_table

    first = next(iter(plans.values()))
    shown = quantity or first.prescribed
    tables = {label: plan.metrics(shown) for label, plan in plans.items()}
    heads = list(dict.fromkeys(head for table in tables.values() for row in table.values() for head in row))
    rows = [
        [
            f"{name} · {label}" if len(plans) > 1 else name,
            *(f"{row[head]:.2f}" if head in row else "" for head in heads),
        ]
        for name in first.patient.structures
        for label, table in tables.items()
        if (row := table.get(name)) is not None
    ]
    return html_table([f"{first.title(shown)} [{first.unit(shown)}]", *heads], rows)
