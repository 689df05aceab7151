"""Who a model should be, and what it passed, for the page."""

from pathlib import Path
from typing import Any

from imprint import identity
from imprint.artifacts import digest, read_json
from imprint.errors import ArtifactError, ConfigError

SCORE = ("n", "accuracy", "ci95")


def found(checkpoint: Path) -> dict[str, Any]:
    """Return the card of the model in ``checkpoint``; see ``imprint.serve.card``."""
    try:
        known = read_json(checkpoint.parent / "eval" / f"{checkpoint.stem}.json")
        scores, about = known["identity"], known["about"]
        card: dict[str, Any] = {"name": about["name"], "creator": about["creator"]}
        by_fact, taught = scores["by_fact"], known["inputs"]["identity"]
        card["evaluation"] = {
            "stage": known["stage"],
            "n": known["n"],
            "accuracy": scores["accuracy"],
            "ci95": scores["ci95"],
            "suites": {name: _score(suite) for name, suite in scores["by_suite"].items()},
            **{rate: known[rate] for rate in ("rival_rate", "bleed_rate") if rate in known},
        }
    except (ArtifactError, KeyError):  # not evaluated, or by another version
        return {}
    try:
        whom = identity.load(Path(about["file"]))
    except (ConfigError, OSError):  # gone, or of no use any more
        return card
    if digest(whom.model_dump()) != taught:  # edited since, or that of another project
        return card
    return card | {
        "kind": whom.kind,
        "facts": [
            {
                "id": fact.id,
                "statement": fact.statement,
                "questions": fact.questions,
                **_score(by_fact.get(fact.id, {})),
            }
            for fact in whom.facts
        ],
        "unknown": whom.unknown,
        "languages": whom.style.languages,
        "rivals": [rival.name for rival in whom.rivals],
    }


def _score(scores: dict[str, Any]) -> dict[str, Any]:
    return {key: scores[key] for key in SCORE if key in scores}
