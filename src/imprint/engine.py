"""The engine: conversations in, answers out. Evaluation, `imprint ask`, chat and server use it."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from imprint import checkpoint as checkpoints
from imprint.decoding import Batch, Request
from imprint.dice import Dice
from imprint.errors import ArtifactError
from imprint.inference import Inference
from imprint.model import Model
from imprint.records import Conversation
from imprint.tokenizer import Tokenizer
from imprint.voice import Voice

TOLERANCE = 16
"""Tokens by which messages may become shorter when they are joined."""


class Prompt(NamedTuple):
    """The tokens that ask for an answer."""

    ids: list[int]
    dropped: int
    """Messages that are left out, because the context is too short for all."""
    cut: bool
    """Whether the beginning of the last message is missing as well."""

    @property
    def missing(self) -> str:
        """What the model does not see, in words for people; "" if it sees everything.

        Example:
            >>> Prompt([5, 6], dropped=2, cut=False).missing
            'The oldest 2 turns no longer fit: the model did not see them.'
        """
        if self.cut:
            return "This question is too long: the model saw only its end."
        if not self.dropped:
            return ""
        turns, them = ("turn", "it") if self.dropped == 1 else ("turns", "them")
        return f"The oldest {self.dropped} {turns} no longer fit: the model did not see {them}."


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

    @cached_property
    def inference(self) -> Inference:
        """The weights as they are now, packed for answering."""
        return Inference(self.model)

    def batch(self) -> Batch:
        """Return an empty batch that requests can join."""
        return Batch(self.inference, stop=self.stop)

    def request(
        self,
        prompt: Prompt,
        *,
        max_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float = 1.0,
        seed: int = 0,
        place: int = 0,
        top_logprobs: int | None = None,
    ) -> Request:
        """Return a request that can join a batch.

        Args:
            prompt: What to answer.
            max_tokens: Longest answer, in tokens; shorter where the context ends.
            temperature: 0 always takes the likeliest token.
            top_k: Choose among this many likeliest tokens; None for all.
            top_p: Choose among the likeliest tokens that together have this probability.
            seed: Of the dice, above temperature 0.
            place: Tells apart answers with the same seed.
            top_logprobs: See ``Request``.
        """
        return Request(
            prompt=prompt.ids,
            limit=min(max_tokens, self.model.config.context - len(prompt.ids)),
            dice=Dice(seed, "answer", place),
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            top_logprobs=top_logprobs,
        )

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
        place in the list, but never on who else is asked. Each conversation ends with the user;
        where one is too long its oldest turns go. The other arguments are those of ``request``.
        """
        requests = [
            self.request(
                prompt,
                max_tokens=max_tokens,
                temperature=temperature,
                top_k=top_k,
                seed=seed,
                place=place,
            )
            for place, prompt in enumerate(self.prompts(conversations, max_tokens=max_tokens))
        ]
        # the longest prompts first: if memory is short, it shows at once
        waiting = sorted(requests, key=lambda request: len(request.prompt))
        batch = self.batch()
        with batch.calm:
            while waiting or batch.live:
                while waiting and batch.join(waiting[-1]):
                    waiting.pop()
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
        note: Callable[[str], None] | None = None,
    ) -> Iterator[str]:
        """Yield the answer to one conversation piece by piece; joined they are ``answer``'s.

        A piece is whole characters, however their bytes are spread over tokens. ``note`` is called
        before the first, with what the model does not see of the conversation, if it is anything.
        The other arguments are those of ``answer``.
        """
        [prompt] = self.prompts([conversation], max_tokens=max_tokens)
        if note and prompt.missing:
            note(prompt.missing)
        request = self.request(
            prompt, max_tokens=max_tokens, temperature=temperature, top_k=top_k, seed=seed
        )
        batch, voice = self.batch(), Voice(request, self.tokenizer)
        batch.join(request)
        while True:
            if piece := voice.piece().text:
                yield piece
            if request.done:
                return
            batch.step()

    def prompts(self, conversations: Sequence[Conversation], *, max_tokens: int) -> list[Prompt]:
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
            prompt, left = [*ids, self.tokenizer.assistant_start], conversation
            if len(prompt) > room:
                left = self._about(room, conversation)
                prompt = self.tokenizer.prompt(left)
            while len(prompt) > room and (shorter := without_oldest(left)):
                left = shorter
                prompt = self.tokenizer.prompt(left)
            cut = len(prompt) > room
            if cut:
                prompt = prompt[:2] + prompt[2 - room :]
            prompts.append(Prompt(prompt, len(conversation) - len(left), cut))
        return prompts

    def _about(self, room: int, conversation: Conversation) -> Conversation:
        """Drop old turns while the rest is plainly too long, without rendering it each time.

        Where two messages become one, a few tokens may be saved: hence the tolerance.
        """
        contents = [
            len(ids) for ids in self.tokenizer.encode_batch([m["content"] for m in conversation])
        ]
        left = conversation
        while (shorter := without_oldest(left)) and (
            sum(contents[len(contents) - len(left) + 1 :]) > room + TOLERANCE
        ):
            left = shorter
        return left


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
