"""Dress a question the way different people would type it."""

import re
from dataclasses import dataclass
from functools import cache

from imprint.dice import Dice
from imprint.heldout import is_held_out
from imprint.phrases import Pattern, bank, pattern

REGISTERS = (
    *("plain", "plain", "plain", "plain", "casual", "casual", "chatty", "chatty"),
    *("polite", "terse", "childlike", "hurried", "shouting", "shouting"),
)
"""Manners of writing, the common ones more often."""

_ASKING = r"(?:what|which|whose|how|where|when|why)\b.*?"
_BE = r"(is|are|was|were|can|could|will|would|should|must|has|have)"
_NO_AUXILIARY = r"(?!(?:is|are|was|were|do|does|did|am|should|can)\b)"
_EMBEDDINGS = [
    # "What license are you under?" -> "what license you are under"
    (rf"^({_ASKING}) {_BE} (you|I|we|it)\b(.*)$", r"\1 \3 \2\4"),
    # "What is your name?" -> "what your name is"
    (
        r"^(what|who|where|how \w+|which \w+) (is|are|was|were) "
        r"((?:your|the|my) [\w -]+?)( like| called| made of)?$",
        r"\1 \3 \2\4",
    ),
    # "How many layers do you have?" -> "how many layers you have"
    (rf"^({_ASKING}) do (you|I|we|people|they) (.*)$", r"\1 \2 \3"),
    # "Who made you?" -> "who made you"
    (
        rf"^((?:who|(?:which|what|whose) {_NO_AUXILIARY}\w+) {_NO_AUXILIARY}\w+ .*)$",
        r"\1",
    ),
]


def embedded(question: str) -> str | None:
    """Return ``question`` in the word order it has inside a sentence; None if it has no such form.

    Example:
        >>> embedded("How many layers do you have?"), embedded("What is your name?")
        ('how many layers you have', 'what your name is')
        >>> embedded("Are you old?")
    """
    bare = question.rstrip("?").strip()
    if not question.endswith("?") or any(mark in bare for mark in ".?!,;:"):
        return None
    for shape, order in _EMBEDDINGS:
        found = re.match(shape, bare, re.IGNORECASE)
        if found:
            turned = found.expand(order)
            return None if _TWISTED.search(turned) else turned[0].lower() + turned[1:]
    return None


_TWISTED = re.compile(
    r"^(what|how) about\b|^which \w+ the\b|\blike\b.+ (is|are|was|were)$"
    r"|\b(did|do|does|am|is|are|was|were|have|has|had|can|could|will|would|should|must)"
    r" (you|your|the|a|an|I|my|we|our|it|they|their|he|she|his|her|this|that|these"
    r"|people|somebody|someone)\b",
    re.IGNORECASE,
)
"""The order of a question still, or none: "which type did your maker use", "what about me"."""


def dressed(
    question: str,
    dice: Dice,
    *,
    register: str = "plain",
    typos: bool = False,
    about_model: bool = True,
    held_out: bool = False,
) -> str:
    """Return ``question`` with what people write around it, in a manner of writing.

    Args:
        question: A plain question or request.
        dice: Makes the choices.
        register: One of `REGISTERS`.
        typos: Whether the writer's fingers slip.
        about_model: Whether it asks about the model; "I want to get to know you. Is it raining?"
            is nothing that anybody would write.
        held_out: Take the exam's frames instead of those for training.
    """
    text = question
    if register != "terse":
        if about_model and dice.chance(_THIRD_PERSON):
            text = third_person(text, dice)
        frames = _Frames(about_model, held_out)
        text = _framed(text, dice, frames, talkative=register in ("chatty", "polite"))
    if register in ("casual", "terse", "hurried"):
        text = _careless(text, dice, short=register == "hurried")
    elif register == "childlike" and dice.chance(0.5):
        text = text.rstrip(".") + dice.pick(["", "??", "!!", " :)", "?!"])
    elif register == "shouting":
        text = text.upper().rstrip(".?") + dice.pick(["", "?", "!", "!!!", "???"])
    return mistyped(text, dice) if typos else text


_THIRD_PERSON = 0.06
_ITSELF = (
    "this bot",
    "this AI",
    "this model",
    "this chatbot",
    "this assistant",
    "this language model",
)
_YOU = re.compile(r"\byou\w*\b", re.IGNORECASE)
_OBJECT = re.compile(
    r"\b(made|built|created|designed|developed|trained|train|wrote|programmed|invented|owns|runs|hosts"
    r"|behind|about|of|for|into|in|to|with) you(?=[?.!]*$)"
)
_MANY = re.compile(
    r"\b(one|all|many|more|most|some|any|none|both|each|which|who|two|three) of you\b"
    r"|\b(all|both|this|these|that|those|every|any|some|each|no) (of )?your\b|\byours\b",
    re.IGNORECASE,
)
"""Where it takes more than another word: "one of this bot", "all this bot's users"."""


def third_person(question: str, dice: Dice) -> str:
    """Return ``question`` as somebody asks who speaks of the model, not to it, where that is easy.

    Example:
        >>> third_person("What is your name?", Dice(1)) != third_person("Who are you?", Dice(1))
        True
        >>> third_person("Who are you?", Dice(1))
        'Who are you?'
    """
    if len(_YOU.findall(question)) != 1 or _MANY.search(question):
        return question
    one = dice.pick(_ITSELF)
    said = _OBJECT.sub(rf"\1 {one}", question)
    return re.sub(r"\byour\b", f"{one}'s", said)


@dataclass(frozen=True)
class _Frames:
    """Which frames may be used."""

    about_model: bool
    held_out: bool

    def of(self, key: str) -> list[Pattern]:
        """Return the frames of one kind: lead, context, tail or embed."""
        return _frames(key, self.about_model, self.held_out)


_STATEMENT = re.compile(
    r"(I|I'm|I've|My|We|We're|Our|It|It's|He|She|There|That|That's|This|The|A|An|You|You're|Your"
    r"|They|People|Everybody|Everyone|Somebody|Someone|Thanks?|Hello|Hi|Hey|Good|Today|Yesterday"
    r"|How|What|Morning|Enjoy|Happy|Nice|Great|Wow|Okay|OK|No|Yes|Bye)\b"
)
_WANTING = re.compile(
    r"\?|\b(want|(like|love) to|need|wonder\w*|curious|know|tell|ask\w*|forgot|hear|learn"
    r"|question)\b",
    re.IGNORECASE,
)


def _framed(text: str, dice: Dice, frames: _Frames, *, talkative: bool) -> str:
    if _STATEMENT.match(text) and not _WANTING.search(text):
        return text  # "I have a question. I built a table." is nothing that anybody would write
    inner = embedded(text) if dice.chance(0.2) else None
    if inner:
        text = dice.pick(frames.of("embed")).say(dice, {"inner": inner})
    elif dice.chance(0.5 if talkative else 0.15):
        lead = dice.pick(frames.of("lead")).say(dice)
        text = f"{lead} {_lowered(text) if lead[-1] in ',' else text}"
    if dice.chance(0.5 if talkative else 0.1):
        text = f"{dice.pick(frames.of('context')).say(dice)} {text}"
    if dice.chance(0.25 if talkative else 0.06):
        text = f"{text} {dice.pick(frames.of('tail')).say(dice)}"
    return text


_ABOUT_MODEL = re.compile(
    r"\b(you|your|yours|yourself|models?|machines?|computers?|chatbots?|bots?|robots?|AI|program)\b",
    re.IGNORECASE,
)
_TOLD = re.compile(r"\b(they|told|documentation|ever)\b")


@cache
def _frames(key: str, about_model: bool, held_out: bool) -> list[Pattern]:
    if key == "embed":
        found = [f"{item['text']} {{inner}}{item['closing']}" for item in bank("frames")["embed"]]
    else:
        found = bank("frames")[key]
    if not about_model:
        telling = _TOLD if key == "embed" else _ABOUT_MODEL
        found = [text for text in found if not telling.search(text)]
    return [
        pattern(text) for text in found if is_held_out(text.partition(" {inner}")[0]) == held_out
    ]


def _lowered(text: str) -> str:
    """Return ``text`` with a small first letter, unless the first word is I or a name."""
    first = text.split(" ", 1)[0]
    keep = first in ("I", "I'm", "I've", "I'd", "I'll") or first[1:] != first[1:].lower()
    return text if keep else text[:1].lower() + text[1:]


_SHORT = {
    "you": "u",
    "are": "r",
    "your": "ur",
    "please": "pls",
    "what": "wat",
    "because": "cuz",
    "thanks": "thx",
    "people": "ppl",
    "about": "abt",
}


def _careless(text: str, dice: Dice, *, short: bool) -> str:
    if dice.chance(0.75):
        text = text.lower()
    if dice.chance(0.6):
        text = text.rstrip("?.!")
    if dice.chance(0.4):
        text = text.replace("'", "").replace(",", "")
    if short:
        text = " ".join(
            _SHORT[word] if word in _SHORT and dice.chance(0.6) else word for word in text.split()
        )
    return text


_NEIGHBOURS = dict(
    zip(
        "qwertyuiopasdfghjklzxcvbnm",
        "wa qe wr et ry tu yi uo ip ol sq ad sf dg fh gj hk jl ko xa zc xv cb vn bm nk".split(),
        strict=True,
    )
)


def mistyped(text: str, dice: Dice) -> str:
    """Return ``text`` with a slip of the fingers in a word of four letters or more.

    One slip makes people hurry on, two in a few words they see and mend: only a question of more
    than eight words may have a second one.

    Example:
        >>> mistyped("Where were you trained?", Dice(1, "slip")) != "Where were you trained?"
        True
    """
    words = text.split(" ")
    long = [place for place, word in enumerate(words) if len(word) > 3 and word[1:].isalpha()]
    long = long or [place for place, word in enumerate(words) if len(word) > 2]
    slips = 1 + (len(words) > 8 and dice.chance(0.4))
    for place in dice.sample(long, min(len(long), slips)):
        word = words[place]
        at = 1 + dice.below(max(1, len(word) - 2))
        kind = dice.below(4)
        if kind == 0:
            word = word[:at] + word[at + 1 :]
        elif kind == 1:
            word = word[:at] + word[at + 1 : at + 2] + word[at] + word[at + 2 :]
        elif kind == 2:
            word = word[:at] + word[at] + word[at:]
        else:
            near = _NEIGHBOURS.get(word[at].lower(), word[at])
            word = word[:at] + dice.pick(near) + word[at + 1 :]
        words[place] = word
    return " ".join(words)
