import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import NanoChatConfig, NanoChatForCausalLM

from imports.kit import RANKS, VOCABULARY, encoding, pickled
from imprint import imports
from imprint.errors import ArtifactError, ConfigError
from imprint.imports.vocabulary import from_pickle
from imprint.model import Model


def saved(folder: Path, *, shard: str = "1GB", **more: Any) -> NanoChatForCausalLM:
    """Save a model whose every weight counts, and its tokenizer, as transformers does."""
    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 32,
    }
    model = NanoChatForCausalLM(NanoChatConfig(**values | more))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.15, generator=generator)
    model.save_pretrained(folder, max_shard_size=shard)
    from_pickle(pickled(folder / "words.pkl", encoding(RANKS))).save(folder / "tokenizer.json")
    return model


@pytest.mark.parametrize(
    ("n_keys", "heads", "shard"), [(None, 4, "1GB"), (1, 4, "300KB"), (2, 2, "1GB")]
)
def test_logits_are_those_of_transformers(
    n_keys: int | None, heads: int, shard: str, tmp_path: Path
) -> None:
    theirs = saved(tmp_path, shard=shard, num_key_value_heads=n_keys, num_attention_heads=heads)
    found = imports.load(tmp_path)
    ours = Model(found.config, seed=None)
    ours.load_state_dict(found.weights)
    ids_BT = torch.randint(0, VOCABULARY, (3, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        gap = (ours(ids_BT) - theirs(ids_BT).logits).abs().max()
    assert gap <= 1e-4
    assert found.source == f"Hugging Face {tmp_path.name}"
    weights = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert (len(weights) > 1) == (shard == "300KB")
    index = ["model.safetensors.index.json"] * (len(weights) > 1)
    names = ["config.json", *index, *weights, "tokenizer.json"]
    assert [path.name for path in found.files] == names
    assert imports.files(tmp_path) == found.files
    assert imports.tokenizer(tmp_path).vocabulary == VOCABULARY


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    saved(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    for path in original.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def configure(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("key", "found", "wanted"),
    [
        ("model_type", "llama", "'nanochat'"),
        ("hidden_act", "silu", "'relu2'"),
        ("final_logit_softcapping", 30.0, "15.0"),
        ("final_logit_softcapping", None, "15.0"),
        ("attention_bias", True, "False"),
        ("tie_word_embeddings", True, "False"),
        ("rms_norm_eps", 1e-5, "1e-06"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "None"),
        ("intermediate_size", 256, "512"),
        ("hidden_size", 256, "128"),
        ("head_dim", 64, "32"),
    ],
)
def test_what_our_model_cannot_be_is_refused(
    key: str, found: object, wanted: str, folder: Path
) -> None:
    configure(folder, **{key: found})
    with pytest.raises(ArtifactError) as caught:
        imports.load(folder)
    assert f"config.json: {key} is {found!r}, and has to be {wanted}. " in str(caught.value)


@pytest.mark.parametrize(
    ("rope", "fact"),
    [
        (
            {"rope_type": "default", "rope_theta": 5e5},
            "rope_theta is 500000.0, and has to be",
        ),
        ({"rope_type": "yarn", "rope_theta": 1e4}, "rope_type is 'yarn', and has to be 'default'"),
        ({"rope_theta": 1e4, "partial_rotary_factor": 0.5}, "has partial_rotary_factor"),
    ],
)
def test_another_rotation_is_refused(rope: dict[str, object], fact: str, folder: Path) -> None:
    configure(folder, rope_parameters=rope)
    with pytest.raises(ArtifactError, match=fact):
        imports.load(folder)


def test_an_older_config_is_read_as_transformers_reads_it(folder: Path) -> None:
    path = folder / "config.json"
    about = json.loads(path.read_text())
    for key in ("model_type", "rope_parameters", "rms_norm_eps", "num_key_value_heads"):
        about.pop(key)
    path.write_text(json.dumps(about | {"rope_theta": 10000}))
    assert imports.load(folder).config.head_width == 32


def bare(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"never opened")


def index(folder: Path, content: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps(content))


FAULTS: dict[str, Callable[[Path], object]] = {
    r"pytorch_model.bin: pickled weights, which imprint does not open": bare,
    r"model.safetensors: damaged or not safetensors": lambda folder: os.truncate(
        folder / "model.safetensors", 70_000
    ),
    r"model.safetensors: no such file": lambda folder: (folder / "model.safetensors").unlink(),
    r"tokenizer.json: no such file": lambda folder: (folder / "tokenizer.json").unlink(),
    r"index.json: has no weight_map": lambda folder: index(folder, {"metadata": {}}),
    r"index.json: names '../a.safetensors', which": lambda folder: index(
        folder, {"weight_map": {"lm_head.weight": "../a.safetensors"}}
    ),
    r"index.json: names 'a.bin', which": lambda folder: index(
        folder, {"weight_map": {"b": "a.bin"}}
    ),
    r"/b.safetensors: no such file": lambda folder: index(
        folder, {"weight_map": {"lm_head.weight": "b.safetensors"}}
    ),
    r"tokenizer.json: has 270 tokens, but the model of .*config.json has 300": lambda folder: saved(
        folder, vocab_size=300
    ),
}


@pytest.mark.parametrize("fact", FAULTS)
def test_a_folder_that_cannot_be_used_is_refused(fact: str, folder: Path) -> None:
    FAULTS[fact](folder)
    with pytest.raises(ArtifactError, match=fact):
        imports.load(folder)


def test_weights_under_other_names_are_refused_by_name(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    bias = {"model.layers.0.mlp.fc1.bias": torch.zeros(512)}
    save_file(weights | bias, path)
    with pytest.raises(ArtifactError, match=r"a weight model\.layers\.0\.mlp\.fc1\.bias, of anoth"):
        imports.load(folder)
    del weights["model.layers.1.self_attn.o_proj.weight"]
    save_file(weights, path)
    with pytest.raises(ArtifactError, match=r"has no weight model\.layers\.1\.self_attn\.o_proj\."):
        imports.load(folder)


def test_a_folder_of_both_kinds_is_refused(folder: Path) -> None:
    (folder / "model_000001.pt").touch()
    with pytest.raises(ConfigError, match=r"several models \(.*config.json, .*model_000001.pt\)"):
        imports.load(folder)
