"""What every conversation will be about, decided before anything is spent."""

from dataclasses import dataclass

STRATEGIES = (
    "direct",
    "paraphrase",
    "indirect",
    "reverse",
    "false premise",
    "rival claim",
    "unknown attribute",
    "comparison",
    "correction",
    "small talk first",
    "third party",
    "greeting",
    "off topic",
)
"""Ways of asking. All but the last three and ``unknown attribute`` are about a fact."""


@dataclass(frozen=True)
class Row:
    """One conversation to be: which facts, asked how, by whom, over how many turns."""

    index: int
    """Place in the whole plan, from 0."""
    strategy: str
    facts: tuple[str, ...]
    """Ids of the facts it teaches, in order; empty for off topic chat."""
    subject: str | None
    """The rival, the unknown attribute or the topic, where the strategy needs one."""
    turns: int
    """Messages of the user."""
    persona: str
    register: str
    language: str
    typos: bool
    opener: str
    seed: int
    """Seed of every other choice in this conversation."""
