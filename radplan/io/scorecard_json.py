"""PlanScoreCard JSON files, read to and written from the plain data of radplan's own scorecards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radplan.errors import FileError, InputError, UnknownNameError

_METRICS = {
    "DoseAtVolume": "dose_at_volume", "VolumeAtDose": "volume_at_dose", "MinDose": "min_dose", "MaxDose": "max_dose",
    "MeanDose": "mean_dose", "VolumeOfRegret": "volume_of_regret", "ConformationNumber": "conformation_number",
    "HomogeneityIndex": "homogeneity_index", "ConformityIndex": "conformity_index",
    "InhomogeneityIndex": "inhomogeneity_index", "ModifiedGradientIndex": "modified_gradient_index",
    "DoseAtSubVolume": "dose_at_subvolume", "Volume": "volume",
}  # fmt: skip
_LARGEST = 16 * 1024 * 1024
"""Largest file that is taken for a scorecard [byte]."""


def read_json(path: str | Path) -> dict[str, Any]:
    """Return the object that a JSON file holds.

    Raises
    ------
    FileError
        When it cannot be read, is too large, or holds something else.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _LARGEST:
            raise FileError(file, "is larger than 16 MB: this is no scorecard")
        data = json.loads(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise FileError(file, f"cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise FileError(file, f"is no JSON file ({error})") from error
    if not isinstance(data, dict):
        raise FileError(file, "holds no scorecard: an object with 'items' or 'ScoreTemplates' is expected")
    return data


def plan_score_card(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return radplan's form of a PlanScoreCard.

    Parameters
    ----------
    data : mapping
        TemplateName, ScoreTemplates, and where given DosePerFraction [Gy] and NumberOfFractions.

    Raises
    ------
    UnknownNameError
        When a metric type is unknown.
    InputError
        When an item lacks its structure or points.
    """
    fractions, dose = data.get("NumberOfFractions"), data.get("DosePerFraction")
    whole = float(dose) * int(fractions) if dose and fractions else None
    templates = data["ScoreTemplates"]
    if not isinstance(templates, list):
        raise InputError("ScoreTemplates must be a list of criteria")
    return {
        "format": "radplan-scorecard",
        "version": 1,
        "name": str(data.get("TemplateName") or "PlanScoreCard"),
        "site": str(data.get("Site") or ""),
        "prescription_gy": whole,
        "fractions": int(fractions) if fractions else None,
        "items": [_item(template) for template in templates],
    }


def to_plan_score_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """Return a card in radplan's form as a PlanScoreCard."""
    fractions, dose = card.get("fractions"), card.get("prescription_gy")
    return {
        "TemplateName": card.get("name", ""),
        "Site": card.get("site", ""),
        "DosePerFraction": dose / fractions if dose and fractions else None,
        "NumberOfFractions": fractions,
        "ScoreTemplates": [_template(item) for item in card["items"]],
    }


def _item(template: Mapping[str, Any]) -> dict[str, Any]:
    kind = template.get("MetricType")
    if kind not in _METRICS:
        raise UnknownNameError("metric type of a PlanScoreCard", str(kind), _METRICS)
    structure = (template.get("Structure") or {}).get("StructureId")
    points = template.get("ScorePoints") or []
    if not structure or not points:
        raise InputError(f"an item of type {kind} lacks its structure or its score points")
    points = sorted(points, key=lambda point: float(point["PointX"]))
    item = {
        "structure": str(structure),
        "metric": _METRICS[kind],
        "input": template.get("InputValue"),
        "input_unit": _unit(template.get("InputUnit")),
        "output_unit": _unit(template.get("OutputUnit")),
        "rank": int(template.get("Rank") or 0),
        "points": [[float(point["PointX"]), float(point["Score"])] for point in points],
        "labels": [str(point.get("Label") or "") for point in points],
        "comment": str(template.get("MetricComment") or ""),
    }
    options = _options(kind, template)
    if options:
        item["options"] = options
    return item


def _options(kind: str, template: Mapping[str, Any]) -> dict[str, Any]:
    if kind not in ("HomogeneityIndex", "ModifiedGradientIndex"):
        return {}
    options: dict[str, Any] = {}
    if template.get("HI_HiValue") is not None:
        options["high"] = float(template["HI_HiValue"])
    if template.get("HI_LowValue") is not None:
        options["low"] = float(template["HI_LowValue"])
    if kind == "HomogeneityIndex":
        if template.get("HI_Target"):
            options |= {
                "reference": float(template["HI_Target"]),
                "reference_unit": _unit(template.get("HI_TargetUnit")) or "Gy",
            }
    else:
        options["unit"] = _unit(template.get("InputUnit")) or "%"
    return options


def _template(item: Mapping[str, Any]) -> dict[str, Any]:
    names = {ours: theirs for theirs, ours in _METRICS.items()}
    labels = list(item.get("labels") or [])
    labels += [""] * (len(item["points"]) - len(labels))
    written: dict[str, Any] = {
        "Structure": {"StructureId": item["structure"]},
        "MetricType": names[item["metric"]],
        "InputValue": item.get("input"),
        "InputUnit": item.get("input_unit"),
        "OutputUnit": item.get("output_unit"),
        "Rank": item.get("rank", 0),
        "MetricComment": item.get("comment", ""),
        "ScorePoints": [
            {"PointX": x, "Score": y, "Label": label} for (x, y), label in zip(item["points"], labels, strict=True)
        ],
    }
    options = item.get("options") or {}
    if "high" in options:
        written["HI_HiValue"] = options["high"]
    if "low" in options:
        written["HI_LowValue"] = options["low"]
    if options.get("reference") is not None:
        written |= {"HI_Target": options["reference"], "HI_TargetUnit": options.get("reference_unit", "Gy")}
    if "unit" in options:
        written["InputUnit"] = options["unit"]
    return written


def _unit(text: Any) -> str | None:
    known = {"gy": "Gy", "cgy": "cGy", "%": "%", "cc": "cc", "cm3": "cc", "cm³": "cc", "": None, "none": None}
    folded = str(text or "").strip().casefold()
    if folded not in known:
        raise UnknownNameError("unit of a PlanScoreCard", str(text), ("Gy", "cGy", "%", "cc"))
    return known[folded]
