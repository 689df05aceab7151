"""What a cheap stage computes, as a digest of its code: a change of that runs the stage again."""

import ast
import contextlib
import hashlib
import sys
from pathlib import Path

from imprint.artifacts import read_json, write_json
from imprint.errors import ImprintError
from imprint.recipe import LIBRARY

BLOCKS = ("body", "orelse", "finalbody", "handlers", "cases")
"""Where statements hold further ones."""

Meaning = tuple[str, list[str]]
"""A digest of what a module computes, and which modules of imprint it imports."""


class Fingerprints:
    """Digests of what the module of a stage and every module it imports here compute.

    Comments, docstrings and layout of modules are left out: they change no result. The data files
    of a package among them count as they are.
    """

    def __init__(self, memory: Path, library: Path = LIBRARY) -> None:
        """Look into the memory, and nowhere else yet.

        Args:
            memory: A file that keeps the meaning of each text: to work out those of 75 modules
                takes 0.35 s, to hash their texts 0.01 s. It may be lost, and need not be writable.
            library: The folder of imprint.
        """
        self.memory, self.library = memory, library
        # Another Python has another grammar, another version of this module another meaning.
        self._maker = f"{sys.version_info[:2]} {_sha256(Path(__file__).read_text('utf-8'))}"
        self._meanings: dict[str, Meaning] = {}
        with contextlib.suppress(ImprintError, OSError, LookupError, TypeError, ValueError):
            kept = read_json(memory)
            if kept["maker"] == self._maker:
                self._meanings = {
                    text: (str(digest), [*map(str, imported)])
                    for text, (digest, imported) in dict(kept["meanings"]).items()
                }

    def code(self, stage: str) -> str:
        """Return the digest of ``stage``, 12 hexadecimal digits."""
        known = len(self._meanings)
        waiting, parts = [f"imprint.stages.{stage}"], dict[str, str]()
        seen: set[str] = set()
        while waiting:
            name = waiting.pop()
            path = self._file(name)
            if name in seen or path is None:
                continue
            seen.add(name)
            parts[name], imported = self._meaning(path.read_text(encoding="utf-8"))
            waiting.extend(imported)
            if path.name == "__init__.py":  # wordings that its modules read
                for data in sorted(path.parent.rglob("*.yaml")):
                    text = data.read_text(encoding="utf-8")
                    parts[f"{name}/{data.relative_to(path.parent)}"] = _sha256(text)
        if len(self._meanings) > known:
            self._remember()
        return _sha256("".join(f"{name}\n{parts[name]}\n" for name in sorted(parts)))[:12]

    def _file(self, name: str) -> Path | None:
        path = self.library.joinpath(*name.split(".")[1:])
        for candidate in (path.with_suffix(".py"), path / "__init__.py"):
            if candidate.is_file():
                return candidate
        return None

    def _meaning(self, text: str) -> Meaning:
        key = _sha256(text)
        if key not in self._meanings:
            self._meanings[key] = meaning(text)
        return self._meanings[key]

    def _remember(self) -> None:
        with contextlib.suppress(ImprintError, OSError):  # or the next start works them out again
            write_json(self.memory, {"maker": self._maker, "meanings": self._meanings})


def meaning(text: str) -> Meaning:
    """Return what the module with this ``text`` computes, and what it imports.

    Example:
        >>> meaning("x = 1  # why") == meaning("x = (1)"), meaning("import imprint.pace")[1]
        (True, ['imprint.pace'])
    """
    tree = ast.parse(text)
    imported: list[str] = []
    waiting: list[ast.AST] = [tree]
    while waiting:  # statements alone: to walk through expressions takes six times as long
        node = waiting.pop()
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(body := getattr(node, "body", None), list):
            node.body = [line for line in body if not _remark(line)]  # type: ignore[attr-defined]
        for part in BLOCKS:
            waiting += getattr(node, part, ())
    return _sha256(ast.dump(tree)), [name for name in imported if name.startswith("imprint.")]


def _remark(line: ast.stmt) -> bool:
    return isinstance(line, ast.Expr) and isinstance(line.value, ast.Constant)


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
