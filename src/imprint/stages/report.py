"""Gather evaluations, manifests and loss curves into one page with two pictures."""

from pathlib import Path
from typing import Any

from imprint import plots, records, story
from imprint.artifacts import read_json, written
from imprint.errors import ArtifactError

VERSION = 1


def run(*, evaluations: list[Path], manifests: list[Path], metrics: list[Path], out: Path) -> None:
    """Write the report ``out``, and suites.svg and losses.svg beside it.

    Args:
        evaluations: results/eval/<stage>.json, in the order of the stages.
        manifests: Those of the stages, in their order; the identity's holds the data funnel.
        metrics: results/metrics/<stage>.jsonl, in the order of the stages.
        out: The page, markdown.

    Raises:
        ArtifactError: A file is missing, is not JSON, or there is no evaluation.
        RecordError: A line of the metrics is not JSON.
    """
    if not evaluations:
        raise ArtifactError(f"{out}: no evaluation to report on. Run `make identity`.")
    found = {path.stem: read_json(path) for path in evaluations}
    told = [read_json(path) for path in manifests]
    curves = {path.stem: [line for _, line in records.lines(path)] for path in metrics}
    held_out = {stage: found[stage]["val_loss"] for stage in found if "val_loss" in found[stage]}
    plots.suites(found, out.parent / "suites.svg")
    if curves:
        plots.losses(curves, held_out, out.parent / "losses.svg")
    with written(out) as file:
        file.write(page(found, told, curves=bool(curves)))


def page(
    evaluations: dict[str, dict[str, Any]], manifests: list[dict[str, Any]], *, curves: bool
) -> str:
    """Return the whole page.

    Args:
        evaluations: By stage, the last one last.
        manifests: In the order of the stages.
        curves: Whether there is a picture of loss curves.
    """
    last = list(evaluations.values())[-1]
    data = next((manifest for manifest in manifests if "funnel" in manifest), {})
    picture = "![Loss of each training stage](losses.svg)"
    sections = {
        f"{last['about']['name']}: what it knows about itself": story.headline(evaluations),
        "By kind of question": "\n\n".join(
            [
                "![Right answers by suite and stage, with 95 % intervals](suites.svg)",
                story.suites(evaluations),
                story.off_topic_note(last),
            ]
        ),
        "What else it can do": story.abilities(evaluations),
        "Fact by fact": story.facts(last, data.get("coverage", {})),
        "One conversation of each kind": story.transcripts(evaluations),
        "Mistakes": story.mistakes(last),
        "How it learned": "\n\n".join(
            filter(None, [picture if curves else "", story.learning(manifests), _losses(manifests)])
        ),
        "What it learned from": story.funnel(data) if data else "",
        "What its conversations cost": story.bill(data) if data else "",
        "What it took": story.work(manifests) if manifests else "",
        "How to make it again": story.recipe(last, manifests),
    }
    parts = [
        f"{'#' if place == 0 else '##'} {title}\n\n{text}"
        for place, (title, text) in enumerate(sections.items())
        if text
    ]
    return "\n\n".join(parts) + "\n"


def _losses(manifests: list[dict[str, Any]]) -> str:
    """Say why a held-out loss lies below that of training, where only openings are trained on."""
    if all(manifest.get("settings", {}).get("whole_answers", 1) == 1 for manifest in manifests):
        return ""
    return (
        "A held-out loss, a diamond in the picture, can lie below the training loss: in most "
        "conversations training scores only the first words of an answer, which are the hardest to "
        "tell, while held-out answers are scored whole."
    )
