"""Markdown that reads well as plain text: tables with aligned columns, bars, quoted talk."""

import re
from collections.abc import Collection, Sequence

_MARKUP = re.compile(r"[\\`*<\[~]|(?<!\w)_|_(?!\w)")


def table(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()
) -> str:
    """Return a markdown table whose columns are also aligned as plain text.

    Args:
        heads: Names of the columns.
        rows: A cell for each column.
        right: Columns whose cells stand to the right, such as numbers.

    Example:
        >>> print(table(["suite", "n"], [["reverse", "40"], ["indirect", "7"]], right=["n"]))
        | suite    |  n |
        |:---------|---:|
        | reverse  | 40 |
        | indirect |  7 |
    """
    cells = [[cell.replace("|", "\\|") for cell in row] for row in [heads, *rows]]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(heads))]
    widths = [
        max(len(row[column]) for row in cells) if head in right else width
        for column, (head, width) in enumerate(zip(heads, widths, strict=True))
    ]
    lines = []
    for row in cells:
        padded = (
            cell.rjust(width) if head in right else cell.ljust(width)
            for cell, width, head in zip(row, widths, heads, strict=True)
        )
        lines.append(f"| {' | '.join(padded)} |")
    rule = (
        "-" * (width + 1) + ":" if head in right else ":" + "-" * (width + 1)
        for width, head in zip(widths, heads, strict=True)
    )
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def percent(share: float | None) -> str:
    """Return a fraction of 1 as percent with one decimal; a dash for None.

    Example:
        >>> percent(0.9775), percent(None)
        ('97.8 %', '-')
    """
    return "-" if share is None else f"{100 * share:.1f} %"


def interval(bounds: Sequence[float]) -> str:
    """Return the two bounds of an interval as percent.

    Example:
        >>> interval([0.91, 0.973])
        '91.0 to 97.3 %'
    """
    return f"{100 * bounds[0]:.1f} to {percent(bounds[1])}"


def bar(share: float | None, width: int = 10) -> str:
    """Return a bar that is filled up to ``share``, a fraction of 1.

    Example:
        >>> bar(0.75, width=4)
        '███░'
    """
    filled = round((share or 0.0) * width)
    return "█" * filled + "░" * (width - filled)


def duration(seconds: float) -> str:
    """Return a time as people say it.

    Example:
        >>> duration(7.25), duration(95), duration(13860)
        ('7.2 s', '1 min 35 s', '3 h 51 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def plain(text: str) -> str:
    r"""Return ``text`` on one line, with what markdown would take for markup escaped.

    Example:
        >>> plain("a *bold*\n<b>claim</b> about snake_case")
        'a \\*bold\\* \\<b>claim\\</b> about snake_case'
    """
    return _MARKUP.sub(lambda found: "\\" + found.group(), " ".join(text.split()))


def said(who: str, text: str) -> str:
    r"""Return one turn of a conversation as a quoted paragraph.

    Example:
        >>> print(said("person", "Who are you?"))
        > **person**  Who are you?
        >
    """
    return f"> **{who}**  {plain(text) or '(nothing)'}\n>"
