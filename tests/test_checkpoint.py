import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from imprint import checkpoint
from imprint.checkpoint import States
from imprint.errors import ArtifactError
from imprint.model import Model, ModelConfig

CONFIG = ModelConfig(depth=1, vocabulary=300, context=32)


def saved(path: Path, *, seed: int = 1) -> Path:
    checkpoint.save(
        path,
        Model(CONFIG, seed=seed),
        tokenizer="ab" * 32,
        settings={"matrix_lr": 0.02, "chat": "embedded", "stage": "sft"},
        seed=seed,
        step=7,
        stage="sft",
    )
    return path


def test_what_was_saved_is_what_is_loaded(tmp_path: Path) -> None:
    found = checkpoint.load(saved(tmp_path / "sft.pt"), tokenizer="ab" * 32)
    assert (found.seed, found.step, found.stage) == (1, 7, "sft")
    assert found.settings["matrix_lr"] == 0.02
    assert found.versions["torch"]
    again, first = found.model(), Model(CONFIG, seed=1)
    assert again.config == CONFIG
    ids_BT = torch.arange(20)[None]
    assert torch.equal(again(ids_BT), first(ids_BT))


def test_the_same_content_has_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    names = ["sft.pt", "other.pt"]
    digests = {hashlib.sha256(saved(tmp_path / name).read_bytes()).hexdigest() for name in names}
    assert len(digests) == 1
    assert saved(tmp_path / "third.pt", seed=2).read_bytes() != (tmp_path / "sft.pt").read_bytes()


def test_torch_opens_it_without_running_code(tmp_path: Path) -> None:
    found = torch.load(saved(tmp_path / "sft.pt"), weights_only=True)
    assert found["weights"]["lm_head.weight"].shape == (300, 64)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused_by_name(share: float, tmp_path: Path) -> None:
    path = saved(tmp_path / "sft.pt")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ArtifactError, match=r"sft\.pt: .*Delete it and run again"):
        checkpoint.load(path)


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_never_run(zipped: bool, tmp_path: Path) -> None:
    path, sprung = tmp_path / "sft.pt", tmp_path / "sprung"
    if zipped:
        torch.save({"format": 1, "weights": Trap(sprung)}, path)
    else:
        path.write_bytes(pickle.dumps({"format": 1, "weights": Trap(sprung)}))
    with pytest.raises(ArtifactError, match=r"sft\.pt: holds code or foreign objects"):
        checkpoint.load(path)
    assert not sprung.exists()


@pytest.mark.parametrize("content", [{"model": 1}, {"format": 99}, [1, 2]])
def test_a_foreign_checkpoint_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "sft.pt")
    with pytest.raises(ArtifactError, match="not a checkpoint"):
        checkpoint.load(tmp_path / "sft.pt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"sft\.pt: no such file"):
        checkpoint.load(tmp_path / "sft.pt")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="trained with another tokenizer"):
        checkpoint.load(saved(tmp_path / "sft.pt"), tokenizer="cd" * 32)


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "sft.pt")
    content = torch.load(path, weights_only=True)
    content["weights"].pop("lm_head.weight")
    torch.save(content, path)
    with pytest.raises(ArtifactError, match="weights do not fit the model"):
        checkpoint.load(path).model()


def test_the_newest_two_states_are_kept_and_a_damaged_one_passed_over(tmp_path: Path) -> None:
    states = States(tmp_path / "state" / "sft" / "0123")
    assert states.newest() is None
    for step in (5, 10, 15):
        states.save(step, {"step": step})
    assert [path.name for path in states.paths()] == ["step-000000010.pt", "step-000000015.pt"]
    assert states.newest() == {"step": 15}
    states.paths()[-1].write_bytes(b"PK")
    assert states.newest() == {"step": 10}
    states.clear()
    assert not (tmp_path / "state").exists()
