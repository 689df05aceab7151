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

    def plain(self) -> dict[str, Any]:
        """Return the config as plain types, for a checkpoint."""
        return asdict(self)
