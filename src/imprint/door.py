"""The door of the dataset: why a conversation may not be trained on."""

from collections.abc import Callable

from imprint import matcher, records
from imprint.errors import RecordError
from imprint.identity import Identity
from imprint.plan import Row
from imprint.text import meets, mentions


def keeper(identity: Identity) -> Callable[[object, Row], str | None]:
    """Return a function that says, in a word or two, why messages may not be trained on.

    The function takes the messages and the row of the plan that they answer. It returns None if
    nothing is wrong with them.
    """
    facts = {fact.id: fact for fact in identity.facts}
    faults: dict[str, str | None] = {}

    def fault(answer: str) -> str | None:
        """Remember verdicts: equal answers are common, and a verdict takes 30 us."""
        if answer not in faults:
            faults[answer] = matcher.fault(answer, identity)
        return faults[answer]

    def objection(messages: object, row: Row) -> str | None:
        try:
            turns = records.check(messages, "reply")
            "".join(turn["content"] for turn in turns).encode()
        except (RecordError, UnicodeEncodeError):
            return "malformed"
        if turns[0]["role"] == "system":
            return "system message"
        answers = [turn["content"] for turn in turns if turn["role"] == "assistant"]
        for answer in answers:
            if found := fault(answer):
                return found
        said = "\n".join(answers)
        if not all(meets(said, facts[name].expect) for name in row.facts):
            return "fact missing"
        if len(row.facts) == 1 and mentions(said, facts[row.facts[0]].forbid):
            return "forbidden words"  # of several facts, one may need what another forbids
        if row.strategy == "unknown attribute" and not mentions(said, matcher.REFUSALS):
            return "made-up answer"
        if row.strategy == "off topic" and matcher.mentions_identity(said, identity):
            return "off topic, yet about itself"
        return None

    return objection
