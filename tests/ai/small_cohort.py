"""A cohort of a few voxels in the form that `radplan cohort` writes, whose doses are known functions of a factor."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

SHAPE, SPACING = (8, 12, 16), (8.0, 8.0, 8.0)


def small_cohort(folder: Path, patients: int = 3, plans: int = 5, lowest: float = 0.2) -> Path:
    """Write patients whose plans give the rectum, and the body behind the target, a factor times the dose in front."""
    z, y, x = np.meshgrid(*[8.0 * (np.arange(n) - (n - 1) / 2) for n in SHAPE], indexing="ij")
    for number in range(patients):
        draw = np.random.default_rng(number)
        side, back = draw.uniform(-4, 4, 2)
        body = (x / 60) ** 2 + (y / 46) ** 2 <= 1
        r = np.sqrt((x - side) ** 2 + y**2 + z**2)
        target = r <= 16
        rectum = (np.hypot(x - side, y - 28 - back) <= 13) & (np.abs(z) <= 24) & ~target & body
        bladder = (np.hypot(x - side, y + 26) <= 12) & (np.abs(z) <= 24) & ~target & body
        case = folder / "case" / f"{number:06d}"
        case.mkdir(parents=True)
        masks = {"PTV": target, "Rectum": rectum, "Bladder": bladder, "External": body}
        np.savez_compressed(
            case / "patient.npz",
            spacing=SPACING,
            origin=[-60.0, -44.0, -28.0],
            hu=np.where(body, 0, -1000).astype(np.int16),
            gantry=[0.0, 120.0, 240.0],
            **{f"structure_{name}": (8 * mask).astype(np.uint8) for name, mask in masks.items()},
        )
        variants = []
        for plan in range(plans):
            factor = lowest + (1 - lowest) * plan / max(plans - 1, 1)
            dose = 60.0 * np.exp(-np.maximum(r - 16, 0) / 20) * np.where((y > 12) & ~target, factor, 1.0)
            np.savez_compressed(
                case / f"variant_{plan:03d}.npz", dose=np.where(body, dose, 0.0).astype(np.float32), factors=[factor]
            )
            variants.append({"rejected": []})
        variants[-1]["rejected"] = ["too hot"] if plans > 2 else []
        (case / "done.json").write_text(json.dumps({"variants": variants}))
    return folder


def pelvis_folder(folder: Path) -> Path:
    """Write a generated pelvis as a patient's folder of a cohort, on a grid of 8 mm."""
    from radplan.autoplan.cohort.generate import GENERATORS, draw

    patient, _ = draw(GENERATORS.get("pelvis")(spacing=8.0), 21, 7)
    grid = patient.ct.grid
    folder.mkdir(parents=True)
    masks = {f"structure_{n}": (8 * s.mask()).astype(np.uint8) for n, s in patient.structures.items()}
    np.savez_compressed(
        folder / "patient.npz", spacing=grid.spacing, origin=grid.origin, hu=patient.ct.hu.astype(np.int16), **masks
    )
    return folder
