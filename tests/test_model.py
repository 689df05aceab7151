from collections.abc import Mapping

import pytest
import torch
from torch.nn import functional

from imprint import attention, fused
from imprint.errors import ConfigError
from imprint.model import Model, ModelConfig
from reference import lively, theirs

SHAPES = [
    ModelConfig(depth=1, vocabulary=300, context=32),
    ModelConfig(depth=2, vocabulary=300, context=32, head_width=32),
    ModelConfig(depth=2, vocabulary=300, context=32, head_width=32, n_kv_head=2),
]
NAMES = {
    "transformer.wte": "model.embed_tokens",
    "transformer.h.": "model.layers.",
    "attn.c_q": "self_attn.q_proj",
    "attn.c_k": "self_attn.k_proj",
    "attn.c_v": "self_attn.v_proj",
    "attn.c_proj": "self_attn.o_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def some_ids(rows: int, length: int) -> torch.Tensor:
    return torch.randint(0, 300, (rows, length), generator=torch.Generator().manual_seed(2))


def renamed(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same weights under the names of transformers."""
    named = {}
    for name, weight in weights.items():
        for ours, other in NAMES.items():
            name = name.replace(ours, other)
        named[name] = weight
    return named


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.grad for name, weight in model.named_parameters()}  # type: ignore[misc]


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("gpu", [False, True])
def test_logits_and_gradients_are_those_of_transformers(
    config: ModelConfig, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "on_gpu", lambda _: gpu)
    model = lively(config)
    # a padding token's row of the embedding would not learn
    other = theirs(config, pad_token_id=None)
    other.load_state_dict(renamed(model.state_dict()), strict=True)
    ids_BT, labels_BT = some_ids(3, 32), some_ids(3, 33)[:, 1:]
    logits_BTV = other(ids_BT).logits
    torch.testing.assert_close(model(ids_BT), logits_BTV, atol=1e-4, rtol=1e-4)
    nats = functional.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), reduction="sum")
    (nats / 96).backward()  # type: ignore[no-untyped-call]
    (model.loss(ids_BT, None, labels_BT.flatten()) / 96).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(renamed(gradients(model)), gradients(other), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize("gpu", [False, True])
def test_conversations_packed_into_rows_learn_as_if_each_had_its_own(
    config: ModelConfig, gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fused, "on_gpu", lambda _: gpu)
    ids_BT, labels_BT = some_ids(2, 24), some_ids(2, 25)[:, 1:]
    lengths = [[9, 15], [4, 12, 8]]
    documents_BT = torch.tensor(
        [[n for n, length in enumerate(row) for _ in range(length)] for row in lengths],
        dtype=torch.int32,
    )
    packed, apart = lively(config), lively(config)
    x_BTC = packed.stream(ids_BT, documents_BT=documents_BT)
    packed.loss(ids_BT, None, labels_BT.flatten(), documents_BT=documents_BT).backward()  # type: ignore[no-untyped-call]
    for row, sizes in enumerate(lengths):
        start = 0
        for size in sizes:
            here = slice(start, start + size)
            alone = apart.stream(ids_BT[row : row + 1, here])
            torch.testing.assert_close(x_BTC[row, here], alone[0], atol=1e-5, rtol=1e-5)
            apart.loss(ids_BT[row : row + 1, here], None, labels_BT[row, here]).backward()  # type: ignore[no-untyped-call]
            start += size
    torch.testing.assert_close(gradients(packed), gradients(apart), atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore")  # of flex_attention, that it is slow when not compiled
def test_blocks_hide_what_the_mask_hides() -> None:
    documents_BT = torch.tensor([[0] * 50 + [1] * 90 + [2] * 60, [0] * 200], dtype=torch.int32)
    x_BTC = torch.ones(2, 200, 128)
    queries = torch.randn(2, 4, 200, 32, generator=torch.Generator().manual_seed(1))
    keys, values = queries[:, :2] + 0.1, queries[:, 2:] - 0.1
    mixed = [
        attention.attend(
            queries, keys, values, attention.itself(x_BTC, documents_BT, blocks=blocks)
        )
        for blocks in (False, True)
    ]
    torch.testing.assert_close(mixed[1], mixed[0], atol=1e-5, rtol=1e-5)


def test_a_row_says_nothing_about_another() -> None:
    model, ids_BT = lively(SHAPES[1]), some_ids(2, 20)
    with torch.no_grad():
        together = model(ids_BT)
        ids_BT[1] = 7
        torch.testing.assert_close(model(ids_BT)[0], together[0], atol=1e-6, rtol=0)


def test_a_row_beyond_the_context_is_refused() -> None:
    with pytest.raises(ValueError, match="33 tokens are beyond the context 32"):
        lively(SHAPES[0])(some_ids(1, 33))


@pytest.mark.parametrize("config", SHAPES)
def test_the_loss_is_the_cross_entropy_at_the_supervised_positions(config: ModelConfig) -> None:
    model, other, ids_BT = lively(config), lively(config), some_ids(3, 20)
    where_N = torch.tensor([3, 7, 22, 41, 59])
    labels_N = torch.tensor([1, 2, 3, 4, 5])
    loss = model.loss(ids_BT, where_N, labels_N)
    loss.backward()  # type: ignore[no-untyped-call]
    logits = other(ids_BT).flatten(0, 1)[where_N]
    plain = functional.cross_entropy(logits, labels_N, reduction="sum")
    plain.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(gradients(model), gradients(other), atol=1e-5, rtol=1e-4)


def test_filler_behind_the_labels_changes_nothing() -> None:
    model, ids_BT = lively(SHAPES[1]), some_ids(3, 20)
    labels_N = torch.tensor([1, 2])
    bare = model.loss(ids_BT, torch.tensor([3, 7]), labels_N)
    filled = model.loss(ids_BT, torch.tensor([3, 7, 0, 0, 0]), labels_N)
    torch.testing.assert_close(bare, filled)


def test_first_weights_depend_on_the_seed_alone() -> None:
    one, same, other = (Model(SHAPES[0], seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["transformer.wte.weight"], other["transformer.wte.weight"])


def test_a_fresh_model_finds_every_token_equally_likely() -> None:
    logits = Model(SHAPES[1], seed=1)(some_ids(1, 5))
    assert logits.abs().max() == 0


def test_names_are_those_of_nanochat() -> None:
    parts = ["attn.c_q", "attn.c_k", "attn.c_v", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
    expected = {f"transformer.h.0.{part}.weight" for part in parts}
    assert set(Model(SHAPES[0]).state_dict()) == expected | {
        "transformer.wte.weight",
        "lm_head.weight",
    }


def test_counts_of_weights_and_operations() -> None:
    model = Model(SHAPES[0])
    assert model.config.n_parameters == 2 * 300 * 64 + 12 * 64 * 64
    assert model.config.flops_per_token == 6 * (300 * 64 + 12 * 64 * 64) + 12 * 64 * 32


@pytest.mark.parametrize(("head_width", "n_kv_head"), [(48, None), (32, 3), (1, None)])
def test_heads_that_do_not_divide_the_width_are_refused(
    head_width: int, n_kv_head: int | None
) -> None:
    with pytest.raises(ConfigError, match=r"model\.(head_width|n_kv_head)"):
        ModelConfig(depth=2, vocabulary=300, context=32, head_width=head_width, n_kv_head=n_kv_head)


def test_a_config_survives_the_round_trip_through_plain_types() -> None:
    for config in SHAPES:
        assert ModelConfig(**config.plain()) == config
