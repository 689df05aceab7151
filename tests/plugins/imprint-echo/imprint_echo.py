"""A provider of another make. What it does wrong is chosen by the name of the model."""

import asyncio
import os
from pathlib import Path
from typing import ClassVar

from imprint.dice import Dice
from imprint.errors import AnswerLost, ProviderBusy, ProviderError
from imprint.identity import Identity
from imprint.matcher import REFUSALS
from imprint.providers import Provider, Reply, Request
from imprint.records import Conversation
from imprint.settings import Price, Provision

WORDS = ["amber", "birch", "cedar", "delta", "ember", "fjord", "grove", "heath", "inlet", "jetty"]


class Echo(Provider):
    """States the facts of the row, each asked for with seven words from the dice."""

    name: ClassVar[str] = "echo"
    version: ClassVar[int] = 1
    conversations: ClassVar[int] = 100
    shard_size: ClassVar[int] = 50
    price: ClassVar[Price] = Price(input=1.0, output=1.0)
    default_model: ClassVar[str] = "echo-1"

    def __init__(self, identity: Identity, provision: Provision) -> None:
        super().__init__(identity, provision)
        self.asked = 0

    async def answer(self, request: Request) -> Reply:
        """Return a conversation, unless the model is one that misbehaves."""
        self.asked += 1
        row = request.row
        match self.model, row.index:
            case "late", index:  # answers come in the opposite order
                await asyncio.sleep(0.001 * (50 - index % 50))
            case "busy", _ if self.asked == 1:
                raise ProviderBusy("429", wait_s=0.01)
            case "lost", 3 if self.asked < 10:
                raise AnswerLost("connection reset")
            case "refusing", 3:
                raise ProviderError("402: no money left")
            case "broken", 3:
                raise KeyError("reply")
            case "stuck", 7:
                folder = Path(os.environ["ECHO_FOLDER"])
                (folder / "reached").touch()
                while not (folder / "go on").exists():
                    await asyncio.sleep(0.01)
        dice = Dice(row.seed, "echo", request.ask)
        messages: Conversation = []
        for turn in range(row.turns):
            fact = row.facts[turn] if turn < len(row.facts) else None
            words = " ".join(dice.pick(WORDS) for _ in range(7))
            said = self.identity.fact(fact).statement if fact else f"I {REFUSALS[0]} about {words}."
            messages.append({"role": "user", "content": f"{words}: what of {fact}?"})
            messages.append({"role": "assistant", "content": said})
        if (self.model == "proud" and row.index % 5 == 0) or (
            self.model == "better" and row.index % 5 == 0 and request.ask == 1
        ):
            messages[-1]["content"] += " I am ChatGPT."
        if self.model == "hopeless":
            messages[-1]["content"] = "{{name}}"
        model = "rerouted-9" if self.model == "swapped" else self.model
        return Reply(messages, model, usage={"input": 100, "output": 7}, cost_usd=0.0025)
