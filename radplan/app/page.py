"""The page of the app: fields for what is asked, plans and their views; it looks at the session and keeps nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import panel as pn

from radplan.app.goals import GoalRows
from radplan.app.session import Session, machine_kind
from radplan.app.views import SliceView, metrics_html
from radplan.errors import InputError, RadplanError
from radplan.machines import MACHINES
from radplan.report.curves import DASHES, dvh_figure
from radplan.report.volume import anatomy_data, slice_data

POLL = 400
"""Milliseconds between looks at the session."""

_LIVE = "planning now"
_TECHNIQUES = ["fluence", "step_and_shoot", "sliding_window", "vmat"]
_TABLE_STYLE = """
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.85rem; }
th, td { padding: 2px 10px 2px 0; border-bottom: 1px solid #d5dbe1; text-align: right; }
th:first-child, td:first-child { text-align: left; }
"""


class Page:
    """One browser's view of a session.

    Parameters
    ----------
    session : Session
        What is shown.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._seen = -1
        self._case = ""
        self._drawn: tuple[Any, ...] = ()
        self._names: list[str] = []
        self._make_case()
        self._make_plan()
        self._make_views()
        self._make_sliders()
        self._make_export()
        self.refresh()

    def layout(self) -> Any:
        """Return the page as a Panel object."""
        left = pn.Column(
            pn.pane.Markdown("## radplan\nResearch software, not for clinical use.", margin=(0, 5)),
            self.case, self.open_button, self.upload,
            pn.layout.Divider(margin=0),
            self.machine, self.technique, self.gantry, self.couch,
            pn.Row(self.bixel_width, self.grid, margin=0), pn.Row(self.fractions, self.prescription, margin=0),
            pn.layout.Divider(margin=0),
            self.name, pn.Row(self.plan_button, self.stop_button, margin=0), self.bar, self.status, self.error,
            width=330, styles={"background": "#f4f6f8", "padding": "8px"},
        )  # fmt: skip
        right = pn.Tabs(
            ("Plan", pn.Column(self.chosen, self.slices, self.dvh, self.metrics, sizing_mode="stretch_width")),
            ("Goals", pn.Column(self.goals.layout, sizing_mode="stretch_width")),
            ("Sliders", pn.Column(
                self.prepare_button, self.slider_box, self.slider_dvh, self.slider_metrics, sizing_mode="stretch_width"
            )),
            ("Export", pn.Column(self.kinds, self.export_button, self.exported, sizing_mode="stretch_width")),
            sizing_mode="stretch_width", dynamic=False,
        )  # fmt: skip
        return pn.Row(left, right, sizing_mode="stretch_width")

    def refresh(self) -> None:
        """Show what is new in the session."""
        work = self.session.work
        if work.version == self._seen:
            return
        self._seen = work.version
        self.bar.visible = work.busy
        self.bar.value = -1 if work.share is None else int(100 * work.share)
        self.status.object = work.step if work.busy else ""
        self.error.object, self.error.visible = work.error, bool(work.error)
        self.plan_button.disabled = work.busy or self.session.patient is None
        self.stop_button.disabled = not work.busy
        self.prepare_button.disabled = work.busy or not self.session.plans
        if self.session.case != self._case and not work.busy:
            self._case = self.session.case
            self._fill()
        self._list_plans()
        self._draw()

    def _make_case(self) -> None:
        self.case = pn.widgets.Select(name="Case", options=self.session.workspace.cases(), width=300)
        self.open_button = pn.widgets.Button(name="Open", button_type="primary", width=300)
        self.upload = pn.widgets.FileInput(accept=".mat,.yaml,.yml,.json", multiple=False, width=300)
        self.open_button.on_click(self._guarded(lambda: self.session.open(self.case.value)))
        self.upload.param.watch(lambda event: self._guarded(self._received)(event), "value")

    def _make_plan(self) -> None:
        self.machine = pn.widgets.Select(name="Machine", options=list(MACHINES), width=300)
        self.technique = pn.widgets.Select(name="Technique", options=_TECHNIQUES, width=300)
        self.gantry = pn.widgets.TextInput(name="Gantry angles [°]", width=300)
        self.couch = pn.widgets.TextInput(name="Couch angle(s) [°]", value="0", width=300)
        self.bixel_width = pn.widgets.FloatInput(name="Bixel or spot [mm]", value=5.0, start=1.0, end=50.0, width=140)
        self.grid = pn.widgets.FloatInput(name="Dose grid [mm]", value=5.0, start=1.0, end=30.0, width=140)
        self.fractions = pn.widgets.IntInput(name="Fractions", value=30, start=1, end=100, width=140)
        self.prescription = pn.widgets.FloatInput(name="Prescription [Gy]", value=60.0, start=0.1, end=200.0, width=140)
        self.name = pn.widgets.TextInput(name="Name of the plan", value="plan 1", width=300)
        self.plan_button = pn.widgets.Button(name="Plan", button_type="success", width=140, disabled=True)
        self.stop_button = pn.widgets.Button(name="Stop, keep best", width=140, disabled=True)
        self.bar = pn.indicators.Progress(value=-1, max=100, width=300, visible=False)
        self.status = pn.pane.Str("", width=300)
        self.error = pn.pane.Alert(
            "", alert_type="danger", width=290, visible=False, styles={"overflow-wrap": "anywhere"}
        )
        self.goals = GoalRows()
        self.plan_button.on_click(self._guarded(self._start))
        self.stop_button.on_click(lambda event: self.session.stop())
        self.machine.param.watch(lambda event: self._machine_chosen(), "value")

    def _make_views(self) -> None:
        self.chosen = pn.widgets.MultiChoice(name="Plans shown, the first in the planes", options=[], value=[])
        self.chosen.param.watch(lambda event: self._draw(), "value")
        self.slices = SliceView(sizing_mode="stretch_width", min_height=420, margin=(0, 12, 0, 0))
        self.dvh = pn.pane.Bokeh(sizing_mode="stretch_width", min_height=470)
        self.metrics = pn.pane.HTML("", stylesheets=[_TABLE_STYLE], sizing_mode="stretch_width")

    def _make_sliders(self) -> None:
        self.prepare_button = pn.widgets.Button(name="Prepare sliders for the plan shown", width=300, disabled=True)
        self.prepare_button.on_click(self._guarded(lambda: self.session.prepare_sliders(self._first())))
        self.slider_box = pn.Column(sizing_mode="stretch_width")
        self.slider_dvh = pn.pane.Bokeh(sizing_mode="stretch_width", min_height=470)
        self.slider_metrics = pn.pane.HTML("", stylesheets=[_TABLE_STYLE], sizing_mode="stretch_width")
        self.steered_name = pn.widgets.TextInput(name="Name of the steered plan", value="steered 1", width=300)
        self.keep_button = pn.widgets.Button(name="Keep this plan", width=300)
        self.keep_button.on_click(self._guarded(self._keep))
        self._front = ""
        self._steered: Any = None

    def _make_export(self) -> None:
        kinds = {"report": "report", "matRad (.mat)": "matrad", "DICOM that names nobody": "dicom", "images": "images"}
        self.kinds = pn.widgets.CheckBoxGroup(name="What", options=kinds, value=["report"])
        self.export_button = pn.widgets.Button(name="Write into the folder of the plan shown", width=300)
        self.export_button.on_click(self._guarded(self._export))
        self.exported = pn.pane.Str("")

    def _guarded(self, act: Callable[[], Any]) -> Callable[[Any], None]:
        """Return a handler that tells what is refused instead of failing."""

        def handler(event: Any) -> None:
            try:
                act()
            except RadplanError as reason:
                self.error.object, self.error.visible = " ".join(str(reason).split()), True
            else:
                self.refresh()

        return handler

    def _received(self) -> None:
        if not self.upload.value:
            return
        path = self.session.workspace.receive(str(self.upload.filename), self.upload.value)
        if path.suffix.lower() == ".mat":
            self.case.options = self.session.workspace.cases()
            self.case.value = path.name
        else:
            self.session.use_plan_file(path.name)
            self._fill()

    def _fill(self) -> None:
        """Show what the session asks for in the fields."""
        spec, patient = self.session.spec, self.session.patient
        if patient is None:
            return
        self.machine.value = spec.machine or next(iter(MACHINES))
        self.technique.value = spec.delivery.technique
        self.gantry.value = ", ".join(f"{angle:g}" for angle in spec.beams.gantry)
        self.couch.value = ", ".join(f"{angle:g}" for angle in _several(spec.beams.couch))
        self.bixel_width.value = float(spec.beams.spot_spacing or spec.beams.bixel_width)
        if isinstance(spec.engine.grid, int | float):
            self.grid.value = float(spec.engine.grid)
        self.fractions.value = spec.fractions or patient.fractions or 30
        self.prescription.value = float(spec.prescription or patient.prescription or 60.0)
        names = [*patient.structures, *spec.structures]
        self.goals.fill(names, [goal.model_dump(exclude_none=True) for goal in spec.goals])

    def _machine_chosen(self) -> None:
        photons = machine_kind(str(self.machine.value)) == "photons"
        self.technique.disabled = not photons
        if not photons:
            self.technique.value = "fluence"

    def _start(self) -> None:
        self.session.ask(self.asked())
        self.session.start(str(self.name.value).strip())

    def asked(self) -> dict[str, Any]:
        """Return what the fields ask for, as keys of a plan file.

        Raises
        ------
        InputError
            When angles are no numbers.
        """
        couch = _angles(self.couch.value, "couch")
        level = float(self.prescription.value)
        normalize = self.session.spec.normalize
        return {
            "machine": self.machine.value,
            "fractions": int(self.fractions.value),
            "prescription": level,
            "beams": {
                "gantry": _angles(self.gantry.value, "gantry"),
                "couch": couch[0] if len(couch) == 1 else couch,
                self._width_key(): float(self.bixel_width.value),
            },
            "engine": {"grid": float(self.grid.value)},
            "delivery": {"technique": self.technique.value},
            "goals": self.goals.specs(),
            "normalize": {"structure": normalize.structure, "metric": "D95", "level": level} if normalize else None,
        }

    def _width_key(self) -> str:
        return "bixel_width" if self.session.spec.beams.spot_spacing is None else "spot_spacing"

    def _list_plans(self) -> None:
        names = list(self.session.plans)
        if names != self._names:
            new = [name for name in names if name not in self._names]
            self._names = names
            kept = [name for name in self.chosen.value if name in names]
            self.chosen.options = names
            self.chosen.value = [*new[-1:], *kept][: len(DASHES)]
            self.name.value = f"plan {len(names) + 1}"

    def _first(self) -> str:
        if not self.chosen.value:
            raise InputError("choose a plan to show first")
        return str(self.chosen.value[0])

    def _draw(self) -> None:
        """Draw planes, DVHs and metrics of the plans chosen, and of the one that is being searched for."""
        shown = {name: self.session.plans[name].plan for name in self.chosen.value if name in self.session.plans}
        interim = self.session.interim
        wanted = (*map(id, shown.values()), id(interim), id(self.session.patient))
        self._draw_sliders()
        if wanted == self._drawn:
            return
        self._drawn = wanted
        curves = ({_LIVE: interim} if interim is not None else {}) | shown
        curves = dict(list(curves.items())[: len(DASHES)])
        if not curves:
            patient = self.session.patient
            self.dvh.object, self.metrics.object = (
                None,
                "" if patient is None else "No plan yet: look at the goals, press Plan.",
            )
            self.slices.data = {} if patient is None else anatomy_data(patient)
            return
        alone = len(curves) == 1 and interim is None
        self.dvh.object = dvh_figure(next(iter(curves.values())) if alone else curves)
        self.metrics.object = metrics_html(curves)
        if shown and interim is None:
            self.slices.data = slice_data(next(iter(shown.values())))

    def _draw_sliders(self) -> None:
        """Lay out a slider for each goal of the front of the plan shown."""
        name = str(self.chosen.value[0]) if self.chosen.value else ""
        if name not in self.session.fronts or self._front == name:
            return
        self._front = name
        front = self.session.fronts[name]
        self.organ_sliders = {}
        for column, label in enumerate(front.labels):
            low, high = float(front.values[:, column].min()), float(front.values[:, column].max())
            start = float(front.values[len(front) // 2, column])
            slider = pn.widgets.FloatSlider(
                name=f"at most: {label}", start=low, end=max(high, low + 1e-9), value=start,
                step=max(high - low, 1e-9) / 100, width=420,
            )  # fmt: skip
            slider.param.watch(self._guarded(self._steer), "value_throttled")
            self.organ_sliders[label] = slider
        self.slider_box[:] = [*self.organ_sliders.values(), self.steered_name, self.keep_button]
        self._steer()

    def _steer(self) -> None:
        wishes = {label: float(slider.value) for label, slider in self.organ_sliders.items()}
        self._steered = self.session.steer(self._front, wishes)
        beside = {"steered": self._steered, self._front: self.session.plans[self._front].plan}
        self.slider_dvh.object, self.slider_metrics.object = dvh_figure(beside), metrics_html(beside)

    def _keep(self) -> None:
        if self._steered is None:
            raise InputError("prepare the sliders first")
        self.session.keep(str(self.steered_name.value).strip(), self._steered, self._front)

    def _export(self) -> None:
        name = self._first()
        paths = self.session.export(name, tuple(self.kinds.value))
        root = self.session.workspace.root
        self.exported.object = "\n".join(str(path.relative_to(root)) for path in paths[:12]) + (
            f"\nand {len(paths) - 12} more" if len(paths) > 12 else ""
        )


def _several(given: Any) -> tuple[float, ...]:
    return tuple(given) if isinstance(given, tuple | list) else (float(given),)


def _angles(text: Any, what: str) -> list[float]:
    try:
        angles = [float(word) for word in str(text).replace(",", " ").split()]
    except ValueError:
        raise InputError(f"{what} angles are numbers such as 0, 72, 144, got {text!r}") from None
    if not angles:
        raise InputError(f"name at least one {what} angle")
    return angles
