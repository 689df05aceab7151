"""How large a model can be: ``imprint scales``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from imprint.commands.planning import duration

if TYPE_CHECKING:
    from imprint.settings import Settings

app = typer.Typer()

GPUS, PEAK_FLOPS, UTILISATION = 8, 989e12, 0.4
"""H100 SXM, dense bfloat16, by NVIDIA's data sheet; the share of it that training gets to use."""


@app.command("scales")
def list_scales() -> None:
    """List how large a model can be: names for `scale` in config/config.yaml, and what they take.

    The rest of config/config.yaml counts as well.
    """
    from imprint import yamlfile
    from imprint.settings import resolve

    config: dict[str, Any] = yamlfile.load(Path("config/config.yaml"))[0]
    names = sorted(path.stem for path in Path("config/scales").glob("*.yaml"))
    scales = {name: resolve({**config, "scale": name}, root=Path()) for name in names}
    console = Console(highlight=False)
    console.print(table(scales))
    console.print(
        f"Pretraining alone; hours for {GPUS} H100 at {UTILISATION:.0%} of their peak.",
        soft_wrap=True,
    )


def pretraining(settings: "Settings") -> str:
    """Return a sentence about what pretraining takes with ``settings``, of a model worth a GPU."""
    from imprint import dial

    shape, base = dial.shape(settings.model), settings.base
    assert base.tokens  # the dial has filled it in
    seconds = shape.flops_per_token * base.tokens / (GPUS * PEAK_FLOPS * UTILISATION)
    if base.start or seconds < 60:
        return ""
    return (
        f"base: {amount(shape.n_parameters)} parameters, {amount(base.tokens)} tokens, about "
        f"{duration(seconds)} on {GPUS} H100 at {UTILISATION:.0%} of their peak."
    )


def table(scales: "dict[str, Settings]") -> Table:
    """Return what each of ``scales`` amounts to, a row a scale, smallest first."""
    from imprint import dial

    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    shown.add_column("scale")
    for head in ("parameters", "FLOPs a token", "tokens", "batch", "FLOPs", "8 H100"):
        shown.add_column(head, justify="right")
    for name, settings in sorted(scales.items(), key=lambda item: item[1].model.depth):
        shape, base = dial.shape(settings.model), settings.base
        assert base.tokens and base.batch_tokens  # the dial has filled them in
        flops = shape.flops_per_token * base.tokens
        seconds = flops / (GPUS * PEAK_FLOPS * UTILISATION)
        shown.add_row(
            name,
            amount(shape.n_parameters),
            power(shape.flops_per_token),
            amount(base.tokens),
            f"{base.batch_tokens:,}",
            power(flops),
            duration(seconds),
        )
    return shown


def amount(count: int) -> str:
    """Return a count for people, in millions or (American) billions.

    Example:
        >>> amount(150_000), amount(560_988_160), amount(11_219_763_200)
        ('0.15 M', '561 M', '11.2 B')
    """
    return f"{count / 1e6:.3g} M" if count < 1e9 else f"{count / 1e9:.3g} B"


def power(count: float) -> str:
    """Return a count that is too large for words.

    Example:
        >>> power(3_491_758_080)
        '3.5e9'
    """
    digits, _, zeros = f"{count:.1e}".partition("e")
    return f"{digits}e{int(zeros)}"
