"""The verb ``radplan train``: a dose proposer trained by a specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from radplan.errors import InputError


def command(
    spec: Annotated[str, typer.Argument(metavar="SPEC", help="YAML file, or openkbp-small, openkbp-full.")],
    data: Annotated[str, typer.Option(metavar="DIR", help="Folder that the specification's patients lie below.")],
    out: Annotated[str, typer.Option(metavar="DIR", help="For checkpoints, log and model; goes on where it stopped.")],
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="Keep the patients' channels here between trainings.")
    ] = None,
) -> int:
    """Train a dose proposer; stop by the specification's budget, resume after an interruption."""
    try:
        from radplan.ai.fit import fit_proposer
    except ImportError as error:
        raise InputError(f"training needs torch and Lightning Fabric ({error}): pip install 'radplan[ai]'") from None
    from radplan.ai.spec import read_spec

    model = fit_proposer(read_spec(spec), data, out, cache, _tell)
    scores = Path(out) / "scores.json"
    if scores.is_file():
        result = json.loads(scores.read_text(encoding="utf-8"))
        print(f"test, n = {result['n']}: dose score {result['dose_score']:.3f}, DVH score {result['dvh_score']:.3f} Gy")
    print(f"model in {model.resolve()}")
    return 0


def _tell(line: dict[str, Any]) -> None:
    if line["event"] == "start":
        print(f"{line['parameters']} parameters, {line['patients']} patients, from step {line['step']}")
    elif line["event"] == "pace":
        print(f"{line['seconds_per_step']:.2f} s a step")
    else:
        print(
            f"step {line['step']:6d}  {100 * line['spent']:3.0f} %  loss {line['loss']:.4f}  "
            f"chosen by: dose {line['dose_score']:.3f}, DVH {line['dvh_score']:.3f} Gy",
            flush=True,
        )
