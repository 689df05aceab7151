"""A Hugging Face folder of transformers' NanoChatForCausalLM, weights in safetensors."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint.errors import ArtifactError
from imprint.imports.common import NEXT, Place, demand, fitted, mapping, shaped
from imprint.shape import ModelConfig

if TYPE_CHECKING:
    import torch

NAMES = {
    "transformer.wte.": "model.embed_tokens.",
    "transformer.h.": "model.layers.",
    ".attn.c_q.": ".self_attn.q_proj.",
    ".attn.c_k.": ".self_attn.k_proj.",
    ".attn.c_v.": ".self_attn.v_proj.",
    ".attn.c_proj.": ".self_attn.o_proj.",
    ".mlp.c_fc.": ".mlp.fc1.",
    ".mlp.c_proj.": ".mlp.fc2.",
}
"""Parts of nanochat's names of weights, and what transformers calls them."""
SHAPE = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)
FIXED = {
    "hidden_act": "relu2",
    "final_logit_softcapping": 15.0,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "rope_type": "default",
    "rope_scaling": None,
}
"""What transformers could vary and our model does not; a key that is left out has this value."""
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def models(folder: Path) -> list[Path]:
    """Return the config.json of ``folder``, if there is one."""
    return [path for path in [folder / "config.json"] if path.is_file()]


def place(about: Path) -> Place:
    """Return where the parts of the model lie whose config.json is ``about``.

    Raises:
        ArtifactError: Weights or tokenizer are missing, or the weights are pickled.
    """
    folder = about.parent
    weights = [folder / WEIGHTS]
    if (folder / INDEX).is_file():
        weights = [folder / INDEX, *_shards(folder / INDEX)]
    pickled = sorted(path.name for path in folder.glob("*.bin"))
    if pickled and not all(path.is_file() for path in weights):
        raise ArtifactError(
            f"{folder / pickled[0]}: pickled weights, which imprint does not open. "
            f"Save them as {WEIGHTS} first: save_pretrained of transformers does."
        )
    tokenizer = folder / "tokenizer.json"
    for path in [*weights, tokenizer]:
        if not path.is_file():
            raise ArtifactError(f"{path}: no such file. Copy the whole folder again.")
    name = folder.name or folder.absolute().name
    return Place("Hugging Face", f"Hugging Face {name}", about, weights, tokenizer)


def read(place: Place) -> "tuple[dict[str, torch.Tensor], ModelConfig]":
    """Return weights, float32 by nanochat's names, and shape of the model in ``place``.

    Raises:
        ArtifactError: A file is damaged, or of another architecture.
    """
    config = shape(place)
    found: dict[str, torch.Tensor] = {}
    for path in place.weights:
        if path.suffix == ".safetensors":
            found |= _load(path)
    return fitted(found, config, path=place.weights[0], theirs=their_name), config


def shape(place: Place) -> ModelConfig:
    """Return the shape of the model in ``place``.

    Raises:
        ArtifactError: The file about it is damaged, or it is of another architecture.
    """
    path = place.about
    about = mapping(path)
    kind = about.get("model_type", "nanochat" if "NanoChatForCausalLM" in _classes(about) else None)
    demand(path, "model_type", kind, "nanochat")
    rope = about.get("rope_parameters") or {}
    if odd := [key for key in rope if key not in FIXED]:
        raise ArtifactError(f"{path}: rope_parameters has {odd[0]}, of another model. {NEXT}")
    for key, wanted in FIXED.items():
        demand(path, key, rope.get(key, about.get(key, wanted)), wanted)
    config = shaped(path, about, SHAPE)
    inner = 4 * config.width
    demand(path, "intermediate_size", about.get("intermediate_size", inner), inner)
    head = config.head_width
    demand(path, "head_dim", about.get("head_dim") or head, head)
    return config


def _classes(about: dict[str, Any]) -> list[Any]:
    found = about.get("architectures")
    return found if isinstance(found, list) else []


def their_name(name: str) -> str:
    """Return what transformers calls the weight that has nanochat's ``name``."""
    for ours, other in NAMES.items():
        name = name.replace(ours, other)
    return name


def _shards(index: Path) -> list[Path]:
    names = mapping(index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ArtifactError(f"{index}: has no weight_map. Copy the folder again.")
    shards = sorted({str(name) for name in names.values()})
    if odd := [name for name in shards if Path(name).name != name or name[-12:] != ".safetensors"]:
        raise ArtifactError(
            f"{index}: names {odd[0]!r}, which is no .safetensors file of this folder. "
            "Copy the folder again."
        )
    return [index.with_name(name) for name in shards]


def _load(path: Path) -> "dict[str, torch.Tensor]":
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ArtifactError(
            f"{path}: damaged or not safetensors ({error}). Copy the file again."
        ) from error
