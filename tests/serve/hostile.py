"""Requests that nobody means well, made from the server's own schema and from nothing."""

import json
from typing import Any

from hypothesis import strategies as st

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
TYPES = ("application/json", "text/plain", "multipart/form-data", "application/json; charset=\xff")

ODD: st.SearchStrategy[Any] = st.sampled_from(
    [
        *(None, True, -1, 0, 2**63, -(2**63), 10**40, 1e308, -1e308, 5e-324, 0.1, ""),
        *(
            "\ud800",
            "\udfff\ud800",
            "\x00",
            "<|assistant_end|>",
            "a" * 3000,
            "\u202e🙂\ufffd",
            " " * 3000,
        ),
        *([], {}, [[]], [{}], {"": {}}),
    ]
)
ANYTHING = st.recursive(
    ODD | st.text(max_size=20) | st.integers() | st.floats(allow_nan=True, allow_infinity=True),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _plain(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "$ref" in schema:
        return _plain(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "anyOf" in schema:
        return st.one_of(*(_plain(part, definitions) for part in schema["anyOf"]))
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum") or [schema["const"]])
    kind = schema.get("type")
    if kind == "object":
        required = set(schema.get("required", ()))
        known, optional = {}, {}
        for name, part in schema["properties"].items():
            if name in required:
                known[name] = _plain(part, definitions)
            else:
                plain = _plain(part, definitions)
                optional[name] = plain | plain | plain | ODD
        return st.fixed_dictionaries(known, optional=optional)
    if kind == "array":
        most = schema.get("maxItems", 4)
        return st.lists(_plain(schema["items"], definitions), max_size=most)
    if kind == "integer":
        least = schema.get("minimum", -5)
        return st.integers(least, min(schema.get("maximum", 9), 9))
    if kind == "number":
        return st.floats(schema.get("minimum", 0), schema.get("maximum", 2))
    if kind == "boolean":
        return st.booleans()
    return st.none() if kind == "null" else st.text(max_size=40)


def _mended(value: dict[str, Any], mend: bool) -> dict[str, Any]:
    if mend:
        value.pop("model", None)
        value["messages"] = [*value["messages"], {"role": "user", "content": "Hi"}]
    return value


def bodies(openapi: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Bodies: right ones, nearly right ones, any JSON, JSON with bytes changed, plain bytes."""
    operation = openapi["paths"]["/v1/chat/completions"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    nearly = _plain(schema, openapi["components"]["schemas"])
    right = st.builds(_mended, nearly, st.booleans())
    deep = st.integers(1, 3000).map(lambda depth: b'{"messages":' + b"[" * depth)
    made = (right | ANYTHING).map(lambda value: json.dumps(value).encode())
    broken = st.tuples(made, st.integers(0, 200), st.binary(max_size=3)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + 1 :]
    )
    return made | made | broken | deep | st.binary(max_size=200)


def requests(openapi: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """Whole requests, mostly well-formed as HTTP."""

    def framed(body: bytes, kind: str, how: str) -> bytes:
        head = HEAD + f"Content-Type: {kind}\r\n".encode("latin-1")
        if how == "chunked":
            chunk = f"{len(body):x}\r\n".encode() + body + b"\r\n" if body else b""
            return head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk + b"0\r\n\r\n"
        length = len(body) + {"short": 5, "right": 0}[how]
        return head + f"Content-Length: {length}\r\n\r\n".encode() + body

    kinds = st.sampled_from([TYPES[0]] * 8 + list(TYPES))
    hows = st.sampled_from(["right"] * 6 + ["chunked", "chunked", "short"])
    return st.builds(framed, bodies(openapi), kinds, hows) | st.binary(max_size=100).map(
        lambda rest: HEAD[:-2] + rest + b"\r\n\r\n"
    )
