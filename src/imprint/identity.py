"""The identity: who a model is, what it must not claim to be, and what it cannot know."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from imprint import yamlfile
from imprint.errors import IdentityError
from imprint.text import meets, mentions

Fault = tuple[yamlfile.Location, str]
"""Where something is wrong in the file, and what to tell the user."""

Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]

PLACEHOLDER = re.compile(
    r"\{\{|\}\}|<(your|name|model|creator|insert)[^>]*>|\[(your|insert|name|todo)[^\]]*\]"
    r"|\b(lorem ipsum|TODO|TBD|FIXME|CHANGEME)\b|\bXXX+\b",
    re.IGNORECASE,
)
"""Text that somebody meant to replace and did not."""


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

    @model_validator(mode="after")
    def _statement_is_a_right_answer(self) -> "Fact":
        if not meets(self.statement, self.expect):
            raise ValueError("the statement does not meet its own `expect`. Use its words there.")
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
    languages: list[Text] = Field(
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
        article = "an" if self.kind[0].lower() in "aeiou" else "a"
        return f"I am {self.name}, {article} {self.kind} created by {self.creator}."

    def fact(self, name: str) -> Fact:
        """Return the fact with the id ``name``."""
        return next(fact for fact in self.facts if fact.id == name)


def load(path: Path) -> Identity:
    """Read and check an identity file.

    Raises:
        IdentityError: It is wrong; the message names file, line, key and remedy.
    """
    data, lines = yamlfile.load(path, error=IdentityError)
    _refuse(path, lines, _placeholders(data))
    found = yamlfile.validated(Identity, data, path=path, lines=lines, error=IdentityError)
    _refuse(path, lines, _contradictions(found))
    return found


def _refuse(path: Path, lines: yamlfile.Lines, faults: Iterable[Fault]) -> None:
    messages = [
        f"{path}:{lines.nearest(location)}: {yamlfile.dotted(location)}{said}"
        for location, said in faults
    ]
    if messages:
        raise IdentityError("\n".join(messages))


def _placeholders(data: object) -> Iterator[Fault]:
    for location, text in _texts(data, ()):
        found = PLACEHOLDER.search(text)
        if found:
            said = f"{found.group()!r} looks like a placeholder that was left over."
            yield location, f"{said} Write the real text."


def _contradictions(identity: Identity) -> Iterator[Fault]:
    """Find what each value allows by itself, but not all of them together."""
    seen: set[str] = set()
    for number, fact in enumerate(identity.facts):
        if fact.id.casefold() in seen:
            yield (
                ("facts", number, "id"),
                f"two facts have the id {fact.id!r}. Rename or delete one of them.",
            )
        seen.add(fact.id.casefold())
        if identity.style.ascii and not fact.statement.isascii():
            yield (
                ("facts", number, "statement"),
                "has characters beyond ASCII. Spell it in ASCII, or set style.ascii to false.",
            )
    if identity.style.ascii and not identity.introduction.isascii():
        yield (
            ("name",),
            "name, kind or creator has characters beyond ASCII. Spell it in ASCII, or set "
            "style.ascii to false.",
        )
    own = {name.casefold() for name in identity.names}
    for number, rival in enumerate(identity.rivals):
        if rival.name.casefold() in own:
            yield (
                ("rivals", number),
                f"{rival.name!r} is the model's own name. Delete it from the list.",
            )


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
