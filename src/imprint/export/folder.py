"""The files of a Hugging Face folder: what transformers' NanoChatForCausalLM wants, exactly."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imprint.artifacts import read_json, storage_error
from imprint.errors import ArtifactError, StorageError
from imprint.imports.huggingface import FIXED, their_name
from imprint.shape import ModelConfig
from imprint.tokenizer import ASSISTANT_END, BOS, Tokenizer

if TYPE_CHECKING:
    import torch

ROPE = ("rope_theta", "rope_type")
ANSWER = 256
"""Longest answer in tokens, where nobody says otherwise; half of the context if that is less."""

ESCAPE = "\ufdd0"
"""Put behind each ``<`` of a message, so that no text can be taken for a special token.

A noncharacter of Unicode, kept for such inner purposes. The tokenizer takes it out again.
"""
KEPT = "\ufdd1"
"""Put behind an ``ESCAPE`` that a message has itself."""

NORMALIZERS = [
    {"type": "Replace", "pattern": {"String": f"<{ESCAPE}"}, "content": "<"},
    {"type": "Replace", "pattern": {"String": f"{ESCAPE}{KEPT}"}, "content": ESCAPE},
]
"""How tokenizer.json undoes what the template did; it finds special tokens before."""

TEMPLATE = r"""
{#- Text stays text: a "<" in a message is followed by U+FDD0, which the tokenizer takes out. -#}
{%- macro escaped(content) -%}
  {{- content | replace("\ufdd0", "\ufdd0\ufdd1") | replace("<", "<\ufdd0") -}}
{%- endmacro -%}
{%- for message in messages if message["content"] is not string -%}
  {{- raise_exception("a message's content has to be a string") -}}
{%- endfor -%}
{%- set preface = "" -%}
{%- set turns = messages -%}
{%- if messages and messages[0]["role"] == "system" -%}
  {%- set preface = messages[0]["content"] -%}
  {%- set turns = messages[1:] -%}
  {%- if turns -%}
    {%- set preface = preface ~ "\n\n" -%}
  {%- else -%}
    {%- set turns = [{"role": "user", "content": ""}] -%}
  {%- endif -%}
  {%- if turns[0]["role"] != "user" -%}
    {{- raise_exception("a system message goes before one of the user") -}}
  {%- endif -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in turns -%}
  {%- if message["role"] not in ("user", "assistant") -%}
    {{- raise_exception("a message's role has to be user or assistant, or first of all system") -}}
  {%- endif -%}
  {{- "<|" ~ message["role"] ~ "_start|>" -}}
  {{- escaped((preface if loop.first else "") ~ message["content"]) -}}
  {{- "<|" ~ message["role"] ~ "_end|>" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {{- "<|assistant_start|>" -}}
{%- endif -%}
""".lstrip()
"""Writes a conversation as ``Tokenizer.render`` does, for the Jinja of transformers."""


def config(shape: ModelConfig, words: Tokenizer) -> dict[str, Any]:
    """Return config.json.

    There is no padding token in it: transformers would take its row of the embedding out of any
    further training.
    """
    return {
        "architectures": ["NanoChatForCausalLM"],
        "model_type": "nanochat",
        "dtype": "float32",
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": 4 * shape.width,
        "num_hidden_layers": shape.depth,
        "num_attention_heads": shape.n_head,
        "num_key_value_heads": shape.n_keys,
        "max_position_embeddings": shape.context,
        "rope_parameters": {key: FIXED[key] for key in ROPE},
        **{key: value for key, value in FIXED.items() if not key.startswith("rope_")},
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": words.bos,
        "eos_token_id": words.assistant_end,
        "pad_token_id": None,
    }


def generation(shape: ModelConfig, words: Tokenizer) -> dict[str, Any]:
    """Return generation_config.json: greedy, and as the engine does, any special token ends it."""
    return {
        "bos_token_id": words.bos,
        "eos_token_id": [words.assistant_end, *sorted(words.special - {words.assistant_end})],
        "pad_token_id": words.bos,
        "do_sample": False,
        "max_new_tokens": min(ANSWER, shape.context // 2),
    }


def tokenizer_config(shape: ModelConfig) -> dict[str, Any]:
    """Return tokenizer_config.json.

    Filler goes to the left, where a batch of prompts needs it. It is <|bos|> and not the token that
    ends an answer, which collators that hide filler from the loss would never let a model learn.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": shape.context,
        "bos_token": BOS,
        "eos_token": ASSISTANT_END,
        "pad_token": BOS,
        "padding_side": "left",
        "truncation_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def tokenizer(path: Path) -> dict[str, Any]:
    """Return tokenizer.json: the tokenizer in ``path``, which also undoes ``TEMPLATE``'s escapes.

    Raises:
        ArtifactError: A special token does not start with ``<``, which is what is escaped.
    """
    found: dict[str, Any] = read_json(path)
    for token in found["added_tokens"]:
        if token["special"] and not token["content"].startswith("<"):
            raise ArtifactError(
                f"{path}: the special token {token['content']!r} does not start with '<', so text "
                "could not be told from it. Export a model with another tokenizer."
            )
    given = found["normalizer"] or {"type": "Sequence", "normalizers": []}
    steps = given["normalizers"] if given["type"] == "Sequence" else [given]
    if steps[: len(NORMALIZERS)] != NORMALIZERS:  # an export that was imported has them
        steps = [*NORMALIZERS, *steps]
    return {
        **found,
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "truncation": None,
        "padding": None,
    }


def weights(path: Path, found: "Mapping[str, torch.Tensor]") -> None:
    """Write model.safetensors: ``found``, which has nanochat's names, under transformers' names.

    Raises:
        StorageError: The disk is full, or the folder may not be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    theirs = {their_name(name): tensor.float().contiguous() for name, tensor in found.items()}
    try:
        path.touch()
        mode = path.stat().st_mode
        save_file(theirs, path, metadata={"format": "pt"})
        path.chmod(mode)  # it lets nobody else read what it writes
    except SafetensorError as error:
        raise StorageError(
            f"{path}: could not be written ({error}). Free some space and run again."
        ) from error


def write(path: Path, content: str | dict[str, Any]) -> None:
    """Write text, or a value as JSON, to ``path``."""
    if not isinstance(content, str):
        content = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(content, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """Yield a hidden, empty neighbour, which becomes ``folder`` once the block has ended well.

    Whatever ``folder`` held is gone then; before, it is as it was.

    Raises:
        StorageError: The disk is full, or the folder may not be written.
    """
    new, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    try:
        shutil.rmtree(new, ignore_errors=True)  # of a job that was killed
        new.mkdir(parents=True)
        yield new
        for path in [*new.iterdir(), new]:
            number = os.open(path, os.O_RDONLY)
            os.fsync(number)
            os.close(number)
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise storage_error(folder, error) from error
    finally:
        for left in (new, old):
            shutil.rmtree(left, ignore_errors=True)
