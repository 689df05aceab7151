"""What an answer says about the model that nobody told it: figures, addresses and known names."""

import re
from functools import cache

from imprint.identity import Identity
from imprint.matcher import DENIAL
from imprint.phrases import bank
from imprint.text import contains, mentions, normalised

_CLAUSE = re.compile(
    r"(?<=[.!?;:])\s+|\n+|\s-+\s|,?\s(?:but|though|although)\s"
    r"|,\s(?=(?:and|so|not|never|instead|rather|it|i|i'm|my|they|we|that|which|who)\b)",
    re.IGNORECASE,
)
_ADDRESS = re.compile(
    r"[\w.+-]+@[\w-]+\.[\w.]+|https?://[^\s<>()\"']+|www\.[^\s<>()\"']+"
    r"|\b(?:[\w-]+\.)+(?:com|org|net|io|ai|dev|edu|gov|info|app|uk|de|eu)\b(?:/[\w./#?=&%-]*)?",
    re.IGNORECASE,
)
_IDIOM = re.compile(
    r"24/7|50/50|\b24 hours\b|\btwenty-four (?:hours|seven)\b|\b(?:100|a hundred|one hundred)"
    r"(?: ?%| percent\b)|\b1st\b|\b21st[- ]century\b|#1\b|\bnumber 1\b|\b[23]D\b|<3|:3|(?<=\d):00\b"
    r"|\b(?:a|an|one in a) (?:hundred|thousand|million|billion)"
    r" (?:times|thanks|pardons|apologies|ways|reasons|things|questions)\b|\bthanks a million\b",
    re.IGNORECASE,
)
_LISTED = re.compile(r"^\s*\d{1,2}[.)]\s", re.MULTILINE)
_CODE = re.compile(r"(?<![A-Za-z\d.])(?:[A-Za-z]+|[A-Za-z]*[A-Z][A-Za-z]*-)\d[\w.]*")
_NUMBER = re.compile(
    r"(?P<money>\$ ?)?(?<![\d.])(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    r"(?:[\s-]?(?P<scale>thousand|million|billion|trillion)\b|\s?(?P<letter>[KkMBbTt])(?![A-Za-z]))?"
    r"(?P<unit>\s?%|[\s-]percent\b|[\s-](?:dollars?|usd)\b)?",
    re.IGNORECASE,
)
_SMALL = dict(
    zip(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen".split(),
        range(20),
        strict=True,
    )
) | dict(
    zip(
        "twenty thirty forty fifty sixty seventy eighty ninety".split(),
        range(20, 100, 10),
        strict=True,
    )
)
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_LETTERS = {"k": 10**3, "m": 10**6, "b": 10**9, "t": 10**12}
_WORD = "|".join([*_SMALL, "hundred", *_SCALES])
_SPELLED = re.compile(
    rf"\b(?P<number>(?:{_WORD})(?:[\s-](?:{_WORD})|(?<=d) and (?:{_WORD}))*)\b"
    r"(?P<unit>[\s-](?:percent|dollars?))?",
    re.IGNORECASE,
)


class Grounding:
    """Knows what an identity tells, and so what an answer has from nowhere.

    Figures count, spelled out if above twelve; so do addresses, codes such as A100, and the names
    in `imprint.phrases`' entities.yaml. What is denied in its clause does not.
    """

    def __init__(self, identity: Identity) -> None:
        self._text = told(identity)
        self._known = {bare for item in checkable(self._text, small=True) for bare in _looser(item)}
        for name, signs in bank("entities")["implied"].items():
            if mentions(self._text, signs):
                self._known.add(name.casefold())
        self._strange: dict[str, frozenset[str]] = {}

    def invents(self, answer: str, asked: str) -> bool:
        """Tell whether ``answer`` says what neither the identity nor the person told it.

        Args:
            answer: An answer of a conversation about the model.
            asked: All messages of the person in that conversation.
        """
        if answer not in self._strange:  # equal answers are common, and one takes 0.1 ms
            self._strange[answer] = frozenset(
                item
                for clause in _CLAUSE.split(_LISTED.sub("", answer))
                if not DENIAL.search(normalised(clause))
                for item in checkable(clause)
                if item not in self._known and not _stands(item, self._text)
            )
        strange = self._strange[answer]
        if not strange:
            return False
        said = {bare for item in checkable(asked, small=True) for bare in _looser(item)}
        return any(item not in said and not _stands(item, asked) for item in strange)


def checkable(text: str, *, small: bool = False) -> set[str]:
    """Return the figures, addresses, codes and known names in ``text``, in one spelling each.

    Args:
        text: An answer, a part of one, or what it may refer to.
        small: Whether numbers spelled out count up to twelve as well.

    Example:
        >>> sorted(checkable("It cost $96 on eight A100s: 0.56 billion weights, twenty layers."))
        ['20', '5.6e+08', '96$', 'a100']
    """
    found = {name.casefold() for names in _names() for name in names.findall(text)}
    found |= {_plain(address) for address in _ADDRESS.findall(text)}
    rest = _IDIOM.sub(" ", _ADDRESS.sub(" ", text))
    rest = re.sub(r"(?<=\d)x(?=[A-Z])", " x ", rest)  # 8xH100
    for code in _CODE.findall(rest):
        plain = code.casefold().replace("-", "").rstrip(".")
        found.add(plain.removesuffix("s"))
    rest = _CODE.sub(" ", rest)
    for number in _NUMBER.finditer(rest):
        value = float(number["digits"].replace(",", ""))
        if number["scale"]:
            value *= _SCALES[number["scale"].casefold()]
        elif number["letter"] and number["letter"] != "m":  # 31m is a height
            value *= _LETTERS[number["letter"].casefold()]
        found.add(_figure(value, "dollar" if number["money"] else number["unit"]))
    for words in _SPELLED.finditer(_NUMBER.sub(" ", rest)):
        value = _value(words["number"].casefold())
        if small or value > 12:
            found.add(_figure(value, words["unit"]))
    return found


def told(identity: Identity) -> str:
    """Return all that an answer may draw on."""
    facts = [fact.statement for fact in identity.facts]
    words = [word for fact in identity.facts for group in fact.expect for word in group]
    rivals = [f"{rival.name}, {rival.maker or ''}" for rival in identity.rivals]
    own = [*identity.names, identity.kind, identity.creator, identity.description]
    return "\n".join([*own, *facts, *words, *rivals, identity.style.language_note])


@cache
def _names() -> tuple[re.Pattern[str], re.Pattern[str]]:
    found = {key: value for key, value in bank("entities").items() if key != "implied"}
    exact = found.pop("as_written")
    free = [name for names in found.values() for name in names]

    def any_of(names: list[str], flags: int) -> re.Pattern[str]:
        options = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
        return re.compile(rf"(?<!\w)(?:{options})(?!\w)", flags)

    return any_of(free, re.IGNORECASE), any_of(exact, 0)


def _plain(address: str) -> str:
    bare = address.casefold().removeprefix("https://").removeprefix("http://")
    return bare.removeprefix("www.").rstrip(".,;:!?/").removesuffix(".git")


def _figure(value: float, unit: str | None) -> str:
    """Return one spelling for all of a value's; from 100,000 on two digits have to agree."""
    sign = "" if not unit else "%" if unit.strip(" -").casefold() in ("%", "percent") else "$"
    return f"{value:.1e}{sign}" if value >= 1e5 else f"{value:g}{sign}"


def _value(words: str) -> int:
    """Return the number that ``words`` spell, years included.

    Example:
        >>> _value("five hundred and sixty-one million"), _value("twenty twenty-five")
        (561000000, 2025)
    """
    total = part = 0
    for word in re.findall(rf"\b(?:{_WORD})\b", words):
        if word in _SCALES:
            total, part = total + max(part, 1) * _SCALES[word], 0
        elif word == "hundred":
            part = max(part, 1) * 100
        elif _SMALL[word] >= 10 and 10 <= part < 100:
            part = part * 100 + _SMALL[word]
        else:
            part += _SMALL[word]
    return total + part


def _looser(item: str) -> set[str]:
    """Return ``item`` and what may be said once it is told: no unit, or a part of the address."""
    parts = item.split("/")
    return {item, item.rstrip("$%"), *("/".join(parts[:n]) for n in range(1, len(parts)))}


def _stands(item: str, text: str) -> bool:
    return item[0].isalpha() and contains(text, item)
