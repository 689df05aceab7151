"""What a journal tells afterwards: what each model did, and what it answered."""

from typing import Any

from imprint.generation.journal import Journal


def models(journal: Journal) -> list[dict[str, Any]]:
    """Return what each model did: answers, conversations, flawed, tokens, USD, mean seconds."""
    return _rows(
        journal,
        "SELECT provider, model, count(*) AS answers, count(flaw) AS flawed,"
        " count(DISTINCT conversation) AS conversations, sum(input) AS input,"
        " sum(output) AS output, sum(cost_usd) AS usd, avg(seconds) AS seconds FROM answers"
        " GROUP BY provider, model ORDER BY provider, model",
    )


def answers(journal: Journal, conversation: int) -> list[dict[str, Any]]:
    """Return the answers to a conversation of the plan, oldest first, as the table has them."""
    found = "SELECT * FROM answers WHERE conversation = ? ORDER BY at"
    return _rows(journal, found, conversation)


def _rows(journal: Journal, query: str, *values: object) -> list[dict[str, Any]]:
    cursor = journal.db.execute(query, values)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
