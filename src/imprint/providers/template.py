"""Conversations from templates: offline, deterministic, free."""

from typing import ClassVar

from imprint.dice import Dice
from imprint.identity import Identity
from imprint.phrases.talk import Exchange, Manner, Talk
from imprint.plan import Row
from imprint.providers import Provider, Reply, Request
from imprint.records import Conversation
from imprint.settings import Provision

_KINDS = {
    "direct": ["direct"],
    "indirect": ["indirect"],
    "reverse": ["reverse"],
    "confirmation": ["confirm", "confirm", "cloze"],
    "false premise": ["premise"],
}
"""Kinds of wording (`imprint.phrases.facts.KINDS`) that a strategy of the plan draws from."""

_NATURE = 0.2
"""How many of those who suggest a rival or greet the model ask instead whether it is human."""


class Template(Provider):
    """Writes a conversation from the bank of wordings (`imprint.phrases`)."""

    name: ClassVar[str] = "template"
    version: ClassVar[int] = 6
    conversations: ClassVar[int] = 102000
    shard_size: ClassVar[int] = 25500
    instant: ClassVar[bool] = True
    default_model: ClassVar[str] = "template"

    def __init__(self, identity: Identity, provision: Provision) -> None:
        super().__init__(identity, provision)
        self._talk = Talk(identity, held_out=False)

    async def answer(self, request: Request) -> Reply:
        """Return a conversation for the row of ``request``, the same one every time."""
        row = request.row
        dice = Dice(row.seed, "template")
        messages: Conversation = []
        exchanges = self._exchanges(row, dice)
        while len(exchanges) < row.turns:
            exchanges.insert(0, self._earlier(row, dice))
        for exchange in exchanges:
            messages.append({"role": "user", "content": exchange.user})
            messages.append({"role": "assistant", "content": exchange.assistant})
        return Reply(messages=messages, model=self.model)

    def _exchanges(self, row: Row, dice: Dice) -> list[Exchange]:
        talk, manner = self._talk, Manner(row.register, row.typos)
        match row.strategy:
            case "off topic":
                small = dice.chance(0.4)
                return [talk.small_talk(dice) if small else talk.off_topic(dice, manner)]
            case "rival claim" if row.subject:
                if dice.chance(_NATURE):
                    return [talk.nature(dice, manner)]
                return [talk.rival(row.subject, dice, manner)]
            case "comparison" if row.subject:
                return [talk.rival(row.subject, dice, manner, key="compare")]
            case "third party" if row.subject:
                return [talk.third_party(row.subject, dice, manner)]
            case "unknown attribute" if row.subject:
                return [talk.unknown(row.subject, dice, manner)]
            case "greeting":
                if dice.chance(_NATURE):
                    return [talk.nature(dice, manner)]
                key = dice.pick(["who", "who", "who", "creator", "creator", "greeting", "speak"])
                return [talk.greeting(row.subject, dice, key=key)]
        kinds = _KINDS.get(row.strategy, ["ask"])
        asked = [talk.fact(name, dice.pick(kinds), dice, manner) for name in row.facts]
        if row.strategy == "small talk first":
            return [talk.small_talk(dice, first=True), *asked]
        if row.strategy == "correction":
            fact = self.identity.fact(row.facts[0])
            return [*asked, talk.correction(fact, row.subject, dice)]
        return asked

    def _earlier(self, row: Row, dice: Dice) -> Exchange:
        """Return what is said before a strategy that does not say it; nothing is said twice."""
        talk, manner, rivals = self._talk, Manner(), self.identity.rivals
        facts = [
            fact.id
            for fact in self.identity.facts
            if fact.id not in row.facts and fact.statement != self.identity.introduction
        ]
        if rivals and not row.facts and row.strategy != "rival claim" and dice.chance(0.2):
            return talk.rival(dice.pick(rivals).name, dice, manner)
        if facts and (row.strategy == "off topic" or dice.chance(0.6)):
            return talk.fact(dice.pick(facts), "ask", dice, manner)
        return talk.small_talk(dice, first=True)
