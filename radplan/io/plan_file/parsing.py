"""Text of a plan file as plain data: YAML as version 1.2 reads it, JSON, and neither beyond what a plan can need."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable
from pathlib import Path
from typing import Any

from radplan.errors import FileError

_LARGEST = {"JSON": 16_000_000, "YAML": 1_000_000}
"""Bytes of the largest file that is read."""

_NODES = {"JSON": 200_000, "YAML": 20_000}
"""Most values that a file may hold, those that it repeats by aliases counted each time."""

_DEPTH = 50
"""Deepest nesting."""

_BOOL = r"true|True|TRUE|false|False|FALSE"
_INT = r"[-+]?[0-9]+"
_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_NULL = r"~|null|Null|NULL|"
_SCALARS = (
    ("bool", _BOOL, "tTfF"), ("int", _INT, "-+0123456789"), ("float", _FLOAT, "-+.0123456789"),
    ("null", _NULL, ("~", "n", "N", "")), ("merge", "<<", "<"),
)  # fmt: skip
"""YAML 1.2's core schema: 5e1 is a number, NO and 12:30 are texts."""


def parse_file(path: Path) -> Any:
    """Return the plain data of a file: ``.json`` is read as JSON, anything else as YAML; None where it is empty.

    Raises
    ------
    FileError
        When it cannot be read, repeats a key, or holds more, or deeper nested, values than a plan can need.
    """
    language = "JSON" if path.suffix.lower() == ".json" else "YAML"
    largest = _LARGEST[language]
    try:
        with path.open("rb") as file:
            content = file.read(largest + 1)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise FileError(path, "no such plan file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise FileError(path, f"cannot be read as text ({error})") from None
    if len(content) > largest:
        raise FileError(path, f"is larger than {largest // 1_000_000} MB: is it a plan file?")
    try:
        return _json(path, text) if language == "JSON" else _yaml(path, text)
    except RecursionError:
        raise FileError(path, f"is nested deeper than {_DEPTH} levels: is it a plan file?") from None
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FileError(path, f"is not {language}: {' '.join(str(error).split())[:200]}") from None


def _json(path: Path, text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        mapping = dict(pairs)
        if len(mapping) < len(pairs):
            twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
            raise FileError(path, f"the key {twice[:80]!r} is written twice")
        return mapping

    def refused(word: str) -> Any:
        raise ValueError(f"{word} is no number of JSON")

    data = json.loads(text, object_pairs_hook=unique, parse_constant=refused) if text.strip() else None
    _count_values(path, data)
    return data


def _count_values(path: Path, data: Any) -> None:
    level = [data]
    total = 0
    for _ in range(_DEPTH):
        total += len(level)
        if total > _NODES["JSON"]:
            raise FileError(path, f"holds more than {_NODES['JSON']} values: is it a plan file?")
        inner = [entry for entry in level if isinstance(entry, dict | list)]
        level = [value for entry in inner for value in (entry.values() if isinstance(entry, dict) else entry)]
        if not level:
            return
    raise FileError(path, f"is nested deeper than {_DEPTH} levels: is it a plan file?")


def _yaml(path: Path, text: str) -> Any:
    import yaml

    class Loader(yaml.SafeLoader):
        """YAML 1.2's scalars; refuses a key that is written twice, where YAML would keep the last."""

        yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}

        composed = depth = 0

        def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
            self.composed, self.depth = self.composed + 1, self.depth + 1
            if self.composed > _NODES["YAML"] or self.depth > _DEPTH:
                raise FileError(
                    path,
                    f"holds more than {_NODES['YAML']} values, or is nested deeper than {_DEPTH} levels: is it a plan "
                    "file?",
                )
            node = super().compose_node(parent, index)
            self.depth -= 1
            return node

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
            seen = set()
            for key_node, _ in node.value:
                key = str(self.construct_object(key_node, deep=True))
                if key in seen:
                    line = key_node.start_mark.line + 1
                    raise FileError(path, f"line {line}: the key {key[:80]!r} is written twice")
                seen.add(key)
            return super().construct_mapping(node, deep)

    for kind, pattern, first in _SCALARS:
        Loader.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"^(?:{pattern})$"), list(first))
    Loader.add_constructor("tag:yaml.org,2002:int", _integer)
    loader = Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _check_size(path, root)
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        raise FileError(path, f"is not YAML: {' '.join(str(error).split())[:300]}") from None
    finally:
        loader.dispose()


def _integer(loader: Any, node: Any) -> int:
    return int(loader.construct_scalar(node))


def _check_size(path: Path, root: Any) -> None:
    """Raise where a document holds too much, each node counted as often as aliases repeat it."""
    sizes: dict[int, int] = {}

    def size(node: Any, depth: int) -> int:
        if depth > _DEPTH:
            raise FileError(path, f"is nested deeper than {_DEPTH} levels, or in itself: is it a plan file?")
        if id(node) not in sizes:
            inner = node.value if isinstance(node.value, list) else []
            parts = [part for entry in inner for part in (entry if isinstance(entry, tuple) else (entry,))]
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in parts)
        if sizes[id(node)] > _NODES["YAML"]:
            raise FileError(path, f"holds more than {_NODES['YAML']} values with its aliases: is it a plan file?")
        return sizes[id(node)]

    size(root, 0)
