"""The shipped scales: what their heads state is what they are."""

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from imprint import dial, sources, yamlfile
from imprint.commands import scales
from imprint.model import Model
from imprint.settings import Settings, merged, resolve
from reference import theirs

ROOT = Path(__file__).parent.parent
SCALES = sorted(path.stem for path in (ROOT / "config" / "scales").glob("*.yaml"))
LARGE = ["d12", "d20", "d26"]
IDENTITY = {"identity": "config/identities/smarternano.yaml"}


def resolved(name: str, **changes: Any) -> Settings:
    return resolve(merged({**IDENTITY, "scale": name}, changes), root=ROOT)


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_has_the_parameters_that_are_counted(name: str) -> None:
    config = dial.shape(resolved(name).model)
    with torch.device("meta"):
        ours = Model(config, seed=None)
        other = theirs(config)
    counted = [sum(weight.numel() for weight in model.parameters()) for model in (ours, other)]
    assert counted == [config.n_parameters] * 2


@pytest.mark.parametrize("name", LARGE)
def test_the_head_of_a_scale_states_what_it_amounts_to(name: str) -> None:
    settings = resolved(name)
    shape, base = dial.shape(settings.model), settings.base
    assert base.tokens == 20 * shape.n_parameters and base.batch_tokens
    flops = base.tokens * shape.flops_per_token
    text = (ROOT / "config" / "scales" / f"{name}.yaml").read_text(encoding="utf-8")
    head = re.sub(r"\s*#\s*", " ", text.partition("\nmodel:")[0])
    assert (
        f"{shape.n_parameters:,} parameters, {shape.flops_per_token:,} FLOPs a token, "
        f"{base.tokens / 1e9:.1f} billion tokens of pretraining in batches of "
        f"{base.batch_tokens:,}: {flops:.1e} FLOPs, "
        f"{flops / (8 * 989e12 * 0.4) / 3600:.1f} hours on 8xH100 at 40 % of their peak."
    ).replace("e+", "e") in head


def test_depth_alone_sets_the_large_scales_apart() -> None:
    raw = {name: yamlfile.load(ROOT / "config" / "scales" / f"{name}.yaml")[0] for name in LARGE}
    assert [raw[name]["model"].pop("depth") for name in LARGE] == [12, 20, 26]
    assert raw["d12"] == raw["d20"] == raw["d26"]
    deep = resolved("d12", model={"depth": 20}).model_dump()
    assert deep == {**resolved("d20").model_dump(), "scale": "d12"}


def test_what_follows_from_depth() -> None:
    d12, d20, d26 = (resolved(name) for name in LARGE)
    assert [each.model.head_width for each in (d12, d20, d26)] == [128, 128, 128]
    assert dial.shape(d20.model).n_parameters == 560_988_160
    assert [each.base.batch_tokens for each in (d12, d20, d26)] == [262_144, 524_288, 524_288]
    assert [each.mid.batch_tokens for each in (d12, d20, d26)] == [262_144, 524_288, 524_288]
    assert [each.sft.batch_tokens for each in (d12, d20, d26)] == [32_768] * 3
    assert (d12.base.embedding_lr, d12.base.head_lr, d12.base.matrix_lr) == (0.2, 0.004, 0.02)
    for each in (d20, d26):
        narrow = math.sqrt(12 / each.model.depth)
        assert each.base.embedding_lr == pytest.approx(0.2 * narrow, abs=1e-6)
        assert each.sft.head_lr == pytest.approx(0.004 * narrow, abs=1e-6)
        assert each.base.matrix_lr == each.sft.matrix_lr == 0.02
    assert d20.corpus.characters == round(4.8 * 20 * 560_988_160)


@pytest.mark.parametrize("name", SCALES)
def test_a_scale_names_sources_that_are_there(name: str) -> None:
    settings = resolved(name)
    named = {settings.corpus.source, *settings.mid.chat, *settings.sft.chat}
    assert named <= set(sources.names())


def test_a_plan_says_what_pretraining_takes_where_it_takes_much() -> None:
    assert scales.pretraining(resolved("d20")) == (
        "base: 561 M parameters, 11.2 B tokens, about 3.4 h on 8 H100 at 40% of their peak."
    )
    assert scales.pretraining(resolved("tiny")) == ""
    assert scales.pretraining(resolved("d20", base={"from": "somewhere"})) == ""


def test_the_command_lists_them_smallest_first() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("imprint")), "scales"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines() if line[1:2] in ("t", "d")]
    assert [row[0] for row in rows] == ["tiny", "d12", "d20", "d26"]
    assert " ".join(rows[2]) == "d20 561 M 3.5e9 11.2 B 524,288 3.9e19 3.4 h"
