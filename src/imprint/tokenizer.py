"""Text to token ids and back: byte-level BPE with nanochat's conversation template."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from imprint import artifacts
from imprint.errors import ArtifactError, ConfigError
from imprint.records import Conversation

if TYPE_CHECKING:
    import tokenizers

BOS, USER_START, USER_END = "<|bos|>", "<|user_start|>", "<|user_end|>"
ASSISTANT_START, ASSISTANT_END = "<|assistant_start|>", "<|assistant_end|>"
SPECIAL = (
    BOS,
    USER_START,
    USER_END,
    ASSISTANT_START,
    ASSISTANT_END,
    "<|python_start|>",
    "<|python_end|>",
    "<|output_start|>",
    "<|output_end|>",
)
"""nanochat's special tokens; in a tokenizer of ours they have the last ids, in this order."""

WORDS = (
    r"'(?i:[sdmt]|ll|ve|re)"  # English endings
    r"|[^\r\n\p{L}\p{N}]?\p{L}+"  # a word, with the blank or sign before it
    r"|\p{N}{1,2}"  # at most two digits: a small vocabulary cannot hold all longer numbers
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*"  # punctuation
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"  # line ends and blanks
)
"""What text is cut into before bytes are merged; no token reaches across a cut."""

Rendered = tuple[list[int], list[bool]]
"""Ids of a conversation, and of each whether the model is trained to say it."""


class Tokenizer:
    """Byte-level BPE: every text has ids, and decoding them gives the text back."""

    bos: int
    user_start: int
    user_end: int
    assistant_start: int
    assistant_end: int
    python_start: int
    python_end: int
    output_start: int
    output_end: int

    def __init__(self, inner: "tokenizers.Tokenizer") -> None:
        """Wrap ``inner``, which has all special tokens."""
        inner.encode_special_tokens = True  # in text they are letters like any others
        self._inner = inner
        for token in SPECIAL:
            setattr(self, token.strip("<|>"), inner.token_to_id(token))
        added = inner.get_added_tokens_decoder()
        self.special = frozenset(number for number, token in added.items() if token.special)
        """Ids that no text has."""

    @classmethod
    def train(cls, texts: Iterable[str], *, vocabulary: int) -> "Tokenizer":
        """Learn the merges of ``texts``.

        Args:
            texts: Any plain text; the order does not matter.
            vocabulary: Tokens, special ones included. Fewer come out if the texts are too few.

        Raises:
            ConfigError: ``vocabulary`` cannot hold the 256 bytes and the special tokens.
        """
        import tokenizers
        from tokenizers import decoders, models, pre_tokenizers, trainers

        least = 256 + len(SPECIAL)
        if vocabulary < least:
            raise ConfigError(f"model.vocabulary: {vocabulary} is too few. Use at least {least}.")
        inner = tokenizers.Tokenizer(models.BPE())
        inner.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(tokenizers.Regex(WORDS), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        inner.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary - len(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(texts, trainer)
        inner.add_special_tokens(
            [tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIAL]
        )
        return cls(inner)

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        """Return the tokenizer saved in ``path``.

        Raises:
            ArtifactError: The file is missing, damaged or lacks a special token.
        """
        import tokenizers

        try:
            inner = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise ArtifactError(
                f"{path}: no such file. Run `make identity` to build it."
            ) from error
        except Exception as error:  # the library raises a bare Exception
            raise ArtifactError(
                f"{path}: not a tokenizer ({error}). Delete it and run again."
            ) from error
        missing = [token for token in SPECIAL if inner.token_to_id(token) is None]
        if missing:
            raise ArtifactError(
                f"{path}: has no token {missing[0]}. Use a tokenizer that imprint has trained."
            )
        return cls(inner)

    def save(self, path: Path) -> None:
        """Write the tokenizer to ``path``, in the format of the tokenizers library."""
        with artifacts.written(path) as file:
            file.write(self._inner.to_str(pretty=True))

    @property
    def vocabulary(self) -> int:
        """Tokens, special ones included."""
        return self._inner.get_vocab_size()

    @property
    def digest(self) -> str:
        """The sha256 of everything that decides about ids, as 64 hexadecimal digits."""
        return hashlib.sha256(
            artifacts.canonical(json.loads(self._inner.to_str())).encode()
        ).hexdigest()

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``; never a special one, whatever the text says."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text: many times faster than one by one."""
        encodings = self._inner.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``; special tokens are written out, unknown ids left out."""
        return self._inner.decode(list(ids), skip_special_tokens=False)

    def spelled(self, token: int) -> bytes:
        """Return what ``token`` stands for, which may be a part of a character."""
        written = self._inner.id_to_token(token) or ""
        try:
            return bytes(self._bytes[letter] for letter in written)
        except KeyError:  # a special token, or another that is no merge of bytes
            return written.encode()

    @cached_property
    def _bytes(self) -> dict[str, int]:
        return {letter: byte for byte, letter in enumerate(byte_letters())}

    def render(self, conversation: Conversation) -> Rendered:
        """Return the ids of ``conversation``, and which of them the model is trained to say."""
        return self.render_batch([conversation])[0]

    def render_batch(self, conversations: Iterable[Conversation]) -> list[Rendered]:
        """Render many conversations: 30,000 short ones take about a second.

        A system message goes in front of the first message of the user, as in nanochat. The model
        is trained to say what the assistant said and the token that ends it.
        """
        merged = [merge_system(conversation) for conversation in conversations]
        # Each text once: half of what is said to a model and by it is said many times over.
        texts = list(dict.fromkeys(turn["content"] for turns in merged for turn in turns))
        encoded = dict(zip(texts, self.encode_batch(texts), strict=True))
        rendered = []
        for turns in merged:
            ids, spoken = [self.bos], [False]
            for turn in turns:
                content = encoded[turn["content"]]
                answer = turn["role"] == "assistant"
                first, last = (
                    (self.assistant_start, self.assistant_end)
                    if answer
                    else (self.user_start, self.user_end)
                )
                ids += [first, *content, last]
                spoken.append(False)
                spoken += [answer] * (len(content) + 1)
            rendered.append((ids, spoken))
        return rendered

    def prompt(self, conversation: Conversation) -> list[int]:
        """Return the ids after which the assistant's answer to ``conversation`` comes."""
        return [*self.render(conversation)[0], self.assistant_start]


def byte_letters() -> list[str]:
    """Return the visible character that byte-level BPE writes for each byte."""
    from tokenizers import pre_tokenizers

    alphabet = set(pre_tokenizers.ByteLevel.alphabet())
    spare = iter(range(256, 512))
    return [chr(byte) if chr(byte) in alphabet else chr(next(spare)) for byte in range(256)]


def merge_system(conversation: Conversation) -> Conversation:
    r"""Return ``conversation`` with its system message in front of the user's first.

    Example:
        >>> merge_system([{"role": "system", "content": "A"}, {"role": "user", "content": "B"}])
        [{'role': 'user', 'content': 'A\n\nB'}]
    """
    if not conversation or conversation[0]["role"] != "system":
        return conversation
    if len(conversation) == 1:
        return [{"role": "user", "content": conversation[0]["content"]}]
    text = f"{conversation[0]['content']}\n\n{conversation[1]['content']}"
    return [{"role": "user", "content": text}, *conversation[2:]]
