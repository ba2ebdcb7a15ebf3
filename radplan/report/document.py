"""A plan's report as one file: a page that needs no network, opens in any browser and can be printed."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radplan.errors import FileError, InputError
from radplan.io.staging import NOTICE, staged_file
from radplan.plan import Plan

if TYPE_CHECKING:
    from radplan.autoplan.scorecard import Scorecard
    from radplan.patient import Patient
    from radplan.report.content import Delivery

NEEDED = ("bokeh", "jinja2")
"""What the extra ``report`` installs."""


def save_report(
    plan: Plan,
    path: str | Path,
    scorecard: Scorecard | None = None,
    delivery: Delivery | None = None,
    provenance: Mapping[str, Any] | None = None,
    patient_name: bool = False,
    title: str = "",
    understood: Patient | None = None,
) -> Path:
    """Write one self-contained HTML file about a plan.

    It holds prescription, beams, goals with what came out, the scorecard, dose-volume histograms that one can hover,
    three planes with isodoses and sliders, fluence, spots or apertures, LET and RBE where the plan tells of them, the
    delivery report and where everything came from. Nothing is fetched from a network.

    Parameters
    ----------
    plan : Plan
        What is reported.
    path : path-like
        The file, replaced only when the new one is whole.
    scorecard : Scorecard, optional
        What the plan is judged by.
    delivery : Delivery, optional
        Leaves and the delivery report, as `radplan.report.content.read_delivery` reads them from a plan's folder.
    provenance : mapping, optional
        Where it came from, as ``plan.json`` says; described from the plan itself otherwise.
    patient_name : bool
        Whether the patient and the case are named. They are not, unless asked for.
    title : str
        What stands above it; a line without the patient's name otherwise.
    understood : Patient, optional
        The patient with the names and helper structures of the scorecard, where they are not the plan's own: as
        `radplan.autoplan.protocol.understand` gives it for a protocol's card.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    InputError
        When Bokeh or Jinja2 are not installed.
    FileError
        When the file cannot be written.

    >>> save_report(plan, "report.html")  # doctest: +SKIP
    PosixPath('report.html')
    """
    text = report_page(plan, scorecard, delivery, provenance, patient_name, title, understood)
    path = Path(path)
    if path.is_dir():
        raise FileError(path, "is a folder; --out names the file of the report")
    with staged_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
    return path


def report_page(
    plan: Plan,
    scorecard: Scorecard | None = None,
    delivery: Delivery | None = None,
    provenance: Mapping[str, Any] | None = None,
    patient_name: bool = False,
    title: str = "",
    understood: Patient | None = None,
) -> str:
    """Return the text of the page that `save_report` writes."""
    _check_installed()
    import jinja2
    from bokeh.embed import components

    from radplan.io.describe import describe
    from radplan.report import content
    from radplan.report.curves import dvh_figure
    from radplan.report.delivered import beam_data
    from radplan.report.volume import slice_data

    known = content.Delivery() if delivery is None else delivery
    judged = plan if understood is None else replace(plan, patient=understood)
    told = plan.told()
    scripts, curves = components([dvh_figure(plan, quantity) for quantity in told])
    fields = list(known.fields) or beam_data(plan)
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    text = environment.from_string(_own("page.html")).render(
        title=title or _title(plan, patient_name),
        notice=NOTICE,
        patient=plan.patient.name if patient_name else "",
        prescription=content.prescription_table(plan, known.report.get("limits")),
        beams=known.beams or content.beam_table(plan),
        goals=content.goal_table(plan),
        score=None if scorecard is None else content.score_table(scorecard.score(judged)),
        score_name="" if scorecard is None else scorecard.name,
        metrics=content.metric_tables(plan),
        curves=list(zip([plan.title(quantity) for quantity in told], curves, strict=True)),
        delivery=content.delivery_table(known.report),
        provenance=content.provenance_table(
            describe(plan)["provenance"] if provenance is None else provenance, patient_name
        ),
        fields_title=_fields_title(fields),
        style=_own("page.css"),
        bokeh=_bokeh(),
        scripts=scripts,
        slices=_own("slices.js").replace("export async function", "async function"),
        beams_view=_own("beams.js").replace("export function", "function"),
        slice_json=_json(slice_data(plan, told)),
        fields_json=_json(fields),
    )
    return str(text)


def curve_page(plan: Plan, quantity: str | None = None, structures: Sequence[str] | None = None) -> str:
    """Return a self-contained page with nothing but the dose-volume histograms of a plan.

    Raises
    ------
    InputError
        When Bokeh is not installed.
    """
    _check_installed()
    from bokeh.embed import components

    from radplan.report.curves import dvh_figure

    script, curves = components(dvh_figure(plan, quantity, structures))
    head = f'<meta charset="utf-8"><title>{html.escape(_title(plan, False))}</title>{_bokeh()}'
    return f'<!DOCTYPE html><html lang="en"><head>{head}</head><body>{curves}{script}</body></html>'


def _check_installed() -> None:
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"a report needs {' and '.join(missing)}, not installed: pip install 'radplan[report]'")


def _title(plan: Plan, named: bool) -> str:
    """Return a line that says what plan this is, without whose it is unless that may be said."""
    parts = plan.caption().split(" · ")
    return " · ".join(parts if named else ["Treatment plan", *parts[1:]])


def _fields_title(fields: list[Any]) -> str:
    kinds = {"leaves": "Apertures", "spots": "Spots", "bixels": "Fluence"}
    return kinds[fields[0]["kind"]] if fields else ""


def _bokeh() -> str:
    """Return Bokeh's own script, inline, without what other packages that are loaded add to pages, as Panel does."""
    from bokeh.resources import Resources

    return "\n".join(f"<script>{raw}</script>" for raw in Resources(mode="inline", components=["bokeh"]).js_raw)


def _own(name: str) -> str:
    return files("radplan.report").joinpath(name).read_text(encoding="utf-8")


def _json(data: Any) -> str:
    """Return data as JSON that may stand in a script element of HTML."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
