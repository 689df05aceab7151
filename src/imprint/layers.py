"""The layers of the model. Shape letters: see model.py."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from imprint import attention, float8, fused
from imprint.attention import Mask
from imprint.shape import ModelConfig


class Matrix(nn.Module):
    """A weight and no more: what torch's own modules do first costs a second of imports."""

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(rows, columns))
        self.eight = False
        """Whether to multiply in float8 while training."""

    def forward(self, x: Tensor) -> Tensor:
        """Multiply, in the number type of ``x``."""
        return float8.linear(x, self.weight.to(x.dtype), eight=self.eight)


class Attention(nn.Module):
    """Causal self-attention with rotary positions and normalised queries and keys."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        keys = config.n_keys * config.head_width
        self.c_q = Matrix(config.width, config.width)
        self.c_k = Matrix(keys, config.width)
        self.c_v = Matrix(keys, config.width)
        self.c_proj = Matrix(config.width, config.width)

    def forward(self, x_BTC: Tensor, rope: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        """Mix what the tokens of a row know, head by head.

        Args:
            x_BTC: The stream, normalised.
            rope: Cosine and sine, for ``fused.rotate``.
            mask: See ``attention.attend``.
        """
        config, (rows, length, width) = self.config, x_BTC.shape
        written_out = attention.written_out(config, x_BTC)
        if written_out and (mask is None or isinstance(mask, Tensor)):
            weight = torch.cat([self.c_q.weight, self.c_k.weight, self.c_v.weight]).to(x_BTC.dtype)
            heads = functional.linear(x_BTC, weight).view(rows, length, -1, config.head_width)
            return fused.self_attend(heads, *rope, mask)
        queries_BTHD, keys_BTKD, values_BTKD = (
            matrix(x_BTC).view(rows, length, -1, config.head_width)
            for matrix in (self.c_q, self.c_k, self.c_v)
        )
        cos, sin = (angle.unsqueeze(-2) for angle in rope)
        queries_BTHD = fused.turn(queries_BTHD, cos, sin)
        keys_BTKD = fused.turn(keys_BTKD, cos, sin)
        keys_BKTD, values_BKTD = keys_BTKD.transpose(1, 2), values_BTKD.transpose(1, 2)
        mixed = attention.attend(queries_BTHD.transpose(1, 2), keys_BKTD, values_BKTD, mask)
        return mixed.transpose(1, 2).reshape(rows, length, width)

    def project(self, mixed: Tensor) -> Tensor:
        """Bring what ``forward`` has mixed back into the stream."""
        out: Tensor = self.c_proj(mixed)
        return out


class MLP(nn.Module):
    """Two matrices with a squared ReLU between them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.c_fc = Matrix(4 * config.width, config.width)
        self.c_proj = Matrix(config.width, 4 * config.width)

    def forward(self, x_BTC: Tensor) -> Tensor:
        """Let each token think by itself."""
        weight = self.c_proj.weight.to(x_BTC.dtype)
        return fused.squared_linear(self.c_fc(x_BTC), weight, eight=self.c_proj.eight)


class Block(nn.Module):
    """Attention, then MLP, each added to the stream that runs through the model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = MLP(config)

    def forward(
        self,
        x_BTC: Tensor,
        rope: tuple[Tensor, Tensor],
        mask: Mask,
        where_N: Tensor | None = None,
    ) -> Tensor:
        """Return the stream after this layer; only at ``where_N``, (N, C), if that is given."""
        mixed = self.attn(fused.rms_norm(x_BTC), rope, mask)
        x = x_BTC
        if where_N is not None:
            x, mixed = (part.flatten(0, 1).index_select(0, where_N) for part in (x, mixed))
        x = x + self.attn.project(mixed)
        after: Tensor = x + self.mlp(fused.rms_norm(x))
        return after


def through(
    block: Block,
    x_BTC: Tensor,
    rope: tuple[Tensor, Tensor],
    mask: Mask,
    where_N: Tensor | None,
) -> Tensor:
    """Return what ``block`` makes of the stream: a function, so that it can be compiled once."""
    return block.forward(x_BTC, rope, mask, where_N)


def use_float8(layers: nn.ModuleList, *, eight: bool) -> None:
    """Multiply in float8, or no longer, where the sides of a matrix allow it."""
    for matrix in layers.modules():
        if isinstance(matrix, Matrix):
            fits = all(side % float8.STEP == 0 for side in matrix.weight.shape)
            matrix.eight = eight and fits
