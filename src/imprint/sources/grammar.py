"""A small grammar for text that varies: rules are lists of templates, slots name other rules.

What a slot in braces may say:

====================  ============================================================================
``{town}``            the value bound to ``town``, or else one alternative of the rule ``town``
``{p=person}``        the same for the rule ``person``, kept as ``p`` for the rest of the document
``{!p=person}``       the same, kept but not shown
``{p.he}``            a field of a bound value, where alternatives are mappings
``{n=#2-9}``          a number from 2 to 9
``{red|dark {hue}}``  one of these templates
``{^p.he}``           any of the above, beginning with a capital letter
``{3-5 of rule}``     three to five different alternatives, joined by spaces
``{3-5 from rule}``   the same, in the order in which the rule lists them
``{3 lines of rule}``       the same, joined by line ends; ``paragraphs`` joins by empty lines
``{3-5 times rule}``  the rule expanded three to five times, joined by spaces; also ``lines``
====================  ============================================================================

A value is never bound twice in a document, so two people of one story have two names.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from imprint.dice import Dice

Alternative = str | Mapping[str, str]
Scope = dict[str, "Value"]
Node = Callable[[Dice, Scope], str]

_MANY = re.compile(r"(\d+)(?:-(\d+))? (?:(lines|paragraphs) )?(of|from|times) (\w+)")
_NUMBER = re.compile(r"#(\d+)-(\d+)")
_PATH = re.compile(r"(?:(!)?(\w+)=)?(#\d+-\d+|\w+)(?:\.(\w+))?")
_JOINTS = {None: " ", "lines": "\n", "paragraphs": "\n\n"}
_ATTEMPTS = 8
"""Draws before a value that was bound already is accepted again."""

_ARTICLE = re.compile(
    r"\b([Aa]) (?=[\"']?(?:[aeiouAEIOU]|hour|honest|heir|8|11\b|18\b))"
    r"(?![\"']?(?:[Uu]ni[cfoqtv]|[Uu]s[eu]|[Uu]til|[Oo]ne\b|[Oo]nce|[Ee]u))"
)
_START = re.compile(r"(?:^|[.!?]\s+|\n)[a-z]")


class Value:
    """An alternative that was chosen: its text, and its fields where it has some."""

    __slots__ = ("fields", "key", "text")

    def __init__(self, key: object, text: Node, fields: Mapping[str, Node]) -> None:
        self.key = key
        self.text = text
        self.fields = fields


class Grammar:
    """Rules, compiled; each is a list of alternatives that are drawn with equal chance."""

    def __init__(self, rules: Mapping[str, Sequence[Alternative]]) -> None:
        """Compile ``rules``.

        Raises:
            ValueError: A template is malformed or names a rule that does not exist.
        """
        self._rules: dict[str, list[Value]] = {name: [] for name in rules}
        self._wanted: set[tuple[str, str]] = set()
        self._bound: set[str] = set()
        for name, alternatives in rules.items():
            for number, alternative in enumerate(alternatives):
                self._rules[name].append(self._value((name, number), alternative))
        for word, where in sorted(self._wanted):
            if not self._rules.get(word) and word not in self._bound:
                raise ValueError(f"no rule is named {word!r}, which {where!r} uses")

    def text(self, rule: str, dice: Dice) -> str:
        """Return one text of ``rule``, with articles and capital letters set right.

        Example:
            >>> rules = {"start": ["{n=name} has a {pet}. {n} likes it."],
            ...     "name": ["Ann", "Bo"], "pet": ["owl", "cat"]}
            >>> Grammar(rules).text("start", Dice(5, "example"))
            'Bo has an owl. Bo likes it.'
        """
        return polished(self._rules_text(rule, dice, {})).strip()

    def _value(self, key: tuple[str, int], alternative: Alternative) -> Value:
        if isinstance(alternative, str):
            return Value(key, self._compile(alternative, key[0]), {})
        fields = {name: self._compile(text, key[0]) for name, text in alternative.items()}
        return Value(key, fields.get("text", _nothing), fields)

    def _compile(self, template: str, where: str) -> Node:
        """Turn a template into a function that expands it."""
        parts: list[Node] = []
        start = 0
        for begin, end in _slots(template, where):
            if begin > start:
                parts.append(partial(_literal, template[start:begin]))
            parts.append(self._slot(template[begin + 1 : end], where))
            start = end + 1
        if start < len(template):
            parts.append(partial(_literal, template[start:]))
        if len(parts) == 1:
            return parts[0]
        return lambda dice, scope: "".join([part(dice, scope) for part in parts])

    def _slot(self, inside: str, where: str) -> Node:
        if inside.startswith("^"):
            node = self._slot(inside[1:], where)
            return lambda dice, scope: _capital(node(dice, scope))
        choices = _split(inside)
        if len(choices) > 1:
            nodes = [self._compile(choice, where) for choice in choices]
            return lambda dice, scope: dice.pick(nodes)(dice, scope)
        many = _MANY.fullmatch(inside)
        if many:
            low, high, joint, kind, rule = many.groups()
            self._wanted.add((rule, where))
            sizes = range(int(low), int(high or low) + 1)
            if kind == "times":
                return partial(self._times, rule, sizes, _JOINTS[joint])
            return partial(self._several, rule, sizes, _JOINTS[joint], kind == "from")
        path = _PATH.fullmatch(inside)
        if not path:
            raise ValueError(f"{where}: {{{inside}}} is not a slot")
        silent, name, target, field = path.groups()
        number = _NUMBER.fullmatch(target)
        if number is None:
            self._wanted.add((target, where))
        if name:
            self._bound.add(name)
            return partial(self._bind, name, target, number, field, bool(silent))
        if number:
            return partial(_number, int(number[1]), int(number[2]))
        return partial(self._refer, target, field)

    def _bind(
        self,
        name: str,
        target: str,
        number: re.Match[str] | None,
        field: str | None,
        silent: bool,
        dice: Dice,
        scope: Scope,
    ) -> str:
        if number:
            text = _number(int(number[1]), int(number[2]), dice, scope)
            scope[name] = Value((target, text), partial(_literal, text), {})
        else:
            taken = {value.key for value in scope.values()}
            value = dice.pick(self._rules[target])
            for _ in range(_ATTEMPTS):
                if value.key not in taken:
                    break
                value = dice.pick(self._rules[target])
            if not value.fields:
                value = Value(value.key, partial(_literal, value.text(dice, scope)), {})
            scope[name] = value
            scope[f"{name} {value.key}"] = value  # a later binding of this name still sees it
        return "" if silent else self._refer(name, field, dice, scope)

    def _refer(self, name: str, field: str | None, dice: Dice, scope: Scope) -> str:
        value = scope.get(name) or dice.pick(self._rules[name])
        return (value.fields[field] if field else value.text)(dice, scope)

    def _several(
        self, rule: str, sizes: range, joint: str, ordered: bool, dice: Dice, scope: Scope
    ) -> str:
        values = self._rules[rule]
        places = dice.sample(range(len(values)), dice.pick(sizes))
        if ordered:
            places.sort()
        return joint.join([values[place].text(dice, scope) for place in places])

    def _times(self, rule: str, sizes: range, joint: str, dice: Dice, scope: Scope) -> str:
        return joint.join([self._rules_text(rule, dice, scope) for _ in range(dice.pick(sizes))])

    def _rules_text(self, rule: str, dice: Dice, scope: Scope) -> str:
        return dice.pick(self._rules[rule]).text(dice, scope)


def polished(text: str) -> str:
    """Return ``text`` with a or an as the next word wants it, and capitals where sentences start.

    Example:
        >>> polished("a apple fell. it was a useful apple.")
        'An apple fell. It was a useful apple.'
    """
    return _START.sub(lambda found: found[0].upper(), with_articles(text))


def with_articles(text: str) -> str:
    """Return ``text`` with an in place of a where the next word begins with a vowel sound.

    Example:
        >>> with_articles("What has a ant, a hour or a unicorn?")
        'What has an ant, an hour or a unicorn?'
    """
    return _ARTICLE.sub(r"\1n ", text)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _literal(text: str, dice: Dice, scope: Scope) -> str:
    return text


def _nothing(dice: Dice, scope: Scope) -> str:
    return ""


def _number(low: int, high: int, dice: Dice, scope: Scope) -> str:
    return str(low + dice.below(high - low + 1))


def _slots(template: str, where: str) -> list[tuple[int, int]]:
    """Return where each outermost pair of braces begins and ends."""
    found, depth, begin = [], 0, 0
    for place, letter in enumerate(template):
        if letter == "{":
            if depth == 0:
                begin = place
            depth += 1
        elif letter == "}":
            depth -= 1
            if depth == 0:
                found.append((begin, place))
        if depth < 0:
            break
    if depth:
        raise ValueError(f"{where}: braces do not match in {template!r}")
    return found


def _split(inside: str) -> list[str]:
    """Split at the bars that no inner pair of braces encloses."""
    pieces, depth, start = [], 0, 0
    for place, letter in enumerate(inside):
        depth += (letter == "{") - (letter == "}")
        if letter == "|" and depth == 0:
            pieces.append(inside[start:place])
            start = place + 1
    return [*pieces, inside[start:]]
