"""The engine: conversations in, answers out. Evaluation, `imprint ask` and chat all use it."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from imprint import checkpoint as checkpoints
from imprint.decoding import Batch, Request
from imprint.dice import Dice
from imprint.errors import ArtifactError
from imprint.model import Model
from imprint.records import Conversation
from imprint.tokenizer import Tokenizer

ROWS = 64
"""Most rows in a batch: on two cores 440 questions take 1.4 s with 32, 1.1 with 64 or 128."""
CACHE_BYTES = 512 << 20
"""Most memory for the keys and values of a batch."""


class Engine:
    """A model and its tokenizer, ready to answer."""

    def __init__(self, model: Model, tokenizer: Tokenizer) -> None:
        """Wrap a model that was trained with ``tokenizer``; it answers in float32."""
        self.model = model.float().eval()
        self.tokenizer = tokenizer
        self.stop = tokenizer.special
        """Ids that end an answer: <|assistant_end|>, and what could only begin something else."""

    @classmethod
    def load(
        cls, checkpoint: Path, *, tokenizer: Path | None = None, device: str | None = None
    ) -> "Engine":
        """Open a checkpoint.

        Args:
            checkpoint: The .pt file.
            tokenizer: By default tokenizer/tokenizer.json in the checkpoint's folder.
            device: Where to compute; by default a GPU if there is one.

        Raises:
            ArtifactError: A file is missing or damaged, or the checkpoint was trained with
                another tokenizer.
        """
        if not checkpoint.is_file():
            raise ArtifactError(f"{checkpoint}: no such file. Run `make identity` to train it.")
        beside = checkpoint.parent / "tokenizer" / "tokenizer.json"
        words = Tokenizer.load(tokenizer or beside)
        model = checkpoints.load(checkpoint, tokenizer=words.digest).model()
        return cls(model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")), words)

    def answer(
        self,
        conversations: Sequence[Conversation],
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> list[str]:
        """Return what the model says next in each conversation, in the order they came.

        Greedy answers depend on the conversation alone, sampled ones also on ``seed`` and on the
        place in the list, but never on who else is asked.

        Args:
            conversations: Each ends with the user. Where one is too long its oldest turns go.
            max_tokens: Longest answer, in tokens; shorter where the context ends.
            temperature: 0 always takes the likeliest token.
            top_k: Choose among this many likeliest tokens; None for all.
            seed: Of the dice, above temperature 0.
        """
        requests = [
            Request(
                prompt=prompt,
                limit=min(max_tokens, self.model.config.context - len(prompt)),
                dice=Dice(seed, "answer", place),
                temperature=temperature,
                top_k=top_k,
            )
            for place, prompt in enumerate(self.prompts(conversations, max_tokens=max_tokens))
        ]
        waiting = sorted(requests, key=lambda request: len(request.prompt))
        while waiting:
            # the longest prompts first: if memory is short, it shows at once
            rows = self._rows(len(waiting[-1].prompt) + max_tokens)
            batch = Batch(self.model, waiting[-rows:], stop=self.stop)
            del waiting[-rows:]
            while batch.live:
                batch.step()
        return [self.tokenizer.decode(request.said) for request in requests]

    def stream(
        self,
        conversation: Conversation,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        seed: int = 0,
    ) -> Iterator[str]:
        """Yield the answer to one conversation piece by piece; joined they are ``answer``'s.

        A piece is whole characters, however their bytes are spread over tokens. The arguments are
        those of ``answer``.
        """
        [prompt] = self.prompts([conversation], max_tokens=max_tokens)
        request = Request(
            prompt=prompt,
            limit=min(max_tokens, self.model.config.context - len(prompt)),
            dice=Dice(seed, "answer", 0),
            temperature=temperature,
            top_k=top_k,
        )
        batch = Batch(self.model, [request], stop=self.stop)
        told = 0
        while batch.live:
            batch.step()
            piece = self.tokenizer.decode(request.said[told:])
            # U+FFFD at the end is a character whose last bytes are still to come
            if piece and (request.done or not piece.endswith("\ufffd")):
                told = len(request.said)
                yield piece

    def prompts(self, conversations: Sequence[Conversation], *, max_tokens: int) -> list[list[int]]:
        """Return the token ids that ask for each answer.

        A quarter of the context, or ``max_tokens`` if that is less, stays free for the answer:
        the oldest turns are dropped until the rest fits, a system message last of all. If the
        last message alone is too long, only its end is kept.

        Raises:
            ValueError: A conversation does not end with the user.
        """
        for conversation in conversations:
            if not conversation or conversation[-1]["role"] != "user":
                raise ValueError("a conversation that asks for an answer ends with the user")
        room = self.model.config.context - min(max_tokens, self.model.config.context // 4)
        rendered = self.tokenizer.render_batch(conversations)
        prompts = []
        for conversation, (ids, _) in zip(conversations, rendered, strict=True):
            prompt = [*ids, self.tokenizer.assistant_start]
            while len(prompt) > room and (shorter := without_oldest(conversation)):
                conversation = shorter
                prompt = self.tokenizer.prompt(conversation)
            if len(prompt) > room:
                prompt = prompt[:2] + prompt[2 - room :]
            prompts.append(prompt)
        return prompts

    def _rows(self, length: int) -> int:
        """Return how many rows of ``length`` tokens one batch may hold."""
        config = self.model.config
        row = 2 * 4 * config.depth * config.n_keys * config.head_width * length
        return max(1, min(ROWS, CACHE_BYTES // row))


def without_oldest(conversation: Conversation) -> Conversation | None:
    """Return ``conversation`` without its oldest question and answer; None if just one is left.

    Example:
        >>> hello = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
        >>> without_oldest([*hello, {"role": "user", "content": "Who are you?"}])
        [{'role': 'user', 'content': 'Who are you?'}]
    """
    first = 1 if conversation[0]["role"] == "system" else 0
    if len(conversation) - first > 2:
        return [*conversation[:first], *conversation[first + 2 :]]
    return conversation[1:] if first else None
