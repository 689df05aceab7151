"""The shape of a model: what has to be known of it before torch is loaded."""

from dataclasses import asdict, dataclass
from typing import Any

from imprint.errors import ConfigError


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a model; ``ModelConfig(**config.plain())`` is the same config.

    Raises:
        ConfigError: The heads do not divide the width.
    """

    depth: int
    """Layers."""
    vocabulary: int
    """V, in tokens, special ones included."""
    context: int
    """Longest row in tokens."""
    head_width: int = 64
    """D."""
    n_kv_head: int | None = None
    """K; None for as many as there are heads."""

    def __post_init__(self) -> None:
        if self.width % self.head_width or self.head_width % 2:
            raise ConfigError(
                f"model.head_width: {self.head_width} does not divide the width {self.width} "
                "(64 x depth) into even heads. 64 always does."
            )
        if self.n_head % self.n_keys:
            raise ConfigError(
                f"model.n_kv_head: {self.n_keys} does not divide the {self.n_head} heads evenly"
            )

    @property
    def width(self) -> int:
        """C."""
        return 64 * self.depth

    @property
    def n_head(self) -> int:
        """H."""
        return self.width // self.head_width

    @property
    def n_keys(self) -> int:
        """K: heads of keys and values."""
        return self.n_kv_head or self.n_head

    @property
    def n_parameters(self) -> int:
        """Count of all weights: embedding, head, and four and eight squares of the width a layer.

        Example:
            >>> ModelConfig(depth=20, vocabulary=65536, context=2048, head_width=128).n_parameters
            560988160
        """
        keys = self.n_keys * self.head_width
        layer = self.width * (2 * self.width + 2 * keys + 8 * self.width)
        return 2 * self.vocabulary * self.width + self.depth * layer

    @property
    def flops_per_token(self) -> int:
        """Floating-point operations to train on one token of a full row, forward and backward.

        Six for each weight but those of the embedding, which is looked up, and twelve for each
        number of the width, layer and token of the context, for attention.
        """
        lookup = self.vocabulary * self.width
        attention = 12 * self.depth * self.width * self.context
        return 6 * (self.n_parameters - lookup) + attention

    def plain(self) -> dict[str, Any]:
        """Return the config as plain types, for a checkpoint."""
        return asdict(self)
