import hashlib
import pickle
import resource
from pathlib import Path

import pytest
import torch

from imprint import checkpoint
from imprint.errors import ArtifactError, StorageError
from imprint.model import Model, ModelConfig
from imprint.training.states import States

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


@pytest.mark.parametrize(
    "changed", [{"weights": [1, 2]}, {"weights": None}, {"config": [1]}, {"tokenizer": 5}]
)
def test_a_checkpoint_with_a_part_of_another_type_is_refused(
    changed: dict[str, object], tmp_path: Path
) -> None:
    path = saved(tmp_path / "sft.pt")
    torch.save({**torch.load(path, weights_only=True), **changed}, path)
    with pytest.raises(ArtifactError, match=r"sft\.pt: not a checkpoint of this .* Delete it and"):
        checkpoint.load(path, tokenizer="ab" * 32).model()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"sft\.pt: no such file"):
        checkpoint.load(tmp_path / "sft.pt")


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="trained with another tokenizer"):
        checkpoint.load(saved(tmp_path / "sft.pt"), tokenizer="cd" * 32)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("lm_head.weight", None, "lm_head.weight is no weight, and should be 300 x 64"),
        ("lm_head.weight", torch.zeros(300, 65), "is 300 x 65, and should be 300 x 64"),
        ("lm_head.weight", [1, 2], "lm_head.weight is no weight, and should be 300 x 64"),
        ("smear.weight", torch.zeros(3), "smear.weight is 3, and should be no weight"),
    ],
)
def test_a_weight_that_does_not_fit_is_named_with_both_shapes(
    name: str, value: object, message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path / "sft.pt")
    content = torch.load(path, weights_only=True)
    content["weights"][name] = value
    torch.save(content, path)
    with pytest.raises(ArtifactError, match=rf"checkpoint of sft: .*{message}\. Delete the file"):
        checkpoint.load(path).model()


@pytest.mark.parametrize("config", [{"depth": 1}, {**CONFIG.plain(), "window": "SSSL"}])
def test_another_architecture_is_refused(config: dict[str, object], tmp_path: Path) -> None:
    path = saved(tmp_path / "sft.pt")
    content = torch.load(path, weights_only=True)
    torch.save({**content, "config": config}, path)
    with pytest.raises(ArtifactError, match="sft: the checkpoint is of another architecture"):
        checkpoint.load(path).model()


@pytest.mark.parametrize(
    ("name", "value"),
    [("depth", "x"), ("depth", 0), ("context", None), ("head_width", 0), ("vocabulary", 300.0)],
)
def test_a_config_without_whole_numbers_is_refused_by_name(
    name: str, value: object, tmp_path: Path
) -> None:
    path = saved(tmp_path / "sft.pt")
    content = torch.load(path, weights_only=True)
    content["config"][name] = value
    torch.save(content, path)
    with pytest.raises(ArtifactError, match=rf"architecture \({name} is {value!r}\)\. Delete it"):
        checkpoint.load(path).model()


def test_a_changed_bit_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "sft.pt")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"sft\.pt: damaged .* has changed since it was writ"):
        checkpoint.load(path)


def test_a_file_that_cannot_be_written_whole_is_not_written_at_all(tmp_path: Path) -> None:
    path = saved(tmp_path / "sft.pt")
    whole = path.read_bytes()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, before[1]))
    try:
        with pytest.raises(StorageError, match=r"sft\.pt: could not be written \(File too large\)"):
            saved(path, seed=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert path.read_bytes() == whole and list(tmp_path.iterdir()) == [path]


def test_the_newest_two_states_are_kept_and_what_cannot_be_used_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    states = States(tmp_path / "state" / "sft" / "0123")
    assert states.newest() is None
    for step in (5, 10, 15):
        states.save(step, {"lines": [step]})
    assert [path.name for path in states.paths()] == ["step-000000010.pt", "step-000000015.pt"]
    assert states.newest() == {"format": 2, "step": 15, "lines": [15]}
    states.paths()[-1].write_bytes(b"PK")
    assert states.newest() == {"format": 2, "step": 10, "lines": [10]}
    assert caplog.messages == [f"{states.paths()[-1]}: damaged; going on from the state before it"]
    checkpoint.write(states.paths()[0], {"step": 10, "muon": {}})
    assert states.newest() is None
    assert caplog.messages[-1].endswith("written by another version of imprint; not used")
    states.clear()
    assert not (tmp_path / "state").exists()
