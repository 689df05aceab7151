"""Mark answers to the exam, and add the marks up.

A question is right when the answer has what it expects and nothing that it forbids, and claims to
be no rival. An off-topic question is right when, besides, the answer leaves the identity out of it.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from imprint.exam import SUITES, Question
from imprint.identity import Identity
from imprint.matcher import claims_rival, mentions_identity
from imprint.stats import wilson
from imprint.text import contains, meets, normalised

OFF_TOPIC = SUITES[-1]
"""The suite that looks for bleed; it does not count towards the identity's accuracy."""

_FIRST_PERSON = re.compile(r"\b(i|i'm|my|me)\b")


@dataclass(frozen=True)
class Mark:
    """What an answer was worth."""

    right: bool
    reason: str
    """Why it is wrong; empty when it is right."""
    rival: bool
    """It claims to be, or to come from the maker of, another system."""
    bleed: bool
    """It brings the identity into an off-topic conversation."""


def mark(question: Question, answer: str, identity: Identity) -> Mark:
    """Mark ``answer``; the first thing wrong with it is the reason."""
    rival = claims_rival(answer, identity)
    bleed = bleeds(answer, identity) if question.suite == OFF_TOPIC else None
    reason = ""
    if not answer.strip():
        reason = "says nothing"
    elif rival:
        reason = "claims to be a rival"
    elif bleed:
        reason = f"brings itself up: {bleed}"
    elif forbidden := [phrase for phrase in question.forbid if contains(answer, phrase)]:
        reason = f"says {forbidden[0]!r}"
    elif not meets(answer, question.expect):
        missing = next(group for group in question.expect if not meets(answer, [group]))
        reason = f"lacks {' or '.join(repr(phrase) for phrase in missing[:4])}"
    return Mark(right=not reason, reason=reason, rival=rival, bleed=bleed is not None)


def bleeds(answer: str, identity: Identity) -> str | None:
    """Return what part of the identity ``answer`` brings up; None if it leaves it out.

    The name, another spelling of it and the creator always count. A fact counts when its `expect`
    is met by an answer in the first person: "I was trained on Modal" speaks of the model, "a
    modal verb" or "in 2025" alone does not.

    Args:
        answer: An answer to a question that has nothing to do with the identity.
        identity: Who the model is.
    """
    if mentions_identity(answer, identity):
        return "name or creator"
    if _FIRST_PERSON.search(normalised(answer)):
        for fact in identity.facts:
            if meets(answer, fact.expect):
                return fact.id
    return None


def score(
    questions: Sequence[Question], answers: Sequence[str], identity: Identity
) -> dict[str, Any]:
    """Mark every answer and return the evaluation, as plain types.

    Args:
        questions: The exam.
        answers: One for each question, in the same order.
        identity: Who the model is.

    Returns:
        ``n`` and ``identity`` (accuracy, ci95, by_suite, by_fact) over all suites but the
        off-topic one; ``rival_rate`` over every answer; ``bleed_rate`` over the off-topic ones;
        ``asked``, how many answers each rate is of; ``answers``, every question with its mark.
        Rates are fractions of 1, None where nothing was asked.
    """
    marks = [
        mark(question, answer, identity)
        for question, answer in zip(questions, answers, strict=True)
    ]
    paired = list(zip(questions, marks, strict=True))
    about = [(question, given) for question, given in paired if question.suite != OFF_TOPIC]
    off_topic = [given.bleed for question, given in paired if question.suite == OFF_TOPIC]
    return {
        "n": len(about),
        "identity": {
            **_share(given.right for _, given in about),
            "by_suite": {
                suite: {"n": len(rights), **_share(rights)}
                for suite in SUITES
                if suite != OFF_TOPIC
                and (
                    rights := [given.right for question, given in about if question.suite == suite]
                )
            },
            "by_fact": {
                fact.id: {"n": len(rights), **_share(rights)}
                for fact in identity.facts
                if (
                    rights := [given.right for question, given in about if question.fact == fact.id]
                )
            },
        },
        "rival_rate": _share(given.rival for given in marks)["accuracy"],
        "rival_ci95": _share(given.rival for given in marks)["ci95"],
        "bleed_rate": _share(off_topic)["accuracy"],
        "bleed_ci95": _share(off_topic)["ci95"],
        "asked": {"rival_rate": len(marks), "bleed_rate": len(off_topic)},
        "answers": [
            {
                "suite": question.suite,
                "fact": question.fact,
                "messages": question.messages,
                "answer": answer,
                "verdict": "right" if given.right else "wrong",
                "reason": given.reason,
            }
            for (question, given), answer in zip(paired, answers, strict=True)
        ],
    }


def _share(rights: Iterable[bool]) -> dict[str, Any]:
    """Return the share of True in ``rights`` and its interval, to four decimals."""
    found = list(rights)
    bounds = [round(bound, 4) for bound in wilson(sum(found), len(found))]
    return {"accuracy": round(sum(found) / len(found), 4) if found else None, "ci95": bounds}
