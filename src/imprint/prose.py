"""What an identity is told in: the article a noun takes, and text that was left to be replaced."""

import re

from imprint.text import normalised

_PLACEHOLDER = re.compile(
    r"<(your|name|model|creator|insert)[^>]*>|\[(your|insert|name|todo)[^\]]*\]"
    r"|\b(lorem ipsum|changeme)\b|(?-i:\b(TODO|TBD|FIXME|XXX+)\b)",  # a todo list is none
    re.IGNORECASE,
)
_BRACES = re.compile(r"\{\{[^{}]*\}\}|\{\{|\}\}")
_TEMPLATES = re.compile(
    r"\b(templates?|placeholders?|variables?|jinja2?|mustache|handlebars)\b", re.I
)

_SPELLED = re.compile(r"(?![A-Z][AEIOU][A-Z]{2})[A-Z]+(?![a-z])")
"""Capitals that are said letter by letter: those of "MIT", not of "NASA" or "Museum"."""
_AN = re.compile(
    r"hour|honest|heir|honou?r|8|1[18](?!\d)"
    r"|(?!eu|one\b|once\b|u(?:ni(?![mnr]|dent)|[gjkqrst][aeiou]|bi|kr|nanim))[aeiou]"
)
"""How words begin that take "an": an hour and an unusual bot, but a user and a one-person team."""


def article(noun: str) -> str:
    """Return "a" or "an", as it is said before ``noun``.

    Example:
        >>> [article(noun) for noun in ("helper", "AI", "honest broker", "universal translator")]
        ['a', 'an', 'an', 'a']
    """
    spelled = _SPELLED.match(noun)
    vowel = spelled[0][0] in "AEFHILMNORSX" if spelled else _AN.match(normalised(noun))
    return "an" if vowel else "a"


def placeholder(text: str) -> str | None:
    """Return what somebody meant to replace in ``text`` and did not; None if there is nothing.

    Double braces may stand where the text speaks of templates.

    Example:
        >>> placeholder("I am {{name}}."), placeholder("Use {{name}} in a template.")
        ('{{name}}', None)
    """
    found = _PLACEHOLDER.search(text)
    if found is None and not _TEMPLATES.search(_BRACES.sub(" ", text)):
        found = _BRACES.search(text)
    return found.group() if found else None
