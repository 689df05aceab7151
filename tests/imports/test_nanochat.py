import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from imports.kit import RANKS, VOCABULARY, base_dir, checkpoint, encoding, little, pickled
from imprint import imports
from imprint.errors import ArtifactError, ConfigError
from imprint.imports.vocabulary import from_pickle
from imprint.model import Model

STEP = "base_checkpoints/d2/model_000012.pt"
META = "base_checkpoints/d2/meta_000012.json"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A base directory as nanochat lays it out."""
    return base_dir(tmp_path / "nanochat")


@pytest.mark.parametrize("named", [".", "base_checkpoints/d2"])
def test_the_newest_step_comes_in_with_its_tokenizer(home: Path, named: str) -> None:
    found = imports.load(home / named)
    assert found.config == little().config
    assert found.source == "nanochat d2, step 12"
    assert [path.relative_to(home).as_posix() for path in found.files] == [
        META,
        STEP,
        "tokenizer/tokenizer.pkl",
    ]
    assert found.files == imports.files(home / named)
    wanted = little().state_dict()
    wanted["transformer.wte.weight"] = wanted["transformer.wte.weight"].bfloat16().float()
    assert list(found.weights) == list(wanted)
    for name, weight in found.weights.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, wanted[name])
    Model(found.config, seed=None).load_state_dict(found.weights)
    ours = from_pickle(home / "tokenizer/tokenizer.pkl")
    assert imports.tokenizer(home / named).digest == ours.digest


def test_a_flat_folder_of_a_compiled_model_with_shared_keys_comes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = little(head_width=32, n_kv_head=2)
    checkpoint(tmp_path, model, step=650, prefix="_orig_mod.")
    pickled(tmp_path / "tokenizer.pkl", encoding(RANKS))
    monkeypatch.chdir(tmp_path)
    found = imports.load(Path())
    assert found.config == model.config
    assert found.source == f"nanochat {tmp_path.name}, step 650"
    assert [str(path) for path in found.files] == [
        "meta_000650.json",
        "model_000650.pt",
        "tokenizer.pkl",
    ]


Edit = Callable[[Path], object]


def config(home: Path, **values: Any) -> None:
    about = json.loads((home / META).read_text())
    about["model_config"] |= values
    (home / META).write_text(json.dumps(about))


def weights(home: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    found = torch.load(home / STEP, weights_only=True)
    edit(found)
    torch.save(found, home / STEP)


def pack(home: Path) -> None:
    """Compress the model file: what zip makes small, torch would make large again."""
    with zipfile.ZipFile(home / STEP) as old, zipfile.ZipFile(home / "new", "w", 8) as new:
        for item in old.namelist():
            new.writestr(item, old.read(item))
    (home / "new").replace(home / STEP)


FAULTS: dict[str, Edit] = {
    "model_config has window_pattern, of another version": lambda home: config(
        home, window_pattern="SSSL"
    ),
    "has a weight value_embeds.1.weight, of another architecture": lambda home: weights(
        home, lambda found: found.update({"value_embeds.1.weight": torch.zeros(3)})
    ),
    "has a weight x0_lambdas, of another architecture": lambda home: weights(
        home, lambda found: found.update(x0_lambdas=torch.zeros(2))
    ),
    "has no weight lm_head.weight": lambda home: weights(
        home, lambda found: found.pop("lm_head.weight")
    ),
    "lm_head.weight has values that are no numbers": lambda home: weights(
        home, lambda found: found["lm_head.weight"].mul_(float("nan"))
    ),
    "lm_head.weight holds no weights": lambda home: weights(
        home, lambda found: found.update({"lm_head.weight": 3})
    ),
    r"wte.weight has the shape \[270, 128\], and should have \[320, 128\]": lambda home: config(
        home, vocab_size=320
    ),
    "14 weights are too few for 1000000 layers": lambda home: config(
        home, n_layer=10**6, n_embd=64 * 10**6, n_head=10**6, n_kv_head=10**6
    ),
    "n_embd is 128, and has to be 192": lambda home: config(home, n_layer=3),
    "n_head is 3, which does not divide the width 128": lambda home: config(home, n_head=3),
    "n_kv_head is '2', and has to be a whole number": lambda home: config(home, n_kv_head="2"),
    "n_kv_head: 2 does not divide the 1 heads": lambda home: config(home, n_head=1, n_kv_head=2),
    "sequence_len is None": lambda home: config(home, sequence_len=None),
    r"meta_000012.json: no such file": lambda home: (home / META).unlink(),
    r"meta_000012.json: not JSON": lambda home: (home / META).write_text('{"step": 12, "mod'),
    r"meta_000012.json: not a JSON object": lambda home: (home / META).write_text("[]"),
    r"meta_000012.json: has no model_config": lambda home: (home / META).write_text("{}"),
    r"model_000012.pt: damaged or not a checkpoint": lambda home: os.truncate(home / STEP, 90_000),
    r"model_000012.pt: damaged or not a checkpoint \(compressed": pack,
    r"model_000012.pt: holds code or foreign objects": lambda home: (home / STEP).write_bytes(
        pickle.dumps(os.system)
    ),
    r"model_000012.pt: holds no weights by name": lambda home: torch.save([1], home / STEP),
    r"tokenizer.pkl: no such file, and none in .*tokenizer": lambda home: shutil.rmtree(
        home / "tokenizer"
    ),
    "tokenizer.pkl: has 269 tokens, but the model of .*meta_000012.json has 270": lambda home: (
        pickled(
            home / "tokenizer/tokenizer.pkl",
            encoding({token: rank for token, rank in RANKS.items() if rank < VOCABULARY - 10}),
        )
    ),
}


@pytest.mark.parametrize("fact", FAULTS)
def test_a_folder_that_cannot_be_used_is_refused(fact: str, home: Path) -> None:
    FAULTS[fact](home)
    with pytest.raises(ArtifactError, match=fact) as caught:
        imports.load(home)
    assert str(caught.value).endswith(".")


def test_several_models_are_listed(home: Path) -> None:
    checkpoint(home / "base_checkpoints" / "d1", little(), step=3)
    with pytest.raises(ConfigError, match=r"several models \(.*d1/model_000003.pt, .*d2/model_0"):
        imports.files(home)
    assert imports.files(home / "base_checkpoints" / "d2")


def test_what_holds_no_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model_12_backup.pt").touch()
    for path, fact in (
        (tmp_path, "holds no model"),
        (tmp_path / "absent", "absent: no such folder"),
        (tmp_path / "model_12_backup.pt", "is a file, not a folder"),
    ):
        with pytest.raises(ConfigError, match=f"base.from: .*{fact}"):
            imports.files(path)
