"""Pages and pictures that the site makes of the code: one page for each public name, figures of gallery scripts."""

from __future__ import annotations

import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any

import radplan

EXAMPLES = "examples/public_names.py"
"""A script in cells ``# %% NAME``: an example of each public name whose docstring has none."""


def write_api_pages(docs: Path) -> None:
    """Write ``api/NAME.rst`` for every public name; files that are up to date stay, so that builds stay short."""
    folder = docs / "api"
    folder.mkdir(exist_ok=True)
    cells = example_cells((docs / EXAMPLES).read_text(encoding="utf-8"))
    lines = re.findall(r"^\| `(\w+)` \| (.+?) \|$", (docs / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    wanted = {f"{name}.rst": api_page(name, said, cells.get(name, "")) for name, said in lines}
    names = "\n".join(f"   {name} <api/{name}>" for name, _ in lines)
    wanted["index.rst"] = (
        f":orphan:\n\nPublic names\n============\n\n.. toctree::\n   :maxdepth: 1\n\n{names.replace('api/', '')}\n"
    )
    wanted["plan_file_keys.rst"] = key_page()
    for old in folder.glob("*.rst"):
        if old.name not in wanted:
            old.unlink()
    for file, text in wanted.items():
        path = folder / file
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def api_page(name: str, said: str, example: str) -> str:
    """Return the page of a name: what it is, its signature and docstring, and an example where that has none."""
    value = getattr(radplan, name)
    home = inspect.getmodule(value) if inspect.isclass(value) or inspect.isfunction(value) else None
    kind = "class" if inspect.isclass(value) else "function" if inspect.isfunction(value) else "registry"
    head = f"rp.{name}"
    parts = [head, "=" * len(head), "", f"*{kind}*: {_as_rst(said)}.", ""]
    if kind == "registry":
        parts += [
            f"``rp.{name}`` knows:",
            "",
            *(f"- ``{entry}``: {_first(value.get(entry))}" for entry in value.names()),
            "",
        ]
        parts += _registry(name)
    else:
        assert home is not None
        parts += [f"From ``{home.__name__}``.", "", f".. auto{kind}:: radplan.{name}", ""]
    if example:
        block = "\n".join(f"   {line}".rstrip() for line in example.splitlines())
        parts += [".. rubric:: Example", "", ".. code-block:: python", "", block, ""]
    return "\n".join(parts) + "\n"


def key_page() -> str:
    """Return a page of all keys of a plan file, with kind and default, made of the classes that read it."""
    from radplan.io.plan_file import reading, sections

    parts = ["Keys of a plan file", "===================", "", *_key_table("The file", reading.PlanSpec)]
    for name, model in vars(sections).items():
        if inspect.isclass(model) and issubclass(model, sections.Section) and model is not sections.Section:
            parts += _key_table(name.removesuffix("Spec").lower(), model)
    return "\n".join(parts) + "\n"


def _key_table(title: str, model: Any) -> list[str]:
    said = re.split(r"\n\s*>>>", inspect.getdoc(model) or "")[0].strip()
    lines = [title, "-" * len(title), "", _as_rst(said), "", ".. list-table::", "   :header-rows: 1", ""]
    lines += ["   * - key", "     - kind", "     - default"]
    for key, info in model.model_fields.items():
        default = "required" if info.is_required() else repr(info.get_default(call_default_factory=True))
        lines += [
            f"   * - ``{key}``",
            f"     - {_kind(info.annotation)}",
            f"     - ``{default if len(default) < 60 else '...'}``",
        ]
    return [*lines, ""]


def _kind(annotation: Any) -> str:
    """Return a type in words."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _kind(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(part) for part in inner if part is not type(None))
    if origin is typing.Literal:
        return " or ".join(str(value).lower() if isinstance(value, bool) else str(value) for value in inner)
    if origin is tuple:
        return f"list of {_kind(inner[0])}" if inner[-1] is ... else f"({', '.join(map(_kind, inner))})"
    if origin is dict:
        return f"mapping to {_kind(inner[1])}"
    words = {float: "number", int: "whole number", str: "text", bool: "true or false", typing.Any: "anything"}
    name = words.get(annotation) or getattr(annotation, "__name__", str(annotation))
    return name.removesuffix("Spec").lower() if name.endswith("Spec") else name


def _registry(name: str) -> list[str]:
    """Return what all registries can do: on one page, to which the others lead."""
    if name == "QUANTITIES":
        return [".. autoclass:: radplan.registry.Registry", "   :members:", ""]
    return [".. py:data:: " + f"radplan.{name}", "", "   A :class:`radplan.registry.Registry`.", ""]


def example_cells(text: str) -> dict[str, str]:
    """Return the cells of a script by their names.

    >>> example_cells("# %% a\\nx = 1\\n# %% b\\ny = 2\\n")
    {'a': 'x = 1', 'b': 'y = 2'}
    """
    parts = re.split(r"^# %% (\w+)\n", text, flags=re.MULTILINE)[1:]
    return {name: code.strip() for name, code in zip(parts[::2], parts[1::2], strict=True)}


def figure_scraper(block: Any, block_vars: dict[str, Any], gallery_conf: dict[str, Any]) -> str:
    """Save the figures that a gallery script has made since the last block, wherever they came from."""
    from matplotlib import pyplot
    from matplotlib.figure import Figure
    from sphinx_gallery.scrapers import figure_rst

    space = block_vars["example_globals"]
    drawn = space.setdefault("__saved_figures__", [])
    known = [value for name, value in space.items() if isinstance(value, Figure) and not name.startswith("_")]
    known += [pyplot.figure(number) for number in pyplot.get_fignums()]
    paths = []
    for figure in known:
        if any(figure is other for other in drawn):
            continue
        drawn.append(figure)
        path = next(block_vars["image_path_iterator"])
        figure.savefig(path, dpi=110)
        paths.append(path)
    pyplot.close("all")
    return str(figure_rst(paths, gallery_conf["src_dir"]))


def _first(value: Any) -> str:
    return _as_rst((inspect.getdoc(value) or "").partition("\n")[0])


def _as_rst(text: str) -> str:
    return re.sub(r"(?<!`)`([^`]+)`(?!`)", r"``\1``", text)
