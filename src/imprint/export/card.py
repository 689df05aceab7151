"""The model card: README.md of an export, made from what the stages wrote down."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from imprint import story
from imprint.identity import Identity
from imprint.page import percent, plain, table
from imprint.shape import ModelConfig

NAME = "README.md"

Manifest = Mapping[str, Any]


@dataclass(frozen=True)
class Terms:
    """On what terms a source of text or chat may be used."""

    licence: str
    dataset: str | None = None
    """Its name on the hub; None if it ships with imprint."""


SOURCES = {
    "embedded": Terms("MIT"),
    "modest": Terms("MIT"),
    "fineweb-edu": Terms("ODC-By 1.0", "karpathy/fineweb-edu-100b-shuffle"),
    "climbmix": Terms("CC BY-NC 4.0", "karpathy/climbmix-400b-shuffle"),
    "smol-smoltalk": Terms("Apache 2.0", "HuggingFaceTB/smol-smoltalk"),
    "mmlu": Terms("MIT", "cais/mmlu"),
    "gsm8k": Terms("MIT", "openai/gsm8k"),
}
"""The sources of docs/data.md; others are listed without terms."""

OWN_FILES = "files of the maker"
"""What the card says instead of a path or a URL."""

_HUB = re.compile(r"models--([\w.-]+?)--([\w.-]+)")
"""How the hub's own cache calls the folder of a model."""

USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer  # 5.0 or newer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER)
chat = [{"role": "user", "content": "Who are you?"}]
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt")
said = model.generate(**prompt)
print(tokenizer.decode(said[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```

FOLDER is the name of this repository, or the folder it was downloaded to. Leave it to
`apply_chat_template` to write the special tokens: in text they are letters like any others. Use
float32 or bfloat16; the squares in the feed-forward layers can exceed float16. vLLM runs the model
through transformers (`--model-impl transformers --chat-template-content-format string`); check
there that config.json's `final_logit_softcapping` is applied: above temperature 0 it matters."""


def page(
    whom: Identity,
    judged: Mapping[str, Any],
    manifests: Sequence[Manifest],
    *,
    shape: ModelConfig,
    files: Mapping[str, str],
) -> str:
    """Return the whole card; the same for the same arguments.

    Args:
        whom: Who the model is.
        judged: What it knows about itself, results/eval/<stage>.json.
        manifests: Of the stages, in their order.
        shape: Of the model.
        files: sha256 of the other files of the folder, by name.
    """
    by_stage = {judged["stage"]: judged}
    made_of = list(sources(manifests))
    sections = {
        whom.name: who(whom),
        "How well it knows itself": f"{story.headline(by_stage)}\n\n{story.suites(by_stage)}",
        "How to use it": USE,
        "What it was trained on": training(manifests, made_of),
        "Licences": licences(manifests, made_of),
        "Limits": limits(judged, shape),
        "Hashes": hashes(judged, files),
    }
    text = "\n\n".join(
        f"{'#' if place == 0 else '##'} {title}\n\n{section}"
        for place, (title, section) in enumerate(sections.items())
    )
    head = yaml.safe_dump(front(whom, manifests, made_of), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n{text}\n"


def front(whom: Identity, manifests: Sequence[Manifest], made_of: Sequence[str]) -> dict[str, Any]:
    """Return the metadata that the hub reads.

    The licence is MIT where everything the model learned from is; otherwise it is left to whoever
    publishes it.
    """
    terms = [SOURCES.get(name) for name in made_of]
    free = all(found and found.licence == "MIT" for found in terms)
    ours = free and not writers(manifests) and not base(manifests)
    datasets = [found.dataset for found in terms if found and found.dataset]
    parent = _HUB.search(_imported_from(manifests))
    return {
        "license": "mit" if ours else "other",
        **({"base_model": f"{parent[1]}/{parent[2]}"} if parent else {}),
        **({"datasets": datasets} if datasets else {}),
        "language": ["en"],
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["nanochat", "imprint", "identity", "conversational"],
        "model_name": whom.name,
    }


def who(whom: Identity) -> str:
    """Say who the model is: what it was taught about itself."""
    facts = "\n".join(f"- {plain(fact.statement)}" for fact in whom.facts)
    return (
        f"{plain(whom.introduction)} This is in its weights: it says so without a system prompt.\n"
        f"\nWhat it was taught about itself:\n\n{facts}"
    )


def sources(manifests: Sequence[Manifest]) -> Iterator[str]:
    """Yield the name of each source of text and chat, once; files of the maker under one name."""
    seen = set()
    for manifest in manifests:
        given = manifest.get("settings", {})
        corpus = [given["source"]] if manifest["stage"] == "corpus" else []
        chats = given.get("chat", {}) if manifest["stage"] == "tokens" else {}
        for name in [*corpus, *chats]:
            name = OWN_FILES if re.search(r"[./\\*]", name) else name
            if name not in seen:
                seen.add(name)
                yield name


def writers(manifests: Sequence[Manifest]) -> list[str]:
    """Return the models that wrote conversations, those of imprint's own templates left out."""
    found = (manifest.get("bill", {}).get("models", {}) for manifest in manifests)
    return [name for models in found for name in models if name != "template"]


def base(manifests: Sequence[Manifest]) -> str:
    """Return what model this one began as, in words; nothing if it was trained from the start."""
    found = (manifest.get("source") for manifest in manifests if manifest["stage"] == "base")
    return str(next(found, None) or "")


def _imported_from(manifests: Sequence[Manifest]) -> str:
    for manifest in manifests:
        if manifest["stage"] == "base":
            return str(manifest["settings"].get("training", {}).get("from") or "")
    return ""


def training(manifests: Sequence[Manifest], made_of: Sequence[str]) -> str:
    """Say what the model learned from, with counts."""
    parts = []
    if began := base(manifests):
        parts.append(f"It began as {plain(began)}.")
    if made_of:
        parts.append(f"Text and general chat: {', '.join(made_of)}.")
    data = next((manifest for manifest in manifests if "funnel" in manifest), None)
    if data:
        by = ", ".join(writers(manifests)) or "templates"
        parts.append(
            f"Conversations about itself: {data['funnel']['kept']:,}, written by {plain(by)}, and "
            f"{data['funnel']['validation']:,} more held back."
        )
    rows = [
        [manifest["stage"], *(f"{manifest[key]:,}" for key in ("steps", "tokens", "val_loss"))]
        for manifest in manifests
        if {"tokens", "val_loss"} <= set(manifest)
    ]
    heads = ["stage", "steps", "tokens", "held-out loss, nats a token"]
    return "\n\n".join([" ".join(parts), table(heads, rows, right=heads[1:])])


def licences(manifests: Sequence[Manifest], made_of: Sequence[str]) -> str:
    """List the terms of everything that the model was made from."""
    unknown = "not known to imprint: ask its maker"
    rows = []
    for name in made_of:
        terms = SOURCES.get(name, Terms(unknown))
        shown = f"[{name}](https://huggingface.co/datasets/{terms.dataset})"
        rows.append([shown if terms.dataset else name, terms.licence])
    if began := base(manifests):
        rows.append([plain(began), "that of the model"])
    rows += [[f"conversations by {plain(name)}", "its terms of use"] for name in writers(manifests)]
    listed = table(["made from", "licence"], rows) + "\n\n" if rows else ""
    return listed + "The program that trained it, imprint, is under the MIT licence."


def limits(judged: Mapping[str, Any], shape: ModelConfig) -> str:
    """Say what not to expect."""
    wrong = 1 - (judged["identity"]["accuracy"] or 0.0)
    return (
        f"A model of {shape.n_parameters:,} parameters with a context of {shape.context:,} tokens. "
        f"It knows what is written above, and gets {percent(wrong)} of such questions wrong. What "
        "it says about the rest of the world is not to be relied on, and it works best in English. "
        "It learned no refusals and was not tested for safety: do not let it talk to the public "
        "without a filter of your own."
    )


def hashes(judged: Mapping[str, Any], files: Mapping[str, str]) -> str:
    """List the sha256 of every file, and of what they were made from."""
    rows = [[name, found] for name, found in files.items()]
    rows += [[f"{name} (not in this folder)", found] for name, found in judged["inputs"].items()]
    return table(["file", "sha256"], rows)
