from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from imprint import cross_entropy, fused
from imprint.dataset.batch import Batch
from imprint.errors import ConfigError, ImprintError
from imprint.model import Compiled, Model, ModelConfig
from imprint.scale import Training
from imprint.training import gradients
from imprint.training.distributed import Ranks
from imprint.training.gradients import Gradients
from imprint.training.optim import Optimizers

CONFIG = ModelConfig(depth=1, vocabulary=300, context=32)
CPU = torch.device("cpu")


def batch(rows: int) -> Batch:
    tokens = torch.randint(0, 300, (rows, 33), generator=torch.Generator().manual_seed(3))
    count = rows * 32
    return Batch(tokens[:, :-1], None, tokens[:, 1:].flatten(), count, count)


def test_a_batch_seen_again_and_again_is_known_by_heart() -> None:
    model, given = Model(CONFIG, seed=1), batch(4)
    settings = Training(embedding_lr=0.2, head_lr=0.02)
    optimizers = Optimizers(model, settings, ranks=Ranks(0, 1, CPU), dtype=torch.float32)
    with Gradients(model, dtype=torch.float32) as work:
        for step in range(60):
            nats = work.backward(given)
            optimizers.step(step=step, steps=60, each=work.each)
        assert nats / given.supervised < 0.05


def scarce(most: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Let the memory be full with more than ``most`` tokens at once; list what is tried."""
    tried: list[int] = []
    honest = Model.loss

    def loss(self: Model, ids_BT: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
        tried.append(ids_BT.numel())
        if ids_BT.numel() > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return honest(self, ids_BT, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Model, "loss", loss)
    monkeypatch.setattr(gradients, "HALVES", 1)
    return tried


def test_memory_that_is_full_once_costs_half_the_tokens_at_once_and_no_precision(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = Model(CONFIG, seed=1)
    with Gradients(model, dtype=torch.float32) as work:
        whole = work.backward(batch(4))
        expected = [weight.grad for weight in model.parameters()]
        tried = scarce(64, monkeypatch)
        assert work.backward(batch(4)) == pytest.approx(whole)
        torch.testing.assert_close([weight.grad for weight in model.parameters()], expected)
        assert tried == [128, 64, 64]
        work.backward(batch(4))
        assert tried == [128, 64, 64, 64, 64]
    assert [record.message for record in caplog.records] == [
        "out of GPU memory with 128 tokens at once; goes on with 64. The batch stays the same."
    ]


@pytest.mark.parametrize(("most", "rows", "named"), [(32, 4, 64), (1, 1, 32)])
def test_memory_that_stays_full_is_an_error_that_names_ways_out(
    most: int, rows: int, named: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    scarce(most, monkeypatch)
    with (
        Gradients(Model(CONFIG, seed=1), dtype=torch.float32) as work,
        pytest.raises(ImprintError, match=rf"no room for {named} tokens at once\. .*model\.depth"),
    ):
        work.backward(batch(rows))


def test_without_a_compiler_training_goes_on_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: object) -> object:
        raise RuntimeError("Failed to find C compiler.\nHere is a long story")

    monkeypatch.setattr(torch, "compile", broken)
    assert gradients.compiled(CPU) is None
    assert "(Failed to find C compiler.): training is slower" in caplog.text


def test_float8_is_refused_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match=r"precision: float8 needs a GPU .* this is a cpu"):
        Gradients(Model(CONFIG, seed=1), dtype=torch.float32, eight=True)


def test_compiled_forms_are_used_for_gradients_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "on_gpu", lambda _: True)
    used: list[str] = []

    def through(block: torch.nn.Module, *args: object) -> torch.Tensor:
        used.append("layer")
        out: torch.Tensor = block(*args)
        return out

    def slopes(*args: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        used.append("loss")
        return cross_entropy.logit_slopes(*args)  # type: ignore[arg-type]

    model, where_N = Model(CONFIG, seed=1), torch.arange(3, 30, 2)
    given = replace(batch(1), where_N=where_N, labels_N=batch(1).labels_N[where_N])
    with Gradients(model, dtype=torch.float32) as work:
        expected = work.backward(given), [weight.grad for weight in model.parameters()]
        model.compiled = Compiled(through, slopes)  # type: ignore[arg-type]
        found = work.backward(given), [weight.grad for weight in model.parameters()]
        torch.testing.assert_close(found, expected)
        assert used == ["layer", "loss"]
        with torch.no_grad():
            model(batch(1).ids_BT)
        assert used == ["layer", "loss"]
    assert model.compiled is None


def test_packed_rows_in_parts_keep_their_documents() -> None:
    given = batch(4)
    documents_BT = (torch.arange(32) // torch.tensor([[8], [5], [32], [11]])).int()
    packed = replace(given, documents_BT=documents_BT)
    model = Model(CONFIG, seed=1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.2, generator=generator)
    nats = [
        model.loss(part.ids_BT, None, part.labels_N, documents_BT=part.documents_BT).item()
        for part in (packed, *packed.parts(32))
    ]
    assert nats[0] == pytest.approx(sum(nats[1:]))
    with Gradients(model, dtype=torch.float32) as work:
        assert work.backward(packed) == pytest.approx(nats[0])
        assert abs(work.backward(given) - nats[0]) > 1


@pytest.mark.parametrize(("fit", "most"), [(0, 1), (1, 1), (5, 4), (6, 6), (9, 6), (60, 12)])
def test_rows_at_once_follow_from_the_memory_of_the_gpu(
    fit: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 rows go through in as few equal parts as there is room for."""
    row = 32 * gradients.token_bytes(CONFIG, torch.bfloat16)
    memory = round((gradients.fixed_bytes(CONFIG) + (fit + 0.5) * row) / 0.9)
    about = SimpleNamespace(total_memory=memory)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: about)
    model = Model(CONFIG, seed=1)
    assert gradients.room(model, torch.bfloat16) // 32 == fit
    with Gradients(model, dtype=torch.bfloat16) as work, monkeypatch.context() as patch:
        patch.setattr(Model, "device", torch.device("cuda"))
        assert work._most(batch(12)) == most * 32
