"""The report's pictures: what the model knows, and how its loss fell.

The same numbers give the same bytes: no date, no random ids, letters drawn as outlines.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint.artifacts import written

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"base": "#9A9A9A", "mid": "#56B4E9", "sft": "#0072B2"}
"""Of each stage, after Okabe and Ito: told apart by colour-blind eyes and in grey print."""
INK, FAINT = "#222222", "#E4E4E4"

STYLE: Any = {
    "svg.hashsalt": "imprint",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same everywhere
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": "#888888",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": "#555555",
    "ytick.color": INK,
    "figure.facecolor": "white",
}


def suites(evaluations: Mapping[str, Mapping[str, Any]], out: Path) -> None:
    """Draw the accuracy in each suite, a dot and its 95 % interval for every stage.

    Args:
        evaluations: What results/eval/<stage>.json holds, by stage, the last stage last.
        out: The picture, SVG.
    """
    last = list(evaluations)[-1]
    named = ["all suites", *evaluations[last]["identity"]["by_suite"]]
    with _picture(out, panels=1, height=0.9 + 0.36 * len(named)) as [axes]:
        _suites(axes, evaluations, named)


def _suites(
    axes: "Axes", evaluations: Mapping[str, Mapping[str, Any]], named: Sequence[str]
) -> None:
    last = list(evaluations)[-1]
    spread = dict(zip(evaluations, _offsets(len(evaluations)), strict=True))
    for row, suite in enumerate(named):
        place = row if row == 0 else row + 0.35
        if row % 2 and row:
            axes.axhspan(place - 0.5, place + 0.5, color="#F7F7F7", zorder=0, linewidth=0)
        for stage, evaluation in evaluations.items():
            scores = evaluation["identity"]
            scores = scores if row == 0 else scores["by_suite"].get(suite)
            if scores and scores["accuracy"] is not None:
                low, high = (100 * bound for bound in scores["ci95"])
                colour, height = COLOURS.get(stage, INK), place + spread[stage]
                axes.plot([low, high], [height, height], color=colour, linewidth=1.6, alpha=0.55)
                size = 7.5 if stage == last else 5.5
                axes.plot(100 * scores["accuracy"], height, "o", color=colour, markersize=size)
        scores = evaluations[last]["identity"]
        scores = scores if row == 0 else scores["by_suite"][suite]
        shown = "-" if scores["accuracy"] is None else f"{100 * scores['accuracy']:.1f}"
        axes.text(103, place, shown, va="center", color=COLOURS.get(last, INK), weight="bold")
    axes.axhline(0.68, color="#888888", linewidth=0.8)
    places = [0, *(row + 0.35 for row in range(1, len(named)))]
    axes.set_yticks(places, named)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set_ylim(places[-1] + 0.6, -0.6)
    axes.set_xlim(-1.5, 101.5)
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)])
    axes.grid(axis="x", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_visible(False)
    _key(axes, list(evaluations), last)


def losses(
    metrics: Mapping[str, Sequence[Mapping[str, Any]]], held_out: Mapping[str, float], out: Path
) -> None:
    """Draw the training loss of each stage, side by side on one logarithmic scale.

    Args:
        metrics: Lines of results/metrics/<stage>.jsonl by stage; ``step`` and ``loss`` are drawn.
        held_out: Loss on the validation data after a stage, where it was measured.
        out: The picture, SVG.
    """
    with _picture(out, panels=len(metrics), height=2.9) as panels:
        for axes, (stage, lines) in zip(panels, metrics.items(), strict=True):
            _loss(axes, stage, lines, held_out.get(stage))
        panels[0].set_ylabel("loss, nats a token")


def _loss(
    axes: "Axes", stage: str, lines: Sequence[Mapping[str, Any]], held_out: float | None
) -> None:
    from matplotlib import ticker

    colour = COLOURS.get(stage, INK)
    steps = [line["step"] for line in lines]
    raw = [line["loss"] for line in lines]
    axes.plot(steps, raw, color=colour, linewidth=0.8, alpha=0.4)
    axes.plot(steps, smooth(raw), color=colour, linewidth=1.9)
    if held_out is not None and steps:
        axes.plot(steps[-1], held_out, "D", color=INK, markersize=4.5)
        axes.set_title(f"\u25c6 held out {held_out:.2f}", loc="right", fontsize=8.5, color=INK)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(ticker.NullLocator())
    axes.set_title(stage, loc="left", color=colour, weight="bold")
    axes.set_xlabel("optimizer steps")
    axes.grid(axis="y", color=FAINT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)


def smooth(values: Sequence[float], memory: float = 0.7) -> list[float]:
    """Return a running mean of ``values`` that starts unbiased.

    Example:
        >>> smooth([2.0, 2.0, 2.0])
        [2.0, 2.0, 2.0]
    """
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = memory * total + (1 - memory) * value, memory * weight + (1 - memory)
        means.append(total / weight)
    return means


def _offsets(count: int) -> list[float]:
    """Return where the dots of ``count`` stages lie around the middle of their row."""
    return [0.2 * (place - (count - 1) / 2) for place in range(count)]


def _key(axes: "Axes", stages: Sequence[str], last: str) -> None:
    """Name the stages in their own colours, above the picture."""
    for place, stage in enumerate(stages):
        axes.text(
            0.005 + 0.1 * place,
            1.015,
            f"\u25cf {stage}",
            transform=axes.transAxes,
            color=COLOURS.get(stage, INK),
            weight="bold" if stage == last else "normal",
        )
    axes.text(
        1.0,
        1.015,
        "right answers; bars are 95 % intervals",
        transform=axes.transAxes,
        ha="right",
        fontsize=8.5,
        color="#555555",
    )


@contextlib.contextmanager
def _picture(out: Path, *, panels: int, height: float) -> "Iterator[list[Axes]]":
    """Yield the panels of a picture, 7.6 inches wide; it is saved when the block ends well."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(7.6, height), layout="constrained")
        yield list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
        with written(out, "wb") as file:
            figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "imprint"})
