"""Documents of many genres: stories, guides, articles, profiles, letters, talks and quizzes.

The material is in data/documents/*.yaml, as rules of one grammar; quizzes and inquiries are made of
the everyday questions that chat uses too, except the phrasings that only an exam may ask.
"""

from functools import cache
from typing import Any

from imprint.dice import Dice
from imprint.heldout import is_held_out
from imprint.phrases import FOLDER, Pattern, bank, pattern
from imprint.sources.exchanges import groups, listed, load, unanswered
from imprint.sources.grammar import Alternative, Grammar, polished

GENRES = {
    "story": 4,
    "project": 4,
    "making": 3,
    "portrait": 3,
    "quiz": 3,
    "dialogue": 3,
    "letter": 2,
    "thesaurus": 2,
    "article": 2,
    "howto": 1,
    "greetings": 1,
    "phrasebook": 20,
    "inquiry": 8,
}
"""How often each genre is drawn, compared with the others."""

_DRAWN = tuple(genre for genre, weight in GENRES.items() for _ in range(weight))

QUIZ_FRAMES = (
    ("Q: {question}\nA: {answer}", "\n\n"),
    ("Question: {question}\nAnswer: {answer}", "\n\n"),
    ('"{question}" asked {one}.\n"{spoken}" said {other}.', "\n"),
    ('{one} asked, "{question}"\n{other} replied, "{answer}"', "\n"),
    ("- {question}\n- {answer}", "\n"),
    ("{question} {answer}", "\n"),
)
"""How a quiz writes a question with its answer, and what stands between two of them."""

ASKERS = (
    ("the teacher", "the girl"),
    ("the child", "the mother"),
    ("the boy", "his grandfather"),
    ("the visitor", "the guide"),
    ("one student", "another"),
    ("the reporter", "the expert"),
    ("the host", "the guest"),
    ("the customer", "the shopkeeper"),
    ("the little sister", "her brother"),
    ("the neighbour", "the old man"),
)

PHRASEBOOKS = (
    ("Other ways to say it:\n", "\n"),
    ("The same question in many words.\n", "\n"),
    ("", " That is to say: "),
    ("", " In other words: "),
    ("People ask the same thing in different ways. ", " "),
)
"""How a phrasebook begins, and what stands between two of its questions."""

_QUIZ_LENGTHS = range(3, 8)
_PHRASES = range(3, 9)
_CAPITALS = 0.07
_CARELESS = 0.07
_TABLE_WEIGHT = 10


def document(dice: Dice) -> str:
    """Return one document, some hundred to two thousand characters long."""
    genre = dice.pick(_DRAWN)
    if genre == "quiz":
        text = quiz(dice)
    elif genre == "phrasebook":
        text = phrasebook(dice)
    elif genre == "inquiry":
        text = inquiry(dice)
    else:
        text = _grammar().text(genre, dice)
    # People shout and people are in a hurry: a tokenizer that has never seen it spells such words
    # out letter by letter, and the model reads nothing in them.
    if dice.chance(_CAPITALS):
        return text.upper()
    return text.lower().replace("'", "") if dice.chance(_CARELESS) else text


def phrasebook(dice: Dice) -> str:
    """Return several wordings of one question, out of those that training may use."""
    start, joint = dice.pick(PHRASEBOOKS)
    families = dice.pick(_phrases())
    chosen = dice.sample(families, min(len(families), dice.pick(_PHRASES)))
    said = [family.say(dice) for family in chosen]
    return start + joint.join(text[0].upper() + text[1:] for text in said)


@cache
def _phrases() -> list[list[Pattern]]:
    """Return the wordings that training may use and that need no filling in, topic by topic."""
    found = []
    for path in sorted(FOLDER.glob("topics/*.yaml")):
        topic = bank(f"topics/{path.stem}")
        families = [pattern(text) for text in (*topic["ask"], *topic["indirect"])]
        usable = [family for family in families if "{" not in family.text]
        # More strictly than `phrases.split`: what an exam might ask for any identity stays out.
        found.append([family for family in usable if not is_held_out(family.text)])
    return found


def inquiry(dice: Dice) -> str:
    """Return several questions of one kind that nobody answers."""
    questions = dice.pick(_unanswered())
    return "\n".join(dice.sample(questions, min(len(questions), dice.pick(_PHRASES))))


@cache
def _unanswered() -> list[list[str]]:
    """Return the questions without an answer that training may use, table by table."""
    return [[text for family in group for text in family.taught] for group in unanswered()]


def quiz(dice: Dice) -> str:
    """Return some everyday questions with their answers, in one of several forms."""
    frame, joint = dice.pick(QUIZ_FRAMES)
    one, other = dice.pick(ASKERS)
    pairs = _pairs()
    parts = []
    for _ in range(dice.pick(_QUIZ_LENGTHS)):
        questions, answers = dice.pick(dice.pick(pairs))
        question, answer = dice.pick(questions), dice.pick(answers)
        spoken = f"{answer[:-1]}," if answer.endswith(".") else answer
        parts.append(
            frame.format(one=one, other=other, question=question, answer=answer, spoken=spoken)
        )
    return polished(joint.join(parts))


Pairs = list[list[tuple[list[str], tuple[str, ...]]]]


@cache
def _pairs() -> Pairs:
    """Return the questions that may be printed, with their answers; tables weighted."""
    found: Pairs = []
    for group in groups():
        pairs = []
        for family in group:
            questions = [text for text in family.taught if text.endswith("?")]
            if questions and family.topic != "talk":
                pairs.append((questions, family.answers))
        if pairs:
            found += [pairs] * min(len(group), _TABLE_WEIGHT)
    return found


@cache
def _grammar() -> Grammar:
    """Return the rules of all files together; articles and guides become rules as well."""
    rules: dict[str, list[Alternative]] = {}
    for name in listed("documents"):
        content = load(name)
        if name.endswith("articles.yaml"):
            content = _articles(content["articles"])
        elif name.endswith("howto.yaml"):
            content = _guides(content["howtos"])
        for rule, alternatives in content.items():
            if rule in rules:
                raise ValueError(f"{name}: the rule {rule!r} exists already")
            rules[rule] = [_text(alternative) for alternative in alternatives]
    return Grammar(rules)


def _articles(articles: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return rules that draw one article: its first sentence, some others, often a title."""
    rules: dict[str, list[str]] = {"article": []}
    for number, article in enumerate(articles):
        facts = f"article_{number}"
        rules[facts] = article["facts"][1:]
        few = f"{article['facts'][0]} {{3-{len(article['facts']) - 2} from {facts}}}"
        rules["article"] += [few, f"{article['title']}\n\n{few}"]
    return rules


def _guides(guides: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return rules that print the steps of one guide in order, in one of several forms."""
    rules: dict[str, list[str]] = {"howto": []}
    for number, guide in enumerate(guides):
        task, steps = guide["task"], guide["steps"]
        rules[f"howto_{number}_tip"] = guide["tips"]
        tips = f"{{1-{len(guide['tips'])} of howto_{number}_tip}}"
        need = " and ".join(filter(None, [", ".join(guide["need"][:-1]), guide["need"][-1]]))
        listed_ = "\n".join(f"{place}. {step}" for place, step in enumerate(steps, start=1))
        linked = " ".join(_linked(steps))
        rules["howto"] += [
            f"How to {task}\n\n{{You need|You will need|Get}} {need}.\n\n{listed_}\n\n{tips}",
            f'"{{How do I|How can I|How do you}} {task}?" asked {{person}}.\n"{{It is easy|Gladly|'
            f'I will show you}}," said {{person}}. "You need {need}. {linked}"\n'
            f'"{{Is there anything else|Any tips}}?"\n"{{Yes, there is|Sure|Of course}}. {tips}"',
            f"{{Here is how to|This is how people|My friend {{person}} taught me to}} {task}. "
            f"{linked} {tips}",
        ]
    return rules


def _linked(steps: list[str]) -> list[str]:
    """Return the steps with words between them that say what comes when."""
    links = ["First,", "{Then|Next|After that},", "", "{Then|Now},", "", "{At the end|Finally},"]
    linked = []
    for place, step in enumerate(steps):
        link = links[-1] if place == len(steps) - 1 else links[place % (len(links) - 1)]
        linked.append(f"{link} {step[0].lower()}{step[1:]}" if link else step)
    return linked


def _text(alternative: object) -> Alternative:
    if isinstance(alternative, dict):
        return {str(key): str(value) for key, value in alternative.items()}
    return str(alternative)
