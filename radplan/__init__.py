"""radplan: open radiotherapy treatment planning, from a patient to an optimised plan.

A plan in six lines, with names resolved when they are first used so that the import stays light::

    import radplan as rp

    patient = rp.load_patient("tg119")
    machine = rp.load_machine("generic_photon_6mv")
    beams = rp.place_beams(patient, machine, gantry=range(0, 360, 40), bixel_width=5.0)
    dij = rp.dose_influence(patient, beams, machine, grid=5.0)
    plan = rp.optimize(dij, [rp.Goal("OuterTarget", rp.SquaredDeviation(50.0))], patient, fractions=30)
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "CT": "radplan.patient",
    "Patient": "radplan.patient",
    "Structure": "radplan.patient",
    "Structures": "radplan.patient",
    "Grid": "radplan.geometry",
    "Beams": "radplan.beams",
    "place_beams": "radplan.beams",
    "Dij": "radplan.influence",
    "Scenarios": "radplan.influence",
    "Variables": "radplan.influence",
    "ForwardModel": "radplan.influence",
    "LinearOperator": "radplan.operators",
    "ParticleMachine": "radplan.machines",
    "PhotonMachine": "radplan.machines",
    "ENGINES": "radplan.engines",
    "Engine": "radplan.engines",
    "dose_influence": "radplan.engines",
    "QUANTITIES": "radplan.quantities",
    "Quantity": "radplan.quantities",
    "QuantityResolver": "radplan.quantities",
    "LETxDose": "radplan.quantities",
    "OBJECTIVES": "radplan.optim",
    "SOLVERS": "radplan.optim",
    "ArcOptions": "radplan.delivery.arcs",
    "plan_arcs": "radplan.delivery.arcs",
    "refine_apertures": "radplan.delivery.refine",
    "resequence": "radplan.plan.resequence",
    "SquaredDeviation": "radplan.optim.objectives",
    "SquaredOverdosing": "radplan.optim.objectives",
    "SquaredUnderdosing": "radplan.optim.objectives",
    "Mean": "radplan.optim.objectives",
    "EUD": "radplan.optim.objectives",
    "MaxDVH": "radplan.optim.objectives",
    "MinDVH": "radplan.optim.objectives",
    "DoseMimicking": "radplan.optim.objectives",
    "Constraint": "radplan.optim",
    "Goal": "radplan.optim",
    "Objective": "radplan.optim",
    "Problem": "radplan.optim",
    "Solver": "radplan.optim",
    "Plan": "radplan.plan",
    "evaluate": "radplan.plan",
    "optimize": "radplan.plan",
    "pareto": "radplan.plan.pareto",
    "priorities": "radplan.plan.priorities",
    "select_beams": "radplan.plan.angles",
    "sum_eqd2": "radplan.plan.courses",
    "MachineLimits": "radplan.machines",
    "check_delivery": "radplan.delivery.check",
    "export_ion_plan": "radplan.io.dicom",
    "export_rtplan": "radplan.io.dicom",
    "read_ion_plan": "radplan.io.dicom",
    "scanned_plan": "radplan.beams.scanned",
    "sequence": "radplan.delivery.sequencing",
    "Recalculation": "radplan.recalc",
    "IonRecalculation": "radplan.recalc",
    "recalculate": "radplan.recalc",
    "recalculate_ions": "radplan.recalc",
    "save_ion_recalculation": "radplan.recalc",
    "save_recalculation": "radplan.recalc",
    "particle_machine_from_beam_model": "radplan.commissioning.protons",
    "commission_photons": "radplan.workflows.commissioning",
    "verify": "radplan.workflows.verification",
    "verify_protons": "radplan.workflows.verification",
    "load_machine": "radplan.io",
    "load_patient": "radplan.io",
    "load_plan": "radplan.workflows.reopening",
    "save_plan": "radplan.io.save",
    "draw_beams_eye_view": "radplan.viz.beams_eye_view",
    "draw_dvh": "radplan.viz.dvh",
    "draw_slices": "radplan.viz.slices",
    "gamma": "radplan.plan.compared",
    "save_figures": "radplan.viz",
    "save_report": "radplan.report.document",
    "Protocol": "radplan.autoplan.protocol",
    "Scorecard": "radplan.autoplan.scorecard",
    "auto_plan": "radplan.autoplan.planner",
    "plan_from_dose": "radplan.autoplan.mimic",
    "RadplanError": "radplan.errors",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    """Import a public name from its home on first use."""
    if name not in _HOME:
        raise AttributeError(f"radplan has no public name {name!r}; it offers: {', '.join(__all__)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
