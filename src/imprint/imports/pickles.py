"""A pickled tiktoken encoding, read without tiktoken and without running anything in it."""

import io
import pickle
import pickletools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imprint.errors import ArtifactError

MOST_BYTES = 64 << 20
"""Of a tokenizer's file; one of 65,536 tokens has 1 MB."""
NEXT = "Take a tokenizer.pkl that nanochat has written."

HARMLESS = frozenset(
    "PROTO FRAME STOP MARK MEMOIZE BINPUT BINGET LONG_BINGET NONE EMPTY_DICT EMPTY_TUPLE "
    "BININT BININT1 BININT2 SHORT_BINUNICODE BINUNICODE SHORT_BINBYTES BINBYTES "
    "SETITEM SETITEMS GLOBAL STACK_GLOBAL NEWOBJ BUILD".split()
)
"""What the pickle of an encoding is made of. Left out is what calls something (REDUCE, INST), and
what lets a small file ask for much memory (LONG_BINPUT) or time (tuples as keys)."""


@dataclass(frozen=True)
class Encoding:
    """What a tiktoken encoding is made of."""

    pattern: str
    """Regular expression that cuts a text into pieces; no token reaches across a cut."""
    ranks: dict[bytes, int]
    """Id of each token; of two merges the one that gives the lower id comes first."""
    special: dict[str, int]
    """Ids of the special tokens."""


def encoding(path: Path) -> Encoding:
    """Return the encoding pickled in ``path``.

    Raises:
        ArtifactError: The file is damaged, too large, not an encoding, or holds anything else.
    """
    content = path.read_bytes() if path.stat().st_size <= MOST_BYTES else b""
    if not content:
        raise ArtifactError(f"{path}: empty, or above {MOST_BYTES >> 20} MB. {NEXT}")
    try:
        for code, _, _ in pickletools.genops(content):
            if code.name not in HARMLESS:
                raise ArtifactError(
                    f"{path}: a pickle of more than an encoding ({code.name}), which imprint does "
                    f"not open. {NEXT}"
                )
        found = _Unpickler(io.BytesIO(content), path).load()
        state = found.state
    except ArtifactError:
        raise
    except Exception as error:  # of a damaged pickle anything can come
        raise ArtifactError(f"{path}: not a pickled encoding ({error}). {NEXT}") from error
    if isinstance(state, str):
        raise ArtifactError(f"{path}: only names the encoding {state!r}, without tokens. {NEXT}")
    try:
        made = Encoding(state["pat_str"], state["mergeable_ranks"], state["special_tokens"])
        plain = isinstance(made.pattern, str) and all(
            isinstance(token, kind) and type(number) is int
            for kind, table in ((bytes, made.ranks), (str, made.special))
            for token, number in table.items()
        )
    except (AttributeError, KeyError, TypeError):
        plain = False
    if not plain:
        raise ArtifactError(f"{path}: an encoding without its parts. {NEXT}")
    return made


class _Inert:
    """Stands in for tiktoken's class: keeps what the pickle says and does nothing."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if (module, name) == ("tiktoken.core", "Encoding"):
            return _Inert
        raise ArtifactError(
            f"{self.path}: a pickle that asks for {module}.{name}, which imprint does not run. "
            f"{NEXT}"
        )
