"""For comparisons: lively models of ours, transformers' of the same shape, and numbers."""

from typing import Any

import torch

from imprint.model import Model
from imprint.shape import ModelConfig


def numbers(*shape: int) -> torch.Tensor:
    """Normal numbers, float64, whose gradient is wanted."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_()


def lively(config: ModelConfig, *, seed: int = 1, std: float = 0.15) -> Model:
    """A model whose every weight counts: fresh ones have zeros in places."""
    model = Model(config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=std, generator=generator)
    return model


def theirs(config: ModelConfig, **more: Any) -> torch.nn.Module:
    """transformers' model of the shape ``config``, with weights of its own."""
    from transformers import NanoChatConfig, NanoChatForCausalLM

    return NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.n_keys,
            max_position_embeddings=config.context,
            **more,
        )
    )
