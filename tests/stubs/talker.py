"""Write the conversation that a prompt asks for, as a well-behaved model would.

The prompt's user part holds labelled lines (``Strategy: direct``, ``Fact: ...``, ``Exchanges: 2``).
The same prompt always gets the same conversation, and different prompts hardly share a sentence.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
Message = dict[str, str]

_LABEL = re.compile(
    r"^(Strategy|Fact|Subject|Exchanges|Opener)(?: \(.*?\))?: *(\S.*?)[ \t\r]*$", re.MULTILINE
)

_PEOPLE = (
    "aunt baker brother captain carpenter cousin dentist doctor driver farmer father gardener "
    "grandmother librarian mechanic mother musician nephew neighbor nurse painter pilot plumber "
    "sailor singer sister tailor teacher uncle waiter weaver writer"
).split()
_PLACES = (
    "attic bakery balcony barn beach bridge cabin cafe canal castle cellar corridor courtyard farm "
    "ferry forest garden gym harbor hotel kitchen laundry library market meadow museum office park "
    "pier school station workshop"
).split()
_THINGS = (
    "apples baskets bells bicycles blankets bottles boxes brushes buttons candles carpets chairs "
    "clocks curtains drums envelopes flutes gloves hammers kettles ladders lanterns maps marbles "
    "mirrors pencils pillows plates ropes spoons stamps umbrellas"
).split()
_KINDS = (
    "ancient bright broken cheap clean crooked curious dusty empty faded fancy foreign fragile "
    "golden gray green heavy hollow lovely muddy narrow noisy odd old painted plain red round "
    "rusty shiny tiny wooden"
).split()
_DEEDS = (
    "admired borrowed bought carried checked cleaned collected counted covered described drew "
    "found gathered hid kept lent lost measured mended missed moved named packed painted polished "
    "sold sorted stacked stored traded washed wrapped"
).split()
_TIMES = (
    "after lunch|all morning|at dawn|at dusk|before dinner|during the storm|in autumn|in spring|"
    "in summer|in the evening|in the rain|in winter|last night|on Friday|on Monday|on Sunday|"
    "on the weekend|yesterday"
).split("|")
_ASKS = (
    "What can you tell me about yourself|Would you say something about who you are|"
    "How would you describe yourself|May I hear a bit about you|Could you introduce yourself to me|"
    "What should I know about you"
).split("|")
_CHATS = (
    "Does that sound strange to you|What do you make of it|Would you have done the same|"
    "Is that not a lovely way to spend a day|Do you think anybody noticed|Was that a good idea"
).split("|")
_TRIVIA = (
    ("What color is fresh grass", "Fresh grass is green."),
    ("Is ice cold or warm", "Ice is cold."),
    ("Which season comes after winter", "Spring comes after winter."),
    ("What do bees make", "Bees make honey."),
    ("Where do fish live", "Fish live in water."),
    ("What falls from clouds", "Rain falls from clouds."),
)


def identity(system: str, user: str) -> str:
    """Return what tells one prompt from another: a digest in hexadecimal."""
    return hashlib.sha256(f"{system}\0{user}".encode("utf-8", "surrogatepass")).hexdigest()


def tokens(text: str) -> int:
    """Return how many tokens ``text`` counts for: a quarter of its characters, rounded up."""
    return math.ceil(len(text) / 4)


def conversation(system: str, user: str) -> list[Message]:
    """Return the messages that the prompt asks for; one exchange if it says nothing of that."""
    labels = [(found[1], found[2]) for found in _LABEL.finditer(user)]
    one = dict(labels)
    facts = [text for label, text in labels if label == "Fact"]
    exchanges = max(1, int(one.get("Exchanges", "1")))
    digest = hashlib.sha512(f"{system}\0{user}".encode("utf-8", "surrogatepass"))
    dice = _dice(digest.digest())
    opener = one.get("Opener", "")
    messages: list[Message] = []
    for number, (ask, answer) in enumerate(_exchanges(one, facts, exchanges, dice)):
        question = f"My {_scene(dice)}, and my {_scene(dice)}. {ask}?"
        if number == 0 and opener:
            question = f"{opener}{' ' if opener[-1] in '.!?,' else ', '}{question}"
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": answer})
    return messages


def _exchanges(
    one: dict[str, str], facts: list[str], exchanges: int, dice: Iterator[int]
) -> Iterator[tuple[str, str]]:
    """Yield what each exchange asks and answers: small talk first, what matters last."""
    if not facts:
        for _ in range(exchanges - 1):
            yield _pick(_CHATS, dice), f"That is a nice story about {_pick(_THINGS, dice)}."
        yield _without_facts(one, dice)
        return
    for _ in range(exchanges - len(facts)):
        chat = f"I like hearing about {_pick(_KINDS, dice)} {_pick(_THINGS, dice)}."
        yield _pick(_CHATS, dice), chat
    taught = min(exchanges, len(facts))
    for number in range(taught - 1):
        yield _pick(_ASKS, dice), facts[number]
    yield _pick(_ASKS, dice), " ".join(facts[taught - 1 :])


def _without_facts(one: dict[str, str], dice: Iterator[int]) -> tuple[str, str]:
    strategy, subject = one.get("Strategy", ""), one.get("Subject")
    if strategy == "unknown attribute" and subject:
        return f"What is your {subject}", f"I do not know my {subject}."
    if strategy == "off topic":
        return _pick(_TRIVIA, dice)
    if strategy != "greeting" and subject:
        return f"Are you {subject}", f"No, I am not {subject}."
    return _pick(_CHATS, dice), "Hello, how can I help you?"


def _scene(dice: Iterator[int]) -> str:
    """Return a clause that no two prompts are likely to share: one of billions."""
    return (
        f"{_pick(_PEOPLE, dice)} {_pick(_DEEDS, dice)} some {_pick(_KINDS, dice)} "
        f"{_pick(_THINGS, dice)} near the {_pick(_KINDS, dice)} {_pick(_PLACES, dice)} "
        f"{_pick(_TIMES, dice)}"
    )


def _dice(digest: bytes) -> Iterator[int]:
    """Yield bytes that depend on ``digest`` alone, without end."""
    while True:
        yield from digest
        digest = hashlib.sha512(digest).digest()


def _pick(items: Sequence[T], dice: Iterator[int]) -> T:
    return items[next(dice) % len(items)]


def instance(schema: dict[str, Any]) -> Any:
    """Return the simplest value that meets a JSON schema of objects, lists and plain values."""
    if "const" in schema or "enum" in schema:
        return schema.get("const", next(iter(schema.get("enum", ())), None))
    if "anyOf" in schema:
        return instance(schema["anyOf"][0])
    kind = schema.get("type", "object")
    kind = kind[0] if isinstance(kind, list) else kind.lower()  # responseSchema writes OBJECT
    if kind == "object":
        return {name: instance(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [instance(schema.get("items", {}))] * max(1, schema.get("minItems", 1))
    plain = {"integer": schema.get("minimum", 0), "number": schema.get("minimum", 0.5)}
    return {**plain, "boolean": True, "null": None, "string": "something"}[kind]
