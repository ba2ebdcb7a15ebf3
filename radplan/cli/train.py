"""The verb ``radplan train``: a network trained by a specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from radplan.errors import InputError


def command(
    spec: Annotated[
        str, typer.Argument(metavar="SPEC", help="YAML file, or a name such as openkbp-small, pelvis-dvh.")
    ],
    data: Annotated[str, typer.Option(metavar="DIR", help="Folder of OpenKBP's files, a cohort, or reference arcs.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="For checkpoints, log and model; goes on where it stopped.")],
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="Keep the patients' channels here between trainings.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of all chance (default: the specification's).")] = None,
) -> int:
    """Train a network; stop by the specification's budget, resume after an interruption."""
    try:
        from radplan.ai.fitting import fit
    except ImportError as error:
        raise InputError(f"training needs torch and Lightning Fabric ({error}): pip install 'radplan[ai]'") from None
    from radplan.ai.spec import read_spec

    chosen = read_spec(spec)
    model = fit(chosen if seed is None else chosen.model_copy(update={"seed": seed}), data, out, cache, _tell)
    scores = Path(out) / "scores.json"
    if scores.is_file():
        print(_told(json.loads(scores.read_text(encoding="utf-8"))))
    print(f"model in {model.resolve()}")
    return 0


def _tell(line: dict[str, Any]) -> None:
    if line["event"] == "start":
        print(f"{line['parameters']} parameters, {line['samples']} samples, from step {line['step']}")
    elif line["event"] == "pace":
        print(f"{line['seconds_per_step']:.2f} s a step")
    else:
        figures = {k: v for k, v in line.items() if k not in _LOOK}
        chosen = ", ".join(f"{name.replace('_', ' ')} {value:.3f}" for name, value in figures.items())
        print(
            f"step {line['step']:6d}  {100 * line['spent']:3.0f} %  loss {line['loss']:.4f}  chosen by: {chosen}",
            flush=True,
        )


_LOOK = ("event", "step", "spent", "processor_seconds", "seconds", "rate", "loss")
"""Entries of a line of the log that are not figures of the patients kept for choices."""


def _told(result: dict[str, Any]) -> str:
    """Return the test patients' scores as text."""
    head = f"test, n = {result['n']}: "
    if "dose_score" in result:
        return head + f"dose score {result['dose_score']:.3f}, DVH score {result['dvh_score']:.3f} Gy"
    if "figures" in result:
        lines = [head + "over the prescription, by the dose influence of the training"]
        for label, row in result["figures"].items():
            lines.append(f"{label:<10} " + "  ".join(f"{name} {value:.3f}" for name, value in row.items()))
        return "\n".join(lines)
    lines = [head + "planned less predicted, % of the target's mean; pairs of requests followed"]
    for name, row in result["difference_percent"].items():
        pairs = result["monotone_percent"][name]
        lines.append(
            f"{name:<12} mean {row['mean']:6.2f} +- {row['mean_sd']:5.2f}  D1 {row['maximum']:6.2f} +- "
            f"{row['maximum_sd']:5.2f}  {pairs['network']:5.1f} % of {pairs['pairs']} (labels {pairs['labels']:.1f} %)"
        )
    return "\n".join(lines)
