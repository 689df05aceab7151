"""Tokenizers of others: a tokenizer.json as it is, a tiktoken encoding turned into one."""

import re
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from imprint.errors import ArtifactError
from imprint.imports.pickles import MOST_BYTES, Encoding, encoding
from imprint.tokenizer import SPECIAL, Tokenizer, byte_letters

if TYPE_CHECKING:
    import tokenizers

NEXT = "Take the tokenizer of a nanochat model."
SAMPLE = "  Ada's 1234567\t«naïve» Ǆ ﬁ 你好 🙂\u200d\r\n\n\x00def f(x):\n        return x "


def from_json(path: Path) -> Tokenizer:
    """Return the tokenizer in ``path``, in the format of the tokenizers library.

    Raises:
        ArtifactError: It is damaged or too large, lacks a special token, makes special tokens of
            text, or does not give a text back as it was.
    """
    import tokenizers

    try:
        if path.stat().st_size > MOST_BYTES:
            raise ArtifactError(f"{path}: above {MOST_BYTES >> 20} MB. {NEXT}")
        inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except ArtifactError:
        raise
    except Exception as error:  # the library raises a bare Exception
        raise ArtifactError(f"{path}: not a tokenizer ({error}). {NEXT}") from error
    inner.no_truncation()
    inner.no_padding()
    return _sound(inner, path)


def from_pickle(path: Path) -> Tokenizer:
    """Return a tokenizer with the ids of the tiktoken encoding pickled in ``path``.

    65,536 tokens take 2 s.

    Raises:
        ArtifactError: It is damaged or too large, holds code, lacks a special token, or its tokens
            cannot be reached by merging others.
    """
    import tokenizers
    from tokenizers import decoders, models, pre_tokenizers

    given = encoding(path)
    if missing := [number for number in range(256) if bytes([number]) not in given.ranks]:
        raise ArtifactError(f"{path}: has no token for the byte {missing[0]}. {NEXT}")
    if re.search(r"\{\d*,?\d*\}[+?]", given.pattern):  # the two libraries read it differently
        raise ArtifactError(f"{path}: {{}}+ or {{}}? in the pattern is not supported. {NEXT}")
    letters = byte_letters()
    written = {token: "".join(letters[byte] for byte in token) for token in sorted(given.ranks)}
    merges = [(written[left], written[right]) for left, right in _merges(given, path)]
    vocabulary = {written[token]: number for token, number in given.ranks.items()} | given.special
    if len(vocabulary) != len(given.ranks) + len(given.special):
        raise ArtifactError(f"{path}: a special token stands for text as well. {NEXT}")
    try:
        cut = pre_tokenizers.Split(tokenizers.Regex(given.pattern), behavior="isolated")
        inner = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    except Exception as error:  # the library raises a bare Exception
        raise ArtifactError(f"{path}: tokenizers cannot take it ({error}). {NEXT}") from error
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens(
        [
            tokenizers.AddedToken(token, special=True, normalized=False)
            for token in sorted(given.special, key=given.special.__getitem__)
        ]
    )
    return _sound(inner, path)


def _merges(given: Encoding, path: Path) -> list[tuple[bytes, bytes]]:
    """Return the two parts that make each token of several bytes, first merge first.

    A tiktoken encoding does not store them. They are what is left of the token's bytes when all
    merges of lower rank have been made.
    """
    found = []
    for token in sorted(given.ranks, key=given.ranks.__getitem__):
        parts = [token[place : place + 1] for place in range(len(token))]
        rank = given.ranks[token]
        while len(parts) > 2:
            ranks = [given.ranks.get(left + right, rank) for left, right in pairwise(parts)]
            if (lowest := min(ranks)) >= rank:
                raise ArtifactError(f"{path}: no merge gives the token {token!r}. {NEXT}")
            place = ranks.index(lowest)
            parts[place : place + 2] = [parts[place] + parts[place + 1]]
        if len(parts) == 2:
            found.append((parts[0], parts[1]))
    return found


def _sound(inner: "tokenizers.Tokenizer", path: Path) -> Tokenizer:
    added = inner.get_added_tokens_decoder().values()
    special = {token.content for token in added if token.special}
    missing = [token for token in SPECIAL if token not in special]
    if missing:
        raise ArtifactError(f"{path}: has no special token {', '.join(missing)}. {NEXT}")
    if sorted(inner.get_vocab().values()) != list(range(inner.get_vocab_size())):
        raise ArtifactError(f"{path}: the ids are not those from 0 on, each once. {NEXT}")
    tokenizer = Tokenizer(inner)
    for text in (SAMPLE, *SPECIAL):
        ids = tokenizer.encode(text)
        if tokenizer.decode(ids) != text:
            raise ArtifactError(f"{path}: does not give {text!r} back as it was. {NEXT}")
        if not tokenizer.special.isdisjoint(ids):
            raise ArtifactError(f"{path}: makes a special token of the text {text!r}. {NEXT}")
    return tokenizer
