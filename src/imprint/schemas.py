"""Write down what the pydantic models allow: JSON schemas for editors, tables for people."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from imprint.identity import Identity
from imprint.scale import Scale
from imprint.settings import Settings

MODELS: dict[str, type[BaseModel]] = {"config": Settings, "scale": Scale, "identity": Identity}

NOTE = "# Written by `make schemas` from the models in src/imprint: edit those.\n"
START, END = "<!-- written by `make schemas`: edit the models -->\n", "<!-- end -->\n"

TABLES = (
    ("config/config.yaml", Settings, "Settings"),
    ("config/scales/*.yaml", Scale, "Scale"),
    ("config/identities/*.yaml", Identity, "Identity"),
)


def generated(root: Path) -> dict[Path, str]:
    """Return what each generated file should hold, by path.

    Args:
        root: The project's folder.
    """
    page = root / "config" / "README.md"
    before, rest = page.read_text(encoding="utf-8").split(START)
    after = rest.split(END)[1]
    wanted = {
        root / "workflow" / "schemas" / f"{name}.schema.yaml": schema(name) for name in MODELS
    }
    return {**wanted, page: f"{before}{START}{tables()}{END}{after}"}


def schema(name: str) -> str:
    """Return the JSON schema of a kind of file, as YAML.

    Args:
        name: One of ``config``, ``scale`` and ``identity``.
    """
    found = _shape(MODELS[name])
    if name == "config":  # what it leaves out comes from the scale it names
        for part in (found, *found["$defs"].values()):
            part.pop("required", None)
        found["required"] = ["identity"]
    text = yaml.safe_dump(found, sort_keys=False, width=100, allow_unicode=True)
    return NOTE + text


def _shape(model: type[BaseModel]) -> dict[str, Any]:
    shape = model.model_json_schema()
    if model is Identity:  # a rival may be no more than its name
        rivals = shape["properties"]["rivals"]
        rivals["items"] = {"anyOf": [{"type": "string"}, rivals["items"]]}
    return shape


def tables() -> str:
    """Return every setting in Markdown tables: key, type, default, meaning."""
    parts = []
    for file, model, title in TABLES:
        inherited = set(Scale.model_fields) if model is Settings else set()
        rows = "".join(_row(*row) for row in _settings(model, "", inherited, {}))
        more = " Every key of a scale may stand here too." if inherited else ""
        parts.append(
            f"\n## {title}: `{file}`\n\n{_summary(model)}{more}\n\n"
            f"| key | type | default | meaning |\n|---|---|---|---|\n{rows}"
        )
    return "".join(parts) + "\n"


def _summary(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").strip().splitlines()[0]


def _settings(
    model: type[BaseModel], above: str, left_out: set[str], described: dict[type[BaseModel], str]
) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Yield key, field and JSON schema of every setting; those of an inner model follow, once."""
    properties = _shape(model)["properties"]
    for name, field in model.model_fields.items():
        if name in left_out:
            continue
        inner = _inner(field.annotation)
        many = "[]" if inner and inner is not field.annotation else ""
        name = field.alias or name
        shown = properties[name]
        if inner in described:
            shown = {"title": f"the keys of `{described[inner]}`"}
        yield f"{above}{name}", field, shown
        if inner and inner not in described:
            described[inner] = name
            yield from _settings(inner, f"{above}{name}{many}.", set(), described)


def _inner(annotation: Any) -> type[BaseModel] | None:
    """Return the model that is, or is listed in, ``annotation``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner(argument)
        if found:
            return found
    return None


def _row(key: str, field: Any, shape: dict[str, Any]) -> str:
    default = "required" if field.is_required() else f"`{_default(field.default)}`"
    return f"| `{key}` | {_type(shape)} | {default} | {field.description} |\n"


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, list) and value and isinstance(value[0], BaseModel):
        return f"a list of {len(value)}"
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if value == {}:
        return "{}"
    if isinstance(value, list):
        return "[" + ", ".join(str(item) for item in value) + "]"
    return str(value)


def _type(shape: dict[str, Any]) -> str:
    if "enum" in shape:
        return " or ".join(f"`{value}`" for value in shape["enum"])
    if "anyOf" in shape:
        return " or ".join(_type(option) for option in shape["anyOf"])
    if shape.get("type") == "array":
        return f"list of {_type(shape['items'])}"
    if isinstance(inside := shape.get("additionalProperties"), dict):
        return f"mapping to {_type(inside)}"
    return str(shape.get("type") or shape.get("title") or "mapping") + _limits(shape)


def _limits(shape: dict[str, Any]) -> str:
    signs = {
        "minimum": ">=",
        "exclusiveMinimum": ">",
        "maximum": "<=",
        "exclusiveMaximum": "<",
    }
    return "".join(f", {sign} {shape[key]}" for key, sign in signs.items() if key in shape)
