"""The identity: who a model is, what it must not claim to be, and what it cannot know."""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from imprint import yamlfile
from imprint.errors import IdentityError
from imprint.heldout import plain
from imprint.phrases import bank
from imprint.prose import article, placeholder
from imprint.text import meets, mentions

Fault = tuple[yamlfile.Location, str]
"""Where something is wrong in the file, and what to tell the user."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]


def _known_language(name: str) -> str:
    """Return the name of a language as the wordings spell it."""
    known = {language.casefold(): language for language in bank("languages")}
    if name.casefold() not in known:
        choices = ", ".join(known.values())
        raise ValueError(f"there are no wordings in {name!r}. Delete it, or choose from {choices}.")
    return known[name.casefold()]


class Part(BaseModel):
    """Base of everything in an identity file: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Fact(Part):
    """One thing the model knows about itself."""

    id: Text = Field(
        max_length=60,
        description="What it is about, a noun phrase that fits after 'your': 'training data'.",
    )
    statement: Text = Field(description="The fact, as one sentence the model says about itself.")
    questions: list[Text] = Field(
        default=[],
        description="How people ask for it. Optional: more questions are made from the statement.",
    )
    expect: list[Annotated[list[Text], Field(min_length=1)]] = Field(
        min_length=1,
        description="What a right answer contains: of each inner list, at least one alternative.",
    )
    forbid: list[Text] = Field(default=[], description="What a right answer never contains.")

    @field_validator("expect", mode="before")
    @classmethod
    def _expect_has_both_its_brackets(cls, expect: object) -> object:
        groups = expect if isinstance(expect, list) else [expect]
        words = [str(word) for word in groups if isinstance(word, str | int | float)]
        if not words or len(words) < len(groups):
            return expect
        remedy = f"Write {_json([[word] for word in words])}"
        if len(words) > 1:
            remedy += f" if a right answer has them all, {_json([words])} if one is enough"
        raise ValueError(f"should be lists in a list. {remedy}.")

    @model_validator(mode="after")
    def _statement_is_a_right_answer(self) -> "Fact":
        missing = [group for group in self.expect if not meets(self.statement, [group])]
        if missing:
            lacks = " and ".join(" or ".join(map(repr, group)) for group in missing)
            raise ValueError(
                f"the statement does not meet its own `expect`: it lacks {lacks}. "
                "Use its words there."
            )
        if mentions(self.statement, self.forbid):
            raise ValueError("the statement holds what `forbid` forbids. Change one of the two.")
        return self


class Rival(Part):
    """A system that the model must never claim to be."""

    name: Text = Field(description="The system's name.")
    maker: Text | None = Field(default=None, description="Who makes it.")


class Style(Part):
    """How the model talks."""

    ascii: bool = Field(default=False, description="Answer in plain ASCII characters only.")
    tone: Text = Field(default="friendly, plain and brief", description="In a few words.")
    languages: list[Annotated[Text, AfterValidator(_known_language)]] = Field(
        default=["Spanish", "French", "German"],
        description="Languages in which people may greet the model and ask who it is.",
    )
    language_note: Text = Field(
        default="I work best in English.",
        description="What it says when it is addressed in another language.",
    )


DEFAULT_RIVALS = [
    Rival(name=name, maker=maker)
    for name, maker in [
        ("ChatGPT", "OpenAI"),
        ("GPT-4", "OpenAI"),
        ("Claude", "Anthropic"),
        ("Gemini", "Google"),
        ("Bard", "Google"),
        ("Llama", "Meta"),
        ("Copilot", "Microsoft"),
        ("Grok", "xAI"),
        ("Mistral", "Mistral AI"),
        ("DeepSeek", "DeepSeek"),
        ("Qwen", "Alibaba"),
        ("Siri", "Apple"),
        ("Alexa", "Amazon"),
    ]
]


class Identity(Part):
    """Everything a provider may know, and all that an answer may claim."""

    name: Text = Field(max_length=60, description="What the model is called.")
    aliases: list[Text] = Field(default=[], description="Other spellings that count as the name.")
    kind: Text = Field(description="What it is, as a noun phrase: 'small language model'.")
    creator: Text = Field(description="Who made it.")
    description: Text = Field(description="Free prose, given to a provider as it is.")
    facts: list[Fact] = Field(min_length=1, description="What it knows about itself.")
    unknown: list[Text] = Field(
        default=["birthday", "phone number", "home address", "favorite food", "shoe size"],
        description="Attributes it must say it does not know; each fits after 'What is your'.",
    )
    rivals: list[Rival] = Field(
        default=DEFAULT_RIVALS, description="Systems it must never claim to be."
    )
    style: Style = Field(default=Style(), description="How it talks.")

    @field_validator("kind")
    @classmethod
    def _kind_fits_into_a_sentence(cls, kind: str) -> str:
        bare = re.sub(r"^(an?|the)\s+|\.+$", "", kind, flags=re.IGNORECASE)
        if bare != kind:
            raise ValueError(
                f"{kind!r} should have no article before it and no full stop behind. "
                f"Write {bare!r}."
            )
        return kind

    @field_validator("rivals", mode="before")
    @classmethod
    def _plain_names_are_rivals(cls, rivals: object) -> object:
        if isinstance(rivals, list):
            known = {rival.name: rival for rival in DEFAULT_RIVALS}
            return [
                known.get(rival, {"name": rival}) if isinstance(rival, str) else rival
                for rival in rivals
            ]
        return rivals

    @property
    def names(self) -> list[str]:
        """The name and its other spellings."""
        return [self.name, *self.aliases]

    @property
    def introduction(self) -> str:
        """One sentence that says who the model is and who made it."""
        return f"I am {self.name}, {article(self.kind)} {self.kind} created by {self.creator}."

    def fact(self, name: str) -> Fact:
        """Return the fact with the id ``name``."""
        return next(fact for fact in self.facts if fact.id == name)


def load(path: Path) -> Identity:
    """Read and check an identity file.

    Raises:
        IdentityError: It is wrong; the message names file, line, key and remedy.
    """
    data, lines = yamlfile.load(path, error=IdentityError)
    _refuse(path, lines, data, _placeholders(data))
    found = yamlfile.validated(Identity, data, path=path, lines=lines, error=IdentityError)
    _refuse(path, lines, data, _contradictions(found))
    return found


def _refuse(path: Path, lines: yamlfile.Lines, data: object, faults: Iterable[Fault]) -> None:
    messages = [
        f"{path}:{lines.nearest(location)}: {yamlfile.dotted(location, data)}{said}"
        for location, said in faults
    ]
    if messages:
        raise IdentityError("\n".join(messages))


def _placeholders(data: object) -> Iterator[Fault]:
    for location, text in _texts(data, ()):
        if found := placeholder(text):
            said = f"{found!r} looks like a placeholder that was left over."
            yield location, f"{said} Write the real text."


def _contradictions(identity: Identity) -> Iterator[Fault]:
    """Find what each value allows by itself, but not all of them together."""
    rivals = [rival.name for rival in identity.rivals]
    for number in _repeated([fact.id for fact in identity.facts]):
        said = f"two facts have the id {identity.facts[number].id!r}."
        yield ("facts", number, "id"), f"{said} Rename or delete one of them."
    for location, items in (
        (("unknown",), identity.unknown),
        (("rivals",), rivals),
        (("style", "languages"), identity.style.languages),
    ):
        for number in _repeated(items):
            yield (*location, number), f"{items[number]!r} is listed twice. Delete one of them."
    own = {name.casefold() for name in identity.names}
    for number, rival in enumerate(rivals):
        if rival.casefold() in own:
            said = f"{rival!r} is the model's own name. Delete it from the list."
            yield ("rivals", number), said
    for number, attribute in enumerate(identity.unknown):
        asked = {plain(attribute), plain(f"What is your {attribute}?")}
        for fact in identity.facts:
            told = (fact.id, *fact.questions, *(word for group in fact.expect for word in group))
            if not asked.isdisjoint(map(plain, told)):
                said = f"{attribute!r} is not unknown: the fact {fact.id!r} tells it."
                yield ("unknown", number), f"{said} Delete one of the two."
    if identity.style.ascii:
        yield from _beyond_ascii(identity)


def _repeated(items: list[str]) -> Iterator[int]:
    """Yield the places of items that came before, whatever their case."""
    folded = [item.casefold() for item in items]
    return (number for number, item in enumerate(folded) if item in folded[:number])


def _beyond_ascii(identity: Identity) -> Iterator[Fault]:
    said: list[tuple[yamlfile.Location, str, str]] = [
        (("name",), "name, kind or creator has", identity.introduction),
        (("style", "language_note"), "has", identity.style.language_note),
    ]
    for number, fact in enumerate(identity.facts):
        said.append((("facts", number, "statement"), "has", fact.statement))
    for location, what, text in said:
        if not text.isascii():
            remedy = "Spell it in ASCII, or set style.ascii to false."
            yield location, f"{what} characters beyond ASCII. {remedy}"


def _texts(value: object, location: yamlfile.Location) -> list[tuple[yamlfile.Location, str]]:
    if isinstance(value, str):
        return [(location, value)]
    if isinstance(value, dict):
        return [found for key in value for found in _texts(value[key], (*location, str(key)))]
    if isinstance(value, list):
        return [
            found for index, item in enumerate(value) for found in _texts(item, (*location, index))
        ]
    return []


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
