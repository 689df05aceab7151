"""Every setting, defined once: type, default, limits and meaning.

The JSON schemas in workflow/schemas/ and the tables in config/README.md are generated from these
models; config/config.yaml and the scale files hold values. Those of a scale are in `imprint.scale`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from imprint import dial, yamlfile
from imprint.errors import ConfigError
from imprint.scale import Part, Scale


class Watch(Part):
    """Who sees how training goes, beside the terminal and results/metrics."""

    tensorboard: bool = Field(
        default=False, description="Write results/tensorboard. Needs the package tensorboard."
    )
    wandb: str | None = Field(
        default=None, description="Project on Weights & Biases. Needs the package wandb."
    )
    sample_minutes: PositiveFloat | None = Field(
        default=None, description="Time between two samples of what the model says; null for none."
    )
    spike: PositiveFloat = Field(
        default=2.0,
        description="Stop when the loss of a step is so much, in nats, above its recent median.",
    )


class Evaluation(Part):
    """The held-out test."""

    per_suite: PositiveInt = Field(default=100, description="Questions in each suite, at most.")
    answer_tokens: PositiveInt = Field(
        default=40,
        description="Least room for an answer, in tokens; more where a statement is longer.",
    )


class Price(Part):
    """What a provider's model costs, in USD per million tokens."""

    input: float = Field(ge=0, description="USD per million tokens of the prompt.")
    output: float = Field(ge=0, description="USD per million tokens of the answer.")


class Provision(Part):
    """Who writes the conversations, and on what terms."""

    provider: str = Field(default="template", description="A name listed by `imprint providers`.")
    provider_model: str | None = Field(
        default=None, description="Model the provider should use; null for its default."
    )
    base_url: str | None = Field(
        default=None,
        pattern="^https?://.+",
        description="Where the provider's server is; null for its own.",
    )
    budget_usd: float = Field(
        default=5.0,
        ge=0,
        description="Most that this folder ever spends on conversations, over all runs, in USD.",
    )
    price: Price | None = Field(
        default=None, description="Price of the model; null to look it up in a table."
    )
    in_flight: PositiveInt = Field(
        default=64, description="Most requests under way at once, over all jobs of a run."
    )
    attempts: PositiveInt = Field(
        default=5, description="Answers that a conversation may take until one can be used."
    )
    timeout_s: PositiveFloat = Field(
        default=120, description="Longest wait for an answer, in seconds."
    )
    batch: bool = Field(
        default=False,
        description="Ask in batches: half the price, within a day. OpenRouter and Gemini only.",
    )
    strict_model: bool = Field(
        default=False, description="Stop when another model answers than the one asked for."
    )
    acknowledge_terms: list[str] = Field(
        default=[],
        description="Providers whose terms restrict training on their answers, and are accepted.",
    )
    distillable: bool = Field(
        default=True, description="OpenRouter: only models whose terms allow training on answers."
    )
    upstream: list[str] = Field(
        default=[], description="OpenRouter: the only companies that may answer; all if empty."
    )


class Settings(Scale, Provision):
    """The whole configuration: config.yaml laid over the scale it names."""

    identity: str = Field(description="The identity file.")
    identity_stages: list[Literal["mid", "sft"]] = Field(
        default=["mid", "sft"],
        description="Stages that see the identity. [sft] alone makes a change of identity cheap.",
    )
    scale: str = Field(default="tiny", description="A file in config/scales, without .yaml.")
    seed: int = Field(default=1337, ge=0, description="Seed of every random choice.")
    conversations: PositiveInt | None = Field(
        default=None, description="Conversations to plan; null for the provider's default."
    )
    shard_size: PositiveInt | None = Field(
        default=None, description="Conversations in a shard; null for the provider's default."
    )
    validation: float = Field(
        default=0.02, gt=0, lt=0.5, description="Share of the conversations kept for validation."
    )
    near_duplicate: float = Field(
        default=0.9, gt=0, le=1, description="Jaccard similarity from which one of two goes."
    )
    evaluation: Evaluation = Field(default=Evaluation(), description="The held-out test.")
    watch: Watch = Field(default=Watch(), description="Who sees how training goes.")
    gpu_usd_per_hour: float = Field(
        default=0.0, ge=0, description="What a GPU costs, for forecasts and manifests, in USD."
    )

    @model_validator(mode="after")
    def _sft_sees_the_identity(self) -> "Settings":
        if "sft" not in self.identity_stages:
            raise ValueError("identity_stages: sft has to be in the list. Add it.")
        return self


WHOLE = {"chat"}
"""Mappings that are one value: who names other sources does not want those of the scale as well."""


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return ``below`` with ``above`` laid over it, mapping by mapping.

    Example:
        >>> merged({"sft": {"matrix_lr": 0.02, "chat": {"a": 5}}}, {"sft": {"chat": {"b": 1}}})
        {'sft': {'matrix_lr': 0.02, 'chat': {'b': 1}}}
    """
    result = dict(below)
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict) and key not in WHOLE:
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


FILE = Path("config/config.yaml")
OVER = Path("--config or --configfile")
"""Where a setting comes from that is not in the file, as far as Snakemake tells."""


Check = Callable[[Settings], None]
"""Raises a ConfigError that begins with the key of what is wrong."""


def resolve(config: dict[str, Any], *, root: Path, check: Check | None = None) -> Settings:
    """Return the settings that ``config`` and the scale it names amount to, the dial's included.

    Args:
        config: The configuration, as read from config.yaml and the command line.
        root: The project's folder, in which config/scales lies.
        check: What else has to hold.

    Raises:
        ConfigError: A key is unknown or missing, or a value is wrong.
    """
    try:
        return _checked(config, root, FILE, check)
    except ConfigError:
        if (root / FILE).is_file():
            given = yamlfile.load(root / FILE)[0]
            layered([(FILE, given), (OVER, config)], root=root, check=check)
        raise


def layered(
    layers: Sequence[tuple[Path, dict[str, Any]]], *, root: Path, check: Check | None = None
) -> Settings:
    """Return the settings of ``layers``, each laid over those before it.

    Args:
        layers: Where each comes from, which need not be a file, and what it holds.
        root: The project's folder.
        check: What else has to hold.

    Raises:
        ConfigError: As `resolve`; it names the layer that brought the fault in.
    """
    config: dict[str, Any] = {}
    for _, layer in layers:
        config = merged(config, layer)
    try:
        return _checked(config, root, layers[0][0], check)
    except ConfigError:
        config = {}
        for place, layer in layers:
            config = merged(config, layer)
            _checked(config, root, place, check)
        raise


def _checked(config: dict[str, Any], root: Path, path: Path, check: Check | None) -> Settings:
    given = _resolved(config, root, path)
    try:
        if check:
            check(given)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return given


def _resolved(config: dict[str, Any], root: Path, path: Path) -> Settings:
    """Return the settings of ``config``, whose faults are those of ``path``."""
    name = config.get("scale", Settings.model_fields["scale"].default)
    folder = root / "config" / "scales"
    file = folder / f"{name}.yaml"
    if not file.is_file():
        names = ", ".join(sorted(found.stem for found in folder.glob("*.yaml")))
        raise ConfigError(f"{path}: scale: no scale is named {name!r}. Choose one of: {names}.")
    scale, lines = yamlfile.load(file)
    yamlfile.validated(Scale, scale, path=file.relative_to(root), lines=lines)
    given = yamlfile.load(root / path)[1] if (root / path).is_file() else None
    return dial.filled(yamlfile.validated(Settings, merged(scale, config), path=path, lines=given))
