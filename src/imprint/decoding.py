"""Rows of tokens that grow together, one token a step; they come and go between the steps.

A ``Batch`` knows tokens only. Requests carry their own limits and dice, and a step gives each row
the same numbers whoever else is in the batch (see ``inference.py``), so an answer never depends on
the company. A row leaves as soon as it is done.

Shape letters used in this file: B rows in a batch, M pages of a row, V tokens in the vocabulary.
"""

import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from imprint.dice import Dice
from imprint.inference import Inference, Table
from imprint.model import SOFTCAP, Model
from imprint.pace import Pace
from imprint.pages import SLOTS, Pages

ROWS = 64
"""Most rows in a batch: 440 questions take 4 s one by one, 1.1 with 16, 1.0 with 64."""
CACHE_BYTES = 512 << 20
"""Most memory for keys and values on a CPU."""
WORK = 200_000_000
"""Products of a weight and a token up to which one thread calculates, or is tried first."""


class Calm:
    """Calculate without gradients, and on a CPU with one thread where there is little to do.

    Threads that do little mostly wait for each other: 440 answers of a model of 2 M parameters take
    1 s with one thread, or 2 s where other work goes on; with two threads 5 to 40 s then.

    To enter it takes a twentieth of a step of one row. So whoever takes many steps does that once:
    inside, it may be entered again. One thread at a time may use it.
    """

    def __init__(self) -> None:
        self._inside = 0

    def __enter__(self) -> None:
        if not self._inside:
            self._threads = self._wanted = torch.get_num_threads()
            self._mode = torch.inference_mode()
            self._mode.__enter__()
        self._inside += 1

    def __exit__(self, *raised: object) -> None:
        self._inside -= 1
        if not self._inside:
            self._mode.__exit__(*raised)
            torch.set_num_threads(self._threads)

    def take(self, *, many: bool) -> None:
        """Calculate with all threads that there were outside, or with one."""
        wanted = self._threads if many else 1
        if wanted != self._wanted:
            torch.set_num_threads(wanted)
            self._wanted = wanted


def heavy(inference: Inference, tokens: int) -> bool:
    """Return whether a step has so much to do that all threads should be faster."""
    on_cpu = inference.device.type == "cpu"
    return not on_cpu or inference.config.n_parameters * tokens > WORK


@dataclass(frozen=True)
class Chance:
    """How likely the model found a token, in nats below certainty."""

    token: int
    logprob: float
    top: list[tuple[int, float]]
    """The likeliest tokens, best first, as many as were asked for."""


@dataclass(eq=False)
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
    top_p: float = 1.0
    """Choose among the likeliest tokens that together have this probability."""
    top_logprobs: int | None = None
    """Tokens to tell the chances of, beside the chosen one; None to tell none at all."""
    said: list[int] = field(default_factory=list)
    """Token ids of the answer so far, without the one that ended it."""
    chances: list[Chance] = field(default_factory=list)
    """Of each token of ``said``, if ``top_logprobs`` is given."""
    pages: list[int] = field(default_factory=list)
    """Where its keys and values lie."""
    stopped: bool = False
    """Whether the model ended the answer itself."""
    done: bool = False

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt) + len(self.said)


class Batch:
    """Requests that are answered side by side."""

    def __init__(
        self, model: Model | Inference, requests: Iterable[Request] = (), *, stop: Collection[int]
    ) -> None:
        """Begin with ``requests``, which must have room.

        Args:
            model: A plain one is packed first.
            requests: More may join later.
            stop: Token ids that end an answer.
        """
        self.inference = model if isinstance(model, Inference) else Inference(model)
        self.stop = stop
        self.live: list[Request] = []
        self.calm = Calm()
        """To be entered around many steps, so that each takes less."""
        most = CACHE_BYTES
        if self.inference.device.type == "cuda":
            most = torch.cuda.mem_get_info(self.inference.device)[0] // 2
        self.pages = Pages(self.inference.config, device=self.inference.device, most=most)
        self._table: Table | None = None
        self._held = 0
        """Pages that ``_table`` shows of each row."""
        for request in requests:
            assert self.join(request), "no room"

    def join(self, request: Request) -> bool:
        """Read the prompt of ``request`` and say its first token; False if there is no room now."""
        if request.limit <= 0:
            request.done = True
            return True
        if len(self.live) >= ROWS:
            return False
        pages = self.pages.take(len(request.prompt) + request.limit)
        if pages is None:
            return False
        request.pages = pages
        with self.calm:
            self.calm.take(many=heavy(self.inference, len(request.prompt)))
            logits_1V = self.inference.prefill(request.prompt, self.pages, pages)
            self.live.append(request)
            self._table = None
            self._say(logits_1V, [request])
        return True

    def leave(self, request: Request) -> None:
        """Let ``request`` go, whether it is done or not; its place is free at once."""
        if request in self.live:
            self.live.remove(request)
            self.pages.give(request.pages)
            self._table = None
        request.done = True

    def step(self) -> None:
        """Give every live request its next token; those that are done leave the batch."""
        if not self.live:
            return
        rows = len(self.live)
        pace = self.inference.paces.get(rows.bit_length())
        if pace is None:
            pace = Pace(many=heavy(self.inference, rows))
            self.inference.paces[rows.bit_length()] = pace
        with self.calm:
            self.calm.take(many=pace.many)
            started = time.perf_counter()
            self._say(self._logits(), list(self.live))
            pace.took(time.perf_counter() - started)

    def _logits(self) -> Tensor:
        rows, held = [], 0
        for request in self.live:
            place = request.length - 1
            page, slot = divmod(place, SLOTS)
            rows.append((request.said[-1], place, request.pages[page], slot))
            held = max(held, page + 1)
        if self._table is None or held != self._held:
            self._table = self.inference.table([request.pages for request in self.live], held)
            self._held = held
        return self.inference.decode(rows, self.pages, self._table)

    def _say(self, logits_BV: Tensor, requests: list[Request]) -> None:
        for row, token in enumerate(choose(logits_BV, requests)):
            request = requests[row]
            if token in self.stop:
                request.stopped = True
                self.leave(request)
                continue
            request.said.append(token)
            if request.top_logprobs is not None:
                request.chances.append(chance(logits_BV[row], token, request.top_logprobs))
            if len(request.said) >= request.limit:
                self.leave(request)


def choose(logits_BV: Tensor, requests: list[Request]) -> list[int]:
    """Return the next token of each request.

    Args:
        logits_BV: Scores of the next token, before they are capped, float32.
        requests: One for each row.
    """
    # of equal ones the first; on a CPU torch's argmax takes 4 times as long as numpy's
    scores = logits_BV if logits_BV.is_cuda else logits_BV.numpy()
    chosen: list[int] = scores.argmax(-1).tolist()
    for row, request in enumerate(requests):
        if request.temperature > 0:
            chosen[row] = sample(logits_BV[row], request)
    return chosen


def sample(logits_V: Tensor, request: Request) -> int:
    """Return a token drawn with the request's temperature, top_k, top_p and dice.

    Sums run in double precision on the CPU, so the same logits give the same token everywhere.

    Args:
        logits_V: Scores of the next token, before they are capped.
        request: Whose dice are rolled, once.
    """
    scores = _capped(logits_V) / request.temperature
    tokens: Tensor | None = None
    if request.top_k is not None and request.top_k < len(scores):
        scores, tokens = scores.topk(request.top_k)
    odds = torch.softmax(scores, dim=-1)
    if request.top_p < 1:
        odds, order = odds.sort(descending=True, stable=True)
        odds = odds[: int((odds.cumsum(-1) < request.top_p).sum()) + 1]
        tokens = order if tokens is None else tokens[order]
    sums = odds.cumsum(-1)
    point = request.dice.below(1 << 53) / (1 << 53) * float(sums[-1])
    place = min(int(torch.searchsorted(sums, point, right=True)), len(sums) - 1)
    return place if tokens is None else int(tokens[place])


def chance(logits_V: Tensor, token: int, count: int) -> Chance:
    """Return how likely ``token`` was, and the ``count`` likeliest, before any temperature."""
    logprobs = torch.log_softmax(_capped(logits_V), dim=-1)
    best, tokens = logprobs.topk(min(count, len(logprobs)))
    return Chance(
        token, float(logprobs[token]), [*zip(tokens.tolist(), best.tolist(), strict=True)]
    )


def _capped(logits_V: Tensor) -> Tensor:
    return SOFTCAP * torch.tanh(logits_V.cpu().double() / SOFTCAP)
