"""Read YAML into pydantic models, with errors that name file, line, key and remedy."""

import datetime
import difflib
import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from imprint.errors import ConfigError

Location = tuple[str | int, ...]
Model = TypeVar("Model", bound=BaseModel)


class Lines(dict[Location, int]):
    """Line of every key and item of a YAML file, counted from 1."""

    def nearest(self, location: Location) -> int:
        """Return the line of ``location``, or of the closest thing around it."""
        while location not in self and location:
            location = location[:-1]
        return self.get(location, 1)


def load(path: Path, *, error: type[ConfigError] = ConfigError) -> tuple[dict[str, Any], Lines]:
    """Return the mapping in ``path`` and the line of each of its parts.

    Raises:
        ConfigError: (or ``error``) The file is missing, is not YAML, repeats a key, or is not a
            mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: no such file. Check the path.") from None
    except (OSError, UnicodeDecodeError) as cause:
        raise error(f"{path}: cannot be read ({cause}). It should be a UTF-8 text file.") from None
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as cause:
        mark = getattr(cause, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else f"{path}"
        problem = getattr(cause, "problem", None) or str(cause).splitlines()[0]
        raise error(
            f"{where}: not valid YAML: {problem}. "
            "Check the indentation, and quote values that hold ':' or '#'."
        ) from None
    if not isinstance(root, yaml.MappingNode):
        raise error(
            f"{path}:1: should be a mapping of keys to values, such as `name: smarternano`."
        )
    lines = Lines()
    _collect(root, (), lines, path, error)
    data = yaml.constructor.SafeConstructor().construct_document(root)
    assert isinstance(data, dict)
    return data, lines


def _collect(
    node: yaml.Node, location: Location, lines: Lines, path: Path, error: type[ConfigError]
) -> None:
    lines.setdefault(location, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen:
                raise error(
                    f"{path}:{line}: {key.value!r} is already set on line {seen[key.value]}. "
                    "Keep one of the two."
                )
            seen[key.value] = line
            lines[(*location, key.value)] = line
            _collect(value, (*location, key.value), lines, path, error)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _collect(value, (*location, index), lines, path, error)


def validated(
    model: type[Model],
    data: dict[str, Any],
    *,
    path: Path,
    lines: Lines | None = None,
    error: type[ConfigError] = ConfigError,
) -> Model:
    """Return ``data`` as a ``model``.

    Args:
        model: The pydantic model that knows what is allowed.
        data: What the file holds.
        path: The file, for messages.
        lines: Line of each part of the file; without it messages name no line.
        error: The error to raise.

    Raises:
        ConfigError: (or ``error``) Something is wrong; every fault is named, one a line.
    """
    try:
        return model.model_validate(data)
    except ValidationError as cause:
        messages = []
        for fault in cause.errors():
            location = tuple(part for part in fault["loc"] if part in _keys(data, fault["loc"]))
            where = f"{path}:{lines.nearest(location)}" if lines else f"{path}"
            messages.append(f"{where}: {dotted(fault['loc'], data)}{_say(fault, model)}")
        raise error("\n".join(messages)) from None


def _keys(data: Any, location: Location) -> list[str | int]:
    """Return the parts of ``location`` that really lead into ``data`` (pydantic adds its own)."""
    found = []
    for part in location:
        if isinstance(data, dict) and part in data:
            data = data[part]
        elif isinstance(data, list) and isinstance(part, int) and part < len(data):
            data = data[part]
        else:
            continue
        found.append(part)
    return found


def dotted(location: Location, data: Any = None) -> str:
    """Return ``location`` as a message begins; an item of ``data`` that has an id goes by it.

    Example:
        >>> dotted(("facts", 0, "expect")), dotted(("facts", 0), {"facts": [{"id": "size"}]})
        ('facts.0.expect: ', 'facts[size]: ')
    """
    said = ""
    for depth, part in enumerate(location, start=1):
        inside = _inside(data, location[:depth])
        name = inside.get("id") if isinstance(part, int) and isinstance(inside, dict) else None
        said += f"[{name}]" if isinstance(name, str) else f".{part}"
    return f"{said.removeprefix('.')}: " if said else ""


def _inside(data: Any, location: Location) -> Any:
    """Return the part of ``data`` that ``location`` leads to."""
    for part in _keys(data, location):
        data = data[part]
    return data


def _say(fault: Any, model: type[BaseModel]) -> str:
    kind, given = fault["type"], fault["input"]
    if kind == "extra_forbidden":
        known = _known_keys(model, fault["loc"][:-1])
        close = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        remedy = f"Did you mean {close[0]!r}?" if close else f"Known here: {', '.join(known)}."
        return f"unknown key. {remedy}"
    if kind == "missing":
        return "missing. Add this key."
    message: str = fault["msg"].removeprefix("Value error, ")
    shown = repr(given) if len(repr(given)) <= 60 else repr(given)[:57] + "..."
    if kind == "value_error":
        return message
    remedy = "Correct the value."
    if kind == "string_type" and isinstance(given, bool):
        remedy = f'Put it in quotes: "{"yes" if given else "no"}".'
    elif kind == "string_type" and isinstance(given, int | float | datetime.date):
        remedy = f'Put it in quotes: "{given}".'
    elif kind == "list_type" and isinstance(given, str | int | float):
        remedy = f"Write {json.dumps([str(given)], ensure_ascii=False)}."
    return f"{message}, got {shown}. {remedy}"


def _known_keys(model: Any, location: Location) -> list[str]:
    for part in location:
        field = getattr(model, "model_fields", {}).get(part) if isinstance(part, str) else None
        if field is not None:
            model = _inner(field.annotation)
    return sorted(getattr(model, "model_fields", {}))


def _inner(annotation: Any) -> Any:
    """Return the pydantic model inside an annotation such as ``list[Fact]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner(argument)
        if found is not None:
            return found
    return None
