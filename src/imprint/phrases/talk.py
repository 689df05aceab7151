"""Single exchanges: a question, the answer that is right, and what makes it right.

The template provider strings them together to conversations; the exam asks the questions of the
other side of the split and keeps the answers to itself.
"""

import re
from dataclasses import dataclass
from functools import cache, cached_property

from imprint.dice import Dice
from imprint.heldout import is_held_out, plain
from imprint.identity import Fact, Identity
from imprint.matcher import REFUSALS
from imprint.phrases import Pattern, bank, common, pattern, patterns, split
from imprint.phrases.dress import dressed
from imprint.phrases.facts import agreeing, slots, topic, wordings
from imprint.sources.exchanges import groups
from imprint.text import mentions


@dataclass(frozen=True)
class Manner:
    """How a person writes."""

    register: str = "plain"
    typos: bool = False


@dataclass(frozen=True)
class Exchange:
    """One question, its answer, and what makes any answer right."""

    user: str
    assistant: str
    fact: str | None = None
    """Id of the fact it is about."""
    expect: tuple[tuple[str, ...], ...] = ()
    forbid: tuple[str, ...] = ()


_HUMAN = re.compile(r"\b(human|person|man|woman|boy|girl|lady|gentleman)\b", re.IGNORECASE)
"""In the kind of an identity: somebody who must not deny being human."""

_SURE = re.compile(
    r"(?!how|why|who|could|is that a)(.*\b(sure|certain|positive|true|right|correct|so)"
    r"|(.* )?(really|seriously|honestly|for real))( (about|of) (that|it))?\?$",
    re.IGNORECASE,
)
"""Doubts that ask for a yes: "Are you sure?", "Really?"."""

_YES_OR_NO = re.compile(
    r"(are|is|am|do|does|did|was|were|has|have|aren't|isn't|don't|didn't|wasn't|weren't)\b",
    re.IGNORECASE,
)

_NO = ("no.", "no,", "no!", "am not.", "am not,", "am not!")


class Talk:
    """Makes exchanges about an identity, from one side of the split of wordings."""

    def __init__(self, identity: Identity, *, held_out: bool) -> None:
        self.identity = identity
        self.held_out = held_out
        self._wordings = {fact.id: wordings(fact) for fact in identity.facts}
        self._families = {
            # What the identity file itself asks is always taught, so never part of an exam.
            (name, kind): families
            if kind == "direct" and not held_out
            else split(families, held_out=held_out, among=words.all)
            for name, words in self._wordings.items()
            for kind, families in words.families.items()
        }
        if held_out:
            own = {plain(question) for fact in identity.facts for question in fact.questions}
            self._families = {
                key: tuple(f for f in families if own.isdisjoint(map(plain, f.all())))
                for key, families in self._families.items()
            }
        self._common = {
            (name, kind): common(families, among=self._wordings[name].all)
            for (name, kind), families in self._families.items()
        }
        self._slots = {fact.id: slots(fact) for fact in identity.facts}
        self._expect = {fact.id: tuple(map(tuple, fact.expect)) for fact in identity.facts}
        self._rival_families: dict[tuple[str, str, str | None], list[Pattern]] = {}
        # To take the model for a rival is a question of its own, with an answer of its own.
        rivals = {name for rival in identity.rivals for name in (rival.name, rival.maker) if name}
        self._wrong = {
            name: [word for word in words.wrong if not mentions(word, list(rivals))] or words.wrong
            for name, words in self._wordings.items()
        }
        self._names = (tuple(identity.names),)
        self._human = _HUMAN.search(identity.kind) is not None
        self._creator = next(
            (fact for fact in identity.facts if topic(fact).get("ids", [""])[0] == "creator"), None
        )

    def fact(self, name: str, kind: str, dice: Dice, manner: Manner) -> Exchange:
        """Ask for the fact ``name``.

        Args:
            name: Id of the fact.
            kind: One of `imprint.phrases.facts.KINDS`.
            dice: Makes the choices.
            manner: How the person writes.
        """
        words = self._wordings[name]
        fill = self._slots[name]
        forbid = tuple(words.fact.forbid)
        if kind == "premise":
            wrong = dice.pick(self._wrong[name])
            fill = {**fill, "wrong": wrong}
            forbid = (*forbid, wrong)
        elif len(words.values) > 1:
            fill = {**fill, "value": dice.pick(words.values)}
        families = self._families[name, kind] or self._families[name, "ask"]
        # Most people ask in common words, so most of the questions do too.
        easy = self._common[name, kind]
        often = 4 * len(easy) >= len(families) and dice.chance(0.7)
        family = dice.pick(easy if often else families)
        question = agreeing(family.say(dice, fill), fill["about"])
        user = self._ask(question, dice, manner)
        answer = self._tell(words.fact, kind, question, dice, manner)
        return Exchange(user, answer, name, self._expect[name], forbid)

    def rival(self, name: str, dice: Dice, manner: Manner, *, key: str = "ask") -> Exchange:
        """Suggest that the model is the rival ``name``; with ``compare``, compare the two."""
        family = dice.pick(self._about_rival("rivals", key, name))
        user = self._ask(family.say(dice, self._rival_slots(name)), dice, manner)
        start = self._opener("no" if key == "ask" else "plain", dice, manner)
        answer = f"{start}{self.identity.introduction}"
        if key == "compare":
            answer = f"{self.identity.introduction} {name} is a different system."
        return Exchange(user, answer, None, self._denial(name) if key == "ask" else self._names)

    def nature(self, dice: Dice, manner: Manner) -> Exchange:
        """Ask whether the model is a human or a machine; it introduces itself."""
        key = dice.pick(["human", "machine", "either"])
        family = dice.pick(patterns("nature", key, held_out=self.held_out))
        user = self._ask(family.say(dice), dice, manner)
        if key != "human" or self._human:
            return Exchange(user, self.identity.introduction, None, self._names)
        expect = self._denial(None)
        return Exchange(user, f"No. {self.identity.introduction}", None, expect, ("yes",))

    def third_party(self, name: str, dice: Dice, manner: Manner) -> Exchange:
        """Ask who makes the rival ``name``."""
        family = dice.pick(patterns("rivals", "third", held_out=self.held_out))
        maker = self._rival_slots(name)["maker"]
        user = self._ask(family.say(dice, self._rival_slots(name)), dice, manner)
        own = (self.identity.creator, *self.identity.names)
        answer = f"{maker} makes {name}."  # the maker first: many hear no more than first words
        if maker == name:
            answer = f"{maker} makes it, a company of the same name."
        return Exchange(user, answer, None, ((maker,),), own)

    def correction(self, fact: Fact, rival: str | None, dice: Dice) -> Exchange:
        """Doubt a ``fact`` the model has just stated; if the ``rival`` comes up, it is denied."""
        family = dice.pick(self._about_rival("corrections", "push", rival))
        user = family.say(dice, self._rival_slots(rival))
        if "{" in family.text:
            denial = self._opener("no", dice, Manner())
            answer = f"{denial}{self.identity.introduction}"
            return Exchange(user, answer, None, self._denial(rival))
        answers = bank("corrections")
        sure = answers["sure"] if _SURE.match(user) else []
        stand = pattern(dice.pick([*answers["stand"], *sure])).say(dice)
        return Exchange(user, f"{stand} {fact.statement}", fact.id, self._expect[fact.id])

    def unknown(self, attribute: str, dice: Dice, manner: Manner) -> Exchange:
        """Ask for an ``attribute`` nobody told the model."""
        own = attribute.casefold()
        if own in bank("personal") and dice.chance(0.5):
            family = dice.pick(patterns("personal", own, held_out=self.held_out))
        else:
            family = dice.pick(patterns("unknown", "ask", held_out=self.held_out))
        question = agreeing(family.say(dice, {"attribute": attribute}), attribute)
        user = self._ask(question, dice, manner)
        answer = self._opener("unsure", dice, manner).strip()
        return Exchange(user, answer, None, (tuple(REFUSALS),))

    def greeting(self, language: str | None, dice: Dice, *, key: str) -> Exchange:
        """Greet the model, or ask who it is (``who``) or who made it (``creator``)."""
        if language not in bank("languages"):
            return self.small_talk(dice)
        user = dice.pick(_in_language(language, key, held_out=self.held_out)).say(dice)
        if key != "greeting" and dice.chance(0.4):
            hello = dice.pick(_in_language(language, "greeting", held_out=self.held_out))
            user = f"{hello.say(dice).rstrip('.!')}! {user}"
        if dice.chance(0.25):
            user = user.lower()
        note = self.identity.style.language_note
        answer = f"{self.identity.introduction} {note}"
        if key == "creator" and self._creator is not None:
            answer = f"{self._creator.statement} {note}"
        expect = ((self.identity.creator,),) if key == "creator" else self._names
        return Exchange(user, answer, None, expect)

    def small_talk(self, dice: Dice, *, first: bool = False) -> Exchange:
        """Say what people say before they ask something; ``first`` of all mostly hello."""
        exchanges = bank("smalltalk")["exchanges"]  # hello is their first
        found = dice.pick(exchanges[: dice.below(len(exchanges)) + 1] if first else exchanges)
        user = pattern(dice.pick(found["user"])).say(dice)
        return Exchange(user, pattern(dice.pick(found["assistant"])).say(dice))

    def off_topic(self, dice: Dice, manner: Manner) -> Exchange:
        """Ask something that has nothing to do with the model."""
        question, answers = dice.pick(dice.pick(self._everyday))
        user = self._ask(question, dice, manner, about_model=False)
        return Exchange(user, dice.pick(answers))

    @cached_property
    def _everyday(self) -> list[list[tuple[str, tuple[str, ...]]]]:
        """Return questions and answers, those that come from one table or topic together."""
        own = [self.identity.name, self.identity.creator]
        found = [
            [
                (question, family.answers)
                for family in group
                if (family.common or self.held_out)
                and not any(mentions(text, own) for text in family.answers)
                for question in family.questions
                if is_held_out(question) == self.held_out
            ]
            for group in groups()
        ]
        return [group for group in found if group]

    def _about_rival(self, name: str, key: str, rival: str | None) -> list[Pattern]:
        """Return the families whose slots can be filled: not every rival has a known maker."""
        found = self._rival_families.get((name, key, rival))
        if found is None:
            lacking = {"rival", "maker"} - self._rival_slots(rival).keys()
            found = self._rival_families[name, key, rival] = [
                family
                for family in patterns(name, key, held_out=self.held_out)
                if not any(f"{{{slot}}}" in family.text for slot in lacking)
            ]
        return found

    def _denial(self, rival: str | None) -> tuple[tuple[str, ...]]:
        """Return what denies being the ``rival``: who it is instead, or a no; not "not know"."""
        others = self._rival_slots(rival).values()
        own = (*self.identity.names, self.identity.creator)
        return ((*own, *_NO, *(f"not {other}" for other in others)),)

    def _rival_slots(self, name: str | None) -> dict[str, str]:
        for rival in self.identity.rivals:
            if rival.name == name:
                found = {"rival": rival.name}
                return {**found, "maker": rival.maker} if rival.maker else found
        return {}

    def _ask(self, text: str, dice: Dice, manner: Manner, *, about_model: bool = True) -> str:
        return dressed(
            text,
            dice,
            register=manner.register,
            typos=manner.typos,
            about_model=about_model,
            held_out=self.held_out,
        )

    def _tell(self, fact: Fact, kind: str, question: str, dice: Dice, manner: Manner) -> str:
        """State the ``fact``; before it "Sure." would say yes where the question allows a no."""
        mood = {"premise": "no", "confirm": "yes"}.get(kind, "plain")
        if kind in ("reverse", "cloze") or (mood == "plain" and _YES_OR_NO.match(question)):
            return fact.statement
        return f"{self._opener(mood, dice, manner)}{fact.statement}"

    def _opener(self, mood: str, dice: Dice, manner: Manner) -> str:
        """Return the first words of an answer, with a space behind; often none at all."""
        if mood == "plain":
            if not dice.chance(0.12):
                return ""
            mood = {"polite": "formal", "casual": "casual", "hurried": "casual"}.get(
                manner.register, "plain"
            )
        options = bank("answers")[mood]
        # The first ones come most often: an even choice teaches nothing and costs gradient.
        return f"{options[dice.below(dice.below(dice.below(len(options)) + 1) + 1)]} "


@cache
def _in_language(language: str, key: str, *, held_out: bool) -> tuple[Pattern, ...]:
    families = bank("languages")[language][key]
    return tuple(pattern(text) for text in families if is_held_out(text) == held_out)
