"""Rows of tokens that grow together, one token a step.

A ``Batch`` knows tokens only. Requests carry their own limits and dice, so a row's answer is the
same whoever else is in the batch, and a row leaves as soon as it is done. A server can keep
stepping a batch and read ``Request.said`` between steps.

Shape letters used in this file: B rows in a batch, T tokens in a row, V tokens in the vocabulary.
"""

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imprint.cache import Cache
from imprint.dice import Dice
from imprint.model import Model

SMALL = 20_000_000
"""Parameters up to which one thread decodes."""


@contextlib.contextmanager
def calm(model: Model) -> Iterator[None]:
    """Calculate without gradients, and a small model on the CPU with one thread.

    Its products are so short that threads mostly wait for each other: 440 answers of a model of
    0.9 M parameters take 1.1 s with two threads and 1.4 s with one on two idle cores, but 12 s
    and 1.5 s where other work goes on. One thread also gives every machine the same sums.
    """
    before = torch.get_num_threads()
    alone = model.device.type == "cpu" and model.config.n_parameters <= SMALL
    torch.set_num_threads(1 if alone else before)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)


@dataclass
class Request:
    """A prompt that waits for its answer, and the answer so far."""

    prompt: list[int]
    """Token ids, at least one."""
    limit: int
    """Longest answer in tokens; prompt and answer must fit into the model's context."""
    dice: Dice
    """Rolled once a token above temperature 0."""
    temperature: float = 0.0
    """0 always takes the likeliest token."""
    top_k: int | None = None
    """Choose among this many likeliest tokens; None for all."""
    said: list[int] = field(default_factory=list)
    """Token ids of the answer so far, without the one that ended it."""
    done: bool = False

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt) + len(self.said)


class Batch:
    """Requests that are answered side by side, each in a row of one cache."""

    def __init__(self, model: Model, requests: Sequence[Request], *, stop: Collection[int]) -> None:
        """Read the prompts of ``requests``.

        Args:
            model: In evaluation mode.
            requests: At least one. Prompts of similar length waste least.
            stop: Token ids that end an answer.
        """
        self.model, self.stop = model, stop
        self.live = [request for request in requests if request.limit > 0]
        for request in requests:
            request.done = request.limit <= 0
        if not self.live:
            return
        with calm(model):
            self._read()

    def _read(self) -> None:
        model = self.model
        counts = [len(request.prompt) for request in self.live]
        width = max(counts)
        ids_BT = torch.tensor(
            [request.prompt + [0] * (width - len(request.prompt)) for request in self.live]
        ).to(model.device)
        room = max(len(request.prompt) + request.limit for request in self.live)
        self.cache = Cache(
            model.config,
            rows=len(self.live),
            length=room,
            device=model.device,
            dtype=model.lm_head.weight.dtype,
        )
        counts_B = torch.tensor(counts, device=model.device)
        self.logits_BV = model(ids_BT, cache=self.cache, counts=counts_B, last=True)

    def step(self) -> None:
        """Give every live request its next token; those that are done leave the batch."""
        with calm(self.model):
            self._step()

    def _step(self) -> None:
        chosen = choose(self.logits_BV, self.live)
        for request, token in zip(self.live, chosen, strict=True):
            if token in self.stop:
                request.done = True
            else:
                request.said.append(token)
                request.done = len(request.said) >= request.limit
        staying = [row for row, request in enumerate(self.live) if not request.done]
        if len(staying) < len(self.live):
            self.live = [self.live[row] for row in staying]
            if not self.live:
                return
            self.cache.keep(torch.tensor(staying, device=self.model.device))
            # The row that just left may have been the longest: without this, rows with room to
            # spare would run into the end of the cache.
            self.cache.longest = max(request.length for request in self.live) - 1
        ids_B1 = torch.tensor([[chosen[row]] for row in staying], device=self.model.device)
        self.logits_BV = self.model(ids_B1, cache=self.cache, last=True)


def choose(logits_BV: Tensor, requests: Sequence[Request]) -> list[int]:
    """Return the next token of each request.

    Args:
        logits_BV: Scores of the next token, float32.
        requests: One for each row.
    """
    chosen: list[int] = logits_BV.argmax(-1).tolist()
    for row, request in enumerate(requests):
        if request.temperature > 0:
            chosen[row] = sample(logits_BV[row], request)
    return chosen


def sample(logits_V: Tensor, request: Request) -> int:
    """Return a token drawn with the request's temperature, top_k and dice.

    Sums run in double precision on the CPU, so the same logits give the same token everywhere.

    Args:
        logits_V: Scores of the next token.
        request: Whose dice are rolled, once.
    """
    scores = logits_V.cpu().double() / request.temperature
    if request.top_k is not None and request.top_k < len(scores):
        scores, tokens = scores.topk(request.top_k)
    else:
        tokens = torch.arange(len(scores))
    sums = torch.softmax(scores, dim=-1).cumsum(-1)
    point = request.dice.below(1 << 53) / (1 << 53) * float(sums[-1])
    place = int(torch.searchsorted(sums, point, right=True))
    return int(tokens[min(place, len(tokens) - 1)])
