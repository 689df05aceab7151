"""Our engine against plain ones: python -m benchmarks.engine.

Two models with random weights, d4 and that of config/scales/tiny.yaml, answer greedily, 128 tokens
after a prompt of 16, in three loops: ours, nanochat's (see plain_engine.py), and transformers'
``generate``. They have the same weights and say the same tokens, and take turns, because the speed
of a shared machine drifts: a ratio is the median of those of the turns. The time to read the
prompts is not counted. One row of d4 reads 17 MB of weights a token, of tiny 5: the more there is
to read, and the slower the memory, the less it matters who asks for it.
"""

# ruff: noqa: E402
import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable

from imprint.script import sharing

sharing()  # before torch is loaded

import torch
from benchmarks.plain_engine import PlainGenerator
from rich.console import Console
from rich.table import Table

from imprint.decoding import Batch, Request
from imprint.dice import Dice
from imprint.imports.huggingface import their_name
from imprint.inference import Inference
from imprint.model import Model, ModelConfig

CONFIGS = {
    "d4": ModelConfig(depth=4, vocabulary=4096, context=256),
    "tiny": ModelConfig(depth=2, vocabulary=6144, context=256),
}
SIZES = {"d4": (1, 64), "tiny": (1,)}
"""Rows of a batch."""
PROMPT = list(range(10, 26))
TOKENS = 128
LEAST = 5
"""Turns."""
FLOORS = {"ratio_1": 1.5, "ratio_64": 1.5, "tiny_transformers_ratio_1": 5.0}

Loop = Callable[[int], tuple[list[list[int]], float]]
"""Given the rows of a batch: what each says, and the seconds that took."""


def model(config: ModelConfig) -> Model:
    """Return a model; which tokens it says costs no time."""
    made = Model(config, seed=1).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(std=0.05, generator=generator)
    return made


def ours(inference: Inference) -> Loop:
    """Return our loop."""

    def run(rows: int) -> tuple[list[list[int]], float]:
        requests = [Request(PROMPT, TOKENS, Dice(0)) for _ in range(rows)]
        batch = Batch(inference, requests, stop=())
        started = time.perf_counter()
        with batch.calm:
            while batch.live:
                batch.step()
        return [request.said for request in requests], time.perf_counter() - started

    return run


def plain(generator: PlainGenerator) -> Loop:
    """Return nanochat's loop."""

    def run(rows: int) -> tuple[list[list[int]], float]:
        started = time.perf_counter()
        generator.generate(PROMPT, samples=rows, tokens=1)
        read = time.perf_counter()
        said = generator.generate(PROMPT, samples=rows, tokens=TOKENS)
        return said, time.perf_counter() - read - (read - started)

    return run


def theirs(config: ModelConfig, weights: dict[str, torch.Tensor]) -> Loop:
    """Return transformers' loop, which is measured for one row."""
    from transformers import NanoChatConfig, NanoChatForCausalLM

    made = NanoChatForCausalLM(
        NanoChatConfig(
            vocab_size=config.vocabulary,
            hidden_size=config.width,
            intermediate_size=4 * config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.n_head,
            num_key_value_heads=config.n_keys,
            max_position_embeddings=config.context,
        )
    ).eval()
    made.load_state_dict({their_name(name): weight for name, weight in weights.items()})
    made.generation_config.eos_token_id = None
    ids = torch.tensor([PROMPT])

    def said(tokens: int) -> list[int]:
        out = made.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        told: list[int] = out[0, len(PROMPT) :].tolist()
        return told

    def run(rows: int) -> tuple[list[list[int]], float]:
        assert rows == 1
        with torch.inference_mode():
            started = time.perf_counter()
            said(1)
            read = time.perf_counter()
            told = said(TOKENS)
        return [told], time.perf_counter() - read - (read - started)

    return run


def compared(loops: dict[str, Loop], rows: int, *, seconds: float) -> dict[str, list[float]]:
    """Return the tokens a second of each of ``loops``, turn by turn."""
    speeds: dict[str, list[float]] = {name: [] for name in loops}
    first = {name: loop(rows)[0] for name, loop in loops.items()}  # warms up
    assert all(said == first["imprint"] for said in first.values()), "they say different things"
    end = time.monotonic() + seconds
    while len(speeds["imprint"]) < LEAST or time.monotonic() < end:
        for name, loop in loops.items():
            speeds[name].append(rows * (TOKENS - 1) / loop(rows)[1])
    return speeds


def main() -> None:
    """Measure, print a table, and print the figures as JSON on the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each size of batch")
    seconds = parser.parse_args().seconds
    table = Table("model", "rows", "loop", "tokens/s", "slowest turn", "fastest turn", "imprint is")
    figures: dict[str, float] = {}
    for name, config in CONFIGS.items():
        made = model(config)
        weights = made.state_dict()
        loops = {
            "imprint": ours(Inference(made)),
            "nanochat": plain(PlainGenerator.of(config, weights)),
        }
        prefix = "" if name == "d4" else f"{name}_"
        for rows in SIZES[name]:
            others = {"transformers": theirs(config, weights)} if rows == 1 else {}
            speeds = compared(loops | others, rows, seconds=seconds)
            for loop, each in speeds.items():
                ratios = [a / b for a, b in zip(speeds["imprint"], each, strict=True)]
                ratio = round(statistics.median(ratios), 2)
                shown = (statistics.median(each), min(each), max(each))
                table.add_row(
                    name, str(rows), loop, *(f"{one:,.0f}" for one in shown), f"{ratio} x"
                )
                other = "" if loop == "imprint" else f"{loop}_"
                figures[f"{prefix}{other}tokens_per_s_{rows}"] = round(shown[0])
                if other:
                    figures[f"{prefix}{other.replace('nanochat_', '')}ratio_{rows}"] = ratio
    Console().print(table)
    missed = [name for name, floor in FLOORS.items() if figures[name] < floor]
    figures["threads"] = torch.get_num_threads()
    sys.stdout.write(json.dumps({**figures, "missed": missed}) + "\n")


if __name__ == "__main__":
    main()
