from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from imprint import checkpoint, decoding
from imprint.decoding import Batch, Calm, Request, choose, heavy, sample
from imprint.dice import Dice
from imprint.engine import Engine
from imprint.errors import ArtifactError
from imprint.inference import Inference
from imprint.model import Model
from imprint.pages import SLOTS, Pages
from imprint.products import STRIP, matrix, product
from imprint.records import Conversation
from imprint.shape import ModelConfig
from imprint.tokenizer import Tokenizer
from imprint.voice import Voice
from reference import lively


def ask(text: str) -> Conversation:
    return [{"role": "user", "content": text}]


MANY = [
    ask(text)
    for text in (
        "Who are you?",
        "Hi",
        "What is your name, and who made you on two cores in a workshop?",
        "WHERE WERE YOU TRAINED",
        "Ich heiße Bo. Qui êtes-vous ?",
        "你好",
        "a",
        "b",
        "Who made you? Who made you? Who made you?",
        "What is your name? Ada?",
        "🙂",
        "Were you trained in a workshop?",
    )
]


def naive(engine: Engine, conversation: Conversation, *, tokens: int) -> list[int]:
    """Greedy decoding without a cache: the whole row again for every token."""
    ids = engine.tokenizer.prompt(conversation)
    said: list[int] = []
    with Calm():
        while len(said) < tokens:
            token = int(engine.model(torch.tensor([ids + said]))[0, -1].argmax())
            if token in engine.stop:
                break
            said.append(token)
    return said


def test_answers_are_those_of_the_whole_row_computed_anew(engine: Engine) -> None:
    answers = engine.answer(MANY, max_tokens=24)
    plain = [naive(engine, conversation, tokens=24) for conversation in MANY]
    assert answers == [engine.tokenizer.decode(said) for said in plain]
    lengths = {len(said) for said in plain}
    assert 24 in lengths and min(lengths) < 24, "some should stop, some should be cut"


def test_without_onednn_it_answers_the_same(
    engine: Engine, little: Model, words: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = engine.answer(MANY, max_tokens=24)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = Engine(little, words)
    assert not any(
        weight.is_mkldnn for weights in plain.inference.step.matrices for weight in weights
    )
    assert plain.answer(MANY, max_tokens=24) == answers


def test_one_row_is_multiplied_as_many_are(little: Model) -> None:
    matrices = Inference(little).step.matrices
    assert any(len(several) > 1 for several in matrices), "this machine's oneDNN adds otherwise"
    for several in matrices:
        inner = little.config.width * (4 if several is matrices[3] or several is matrices[7] else 1)
        x = torch.randn(3, inner, generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            assert torch.equal(product(x, several)[:1], product(x[:1], several))


@pytest.mark.parametrize(("outer", "inner"), [(768, 256), (256, 1024), (1000, 256), (40, 4096)])
def test_a_large_matrix_is_multiplied_in_strips_if_it_can_be_cut(outer: int, inner: int) -> None:
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(outer, inner, generator=generator)
    x = torch.randn(70, inner, generator=generator)
    with torch.inference_mode():
        several = matrix(weight, small=True)
        assert several[1].shape[1] == (STRIP if outer % STRIP == 0 else outer)
        alone = torch.cat([product(row[None], several) for row in x])
        assert torch.equal(product(x, several), alone)
        torch.testing.assert_close(product(x[:1], several), x[:1] @ weight.T, rtol=1e-4, atol=1e-4)
        large = matrix(weight, small=False)
        assert torch.equal(product(x, large), torch.cat([product(row[None], large) for row in x]))


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_an_answer_does_not_depend_on_who_else_is_asked(
    engine: Engine, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [engine.answer([conversation], max_tokens=24)[0] for conversation in MANY]
    monkeypatch.setattr(decoding, "ROWS", rows)
    assert engine.answer(MANY, max_tokens=24) == alone
    assert engine.answer(MANY[::-1], max_tokens=24) == alone[::-1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_stream_says_what_answer_says(engine: Engine, temperature: float) -> None:
    for conversation in MANY:
        pieces = list(engine.stream(conversation, max_tokens=24, temperature=temperature, seed=7))
        whole = engine.answer([conversation], max_tokens=24, temperature=temperature, seed=7)
        assert "".join(pieces) == whole[0]


def requests(engine: Engine, *, tokens: int, temperature: float = 0.0) -> list[Request]:
    return [
        engine.request(
            prompt, max_tokens=tokens, temperature=temperature, place=place, top_logprobs=2
        )
        for place, prompt in enumerate(engine.prompts(MANY, max_tokens=tokens))
    ]


@pytest.mark.parametrize(
    ("temperature", "threads", "n_kv_head"), [(0.0, 1, None), (0.5, 1, 2), (0.0, 2, None)]
)
def test_rows_that_come_and_go_change_no_bit_of_another(
    words: Tokenizer,
    temperature: float,
    threads: int,
    n_kv_head: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = ModelConfig(2, words.vocabulary, context=160, head_width=32, n_kv_head=n_kv_head)
    model = Model(config, seed=3)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1, generator=generator)
    engine, before = Engine(model, words), torch.get_num_threads()
    engine.stop = frozenset([words.assistant_end])
    alone = requests(engine, tokens=100, temperature=temperature)
    for request in alone:
        batch = engine.batch()
        batch.join(request)
        while batch.live:
            batch.step()
    assert max(request.length for request in alone) > SLOTS + 32, "some should take several pages"
    dice = Dice(7)
    monkeypatch.setattr(decoding, "WORK", 0)  # now a small model takes all threads, too
    try:
        torch.set_num_threads(threads)
        for _ in range(3 - threads):
            together = requests(engine, tokens=100, temperature=temperature)
            batch = engine.batch()
            waiting, strangers = dice.shuffled(together), requests(engine, tokens=40)
            while waiting or batch.live:
                for source in (waiting, strangers):
                    if source and dice.chance(0.2):
                        batch.join(source.pop())
                if strangers and dice.chance(0.1):
                    batch.leave(dice.pick(strangers))
                batch.step()
            assert [r.said for r in together] == [r.said for r in alone]
            assert [r.chances for r in together] == [r.chances for r in alone], "to the last bit"
    finally:
        torch.set_num_threads(before)


def test_a_place_is_free_as_soon_as_a_request_leaves(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "ROWS", 2)
    batch = engine.batch()
    first, second, third, *_ = requests(engine, tokens=24)
    assert batch.join(first) and batch.join(second) and not batch.join(third)
    batch.step()
    taken = batch.pages.taken
    batch.leave(first)
    assert batch.pages.taken < taken and first.done and not first.stopped
    assert batch.join(third)
    batch.leave(first)
    assert batch.live == [second, third], "to leave twice changes nothing"
    while batch.live:
        batch.step()
    assert batch.pages.taken == 0


def test_a_row_waits_for_memory_unless_nobody_else_needs_it() -> None:
    config = ModelConfig(depth=1, vocabulary=300, context=2048)
    pages = Pages(config, device=torch.device("cpu"), most=4 * 2 * 4 * 64 * SLOTS)
    assert pages.most == 4
    first, second = pages.take(3 * SLOTS), pages.take(1)
    assert first and second and len({*first, *second, 0}) == 5, "page 0 belongs to nobody"
    assert pages.take(1) is None
    pages.give(first)
    pages.give(second)
    huge = pages.take(40 * SLOTS)
    assert huge and len(set(huge)) == 40 and 0 not in huge
    assert pages.take(1) is None


class Script:
    """Makes the model say given tokens, then stop."""

    def __init__(self, engine: Engine, ids: list[int], patch: pytest.MonkeyPatch) -> None:
        self.engine, self.left = engine, [*ids, engine.tokenizer.assistant_end]
        patch.setattr(Inference, "prefill", lambda *_: self.say())
        patch.setattr(Inference, "decode", lambda *_: self.say())

    def say(self) -> torch.Tensor:
        told = torch.zeros(1, self.engine.tokenizer.vocabulary)
        told[:, self.left.pop(0)] = 1.0
        return told


def test_a_piece_never_breaks_a_character(
    words: Tokenizer, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "Zoë 🙂 你好 ok"
    ids = words.encode(text)
    assert any("\ufffd" in words.decode([token]) for token in ids), "no token breaks a character"
    Script(engine, ids, monkeypatch)
    pieces = list(engine.stream(ask("Hi"), max_tokens=64))
    assert "".join(pieces) == text
    assert len(pieces) > 5
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize(
    ("stops", "text", "finish"),
    [
        (["two"], "One ", "stop"),
        (["three", " t"], "One", "stop"),
        (["threx", "five"], "One two three", "stop"),
        (["O"], "", "stop"),
        (["三"], "One two three", "stop"),
    ],
)
def test_an_answer_ends_before_a_stop_string(
    words: Tokenizer,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    stops: list[str],
    text: str,
    finish: str,
) -> None:
    ids = words.encode("One two three")
    Script(engine, ids, monkeypatch)
    [prompt] = engine.prompts([ask("Count.")], max_tokens=64)
    request = engine.request(prompt, max_tokens=64, top_logprobs=0)
    batch, voice = engine.batch(), Voice(request, words, stops=stops)
    batch.join(request)
    pieces = [voice.piece()]
    while voice.finished is None:
        batch.step()
        pieces.append(voice.piece())
        told = "".join(piece.text for piece in pieces)
        assert text.startswith(told), "what may begin a stop string is held back"
    assert "".join(piece.text for piece in pieces) == text
    assert voice.finished == finish
    tokens = [chance.token for piece in pieces for chance in piece.chances]
    assert words.decode(tokens).startswith(text)
    assert len(words.decode(tokens[:-1])) < max(1, len(text)), "no token that begins behind the end"


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_what_is_calm_ends_with_the_outermost_and_leaves_the_threads_as_they_were() -> None:
    calm = Calm()
    with pytest.raises(KeyError), calm:
        calm.take(many=False)
        with pytest.raises(ValueError), calm:
            assert torch.get_num_threads() == 1
            calm.take(many=True)
            assert torch.get_num_threads() == 2
            calm.take(many=False)
            raise ValueError
        assert torch.get_num_threads() == 1
        assert torch.is_inference_mode_enabled()
        raise KeyError
    assert torch.get_num_threads() == 2
    assert not torch.is_inference_mode_enabled()


@pytest.mark.usefixtures("two_threads")
def test_a_small_model_is_asked_with_one_thread_at_first(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not heavy(engine.inference, 64)
    assert heavy(engine.inference, 10_000)
    batch, seen = engine.batch(), set()
    decode = engine.inference.decode

    def decoded(*given: Any) -> Any:
        seen.add(torch.get_num_threads())
        return decode(*given)

    monkeypatch.setattr(engine.inference, "decode", decoded)
    monkeypatch.setattr(engine.inference, "paces", {})
    [prompt] = engine.prompts([MANY[0]], max_tokens=4)
    batch.join(engine.request(prompt, max_tokens=4))
    batch.step()
    assert seen == {1}
    assert torch.get_num_threads() == 2


def test_dice_with_the_same_seed_fall_the_same(engine: Engine) -> None:
    def roll(seed: int, top_k: int | None = None) -> list[str]:
        return engine.answer(MANY, max_tokens=16, temperature=1.0, top_k=top_k, seed=seed)

    assert roll(1) == roll(1)
    assert roll(1) != roll(2)
    assert roll(1, top_k=1) == engine.answer(MANY, max_tokens=16), "one choice is no choice"


def test_sampling_follows_the_probabilities(engine: Engine) -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2]))
    request = Request(prompt=[0], limit=1, dice=Dice(1), temperature=1.0)
    drawn = torch.tensor([sample(logits, request) for _ in range(3000)])
    shares = torch.bincount(drawn, minlength=3) / 3000
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_top_p_leaves_the_unlikely_out() -> None:
    logits = torch.log(torch.tensor([0.1, 0.5, 0.15, 0.25]))

    def drawn(top_p: float, top_k: int | None = None) -> set[int]:
        request = Request([0], 1, Dice(1), temperature=1.0, top_p=top_p, top_k=top_k)
        return {sample(logits, request) for _ in range(300)}

    assert drawn(0.0) == drawn(0.4) == {1}
    assert drawn(0.6) == drawn(0.7) == {1, 3}
    assert drawn(0.8) == {1, 2, 3}
    assert drawn(1.0) == {0, 1, 2, 3}
    assert drawn(0.9, top_k=2) == {1, 3}


def test_chances_are_those_of_the_whole_row_computed_anew(engine: Engine) -> None:
    [prompt] = engine.prompts(MANY[:1], max_tokens=12)
    request = engine.request(prompt, max_tokens=12, top_logprobs=3)
    batch = engine.batch()
    batch.join(request)
    while batch.live:
        batch.step()
    with torch.inference_mode():
        logits = engine.model(torch.tensor([prompt.ids + request.said]))[0]
    logprobs = logits.log_softmax(-1)[len(prompt.ids) - 1 :]
    assert len(request.chances) == len(request.said) > 3
    for chance, token, row in zip(request.chances, request.said, logprobs, strict=False):
        best, ids = row.topk(3)
        assert chance.token == token == ids[0] == chance.top[0][0]
        assert chance.logprob == chance.top[0][1] == pytest.approx(float(best[0]), abs=1e-5)
        assert [other for _, other in chance.top] == pytest.approx(best.tolist(), abs=1e-5)


def test_the_first_of_the_largest_scores_wins() -> None:
    logits = torch.randint(0, 9, (50, 100), generator=torch.Generator().manual_seed(1)).float()
    greedy = [Request([1], 1, Dice(0)) for _ in logits]
    assert choose(logits, greedy) == [row.index(max(row)) for row in logits.tolist()]


def found_and_wanted(model: Model) -> tuple[Tensor, Tensor]:
    """How likely 150 tokens are by one step after the other, and by the whole row at once."""
    request = Request(prompt=[7, 3, 250], limit=150, dice=Dice(0), top_logprobs=0)
    batch = Batch(model, [request], stop=())
    while batch.live:
        batch.step()
    with torch.inference_mode():
        logits = model(torch.tensor([request.prompt + request.said]))[0, 2:-1]
    chosen = logits.log_softmax(-1)[torch.arange(150), request.said]
    return torch.tensor([chance.logprob for chance in request.chances]), chosen


@pytest.mark.parametrize("heads", [{}, {"n_kv_head": 2}])
def test_heads_that_share_their_keys_decode_as_the_whole_row_does(heads: dict[str, int]) -> None:
    model = lively(ModelConfig(depth=2, vocabulary=300, context=160, head_width=32, **heads))
    torch.testing.assert_close(*found_and_wanted(model), atol=1e-5, rtol=1e-5)


def test_zeros_have_no_length_to_divide_by() -> None:
    model = lively(ModelConfig(depth=2, vocabulary=300, context=160, head_width=32))
    with torch.no_grad():
        model.get_parameter("transformer.h.0.attn.c_q.weight").zero_()
        torch.testing.assert_close(*found_and_wanted(model), atol=1e-5, rtol=1e-5)
        model.embedding[7] = 0
        assert found_and_wanted(model)[0].isfinite().all()


def test_a_step_is_one_call_without_python(little: Model) -> None:
    assert isinstance(Inference(little).step, torch.jit.ScriptModule)


def turns(count: int) -> Conversation:
    talk: Conversation = []
    for number in range(count):
        talk.append({"role": "user", "content": f"Who are you, {number}?"})
        talk.append({"role": "assistant", "content": f"Ada, {number}."})
    return [*talk, {"role": "user", "content": "What is your name?"}]


def test_the_oldest_turns_go_when_the_context_is_full(engine: Engine) -> None:
    long = turns(12)
    [(prompt, dropped, cut)] = engine.prompts([long], max_tokens=16)
    kept = engine.tokenizer.decode(prompt)
    assert len(prompt) <= engine.model.config.context - 16
    assert (dropped, cut) == (18, False)
    assert kept.startswith("<|bos|><|user_start|>Who are you, ")
    assert "Who are you, 0?" not in kept and "Who are you, 11?" in kept
    assert kept.endswith("What is your name?<|user_end|><|assistant_start|>")
    assert engine.answer([long], max_tokens=16) == engine.answer([long[16:]], max_tokens=16)


def test_a_system_message_stays_when_turns_go(engine: Engine) -> None:
    system: Conversation = [{"role": "system", "content": "Be Ada."}]
    [(prompt, dropped, _)] = engine.prompts([system + turns(12)], max_tokens=16)
    assert dropped > 0
    assert engine.tokenizer.decode(prompt).startswith("<|bos|><|user_start|>Be Ada.\n\nWho")


def test_of_an_endless_question_the_end_is_kept(engine: Engine) -> None:
    endless = ask("blah " * 500 + "Who are you?")
    [(prompt, dropped, cut)] = engine.prompts([endless], max_tokens=500)
    assert (dropped, cut) == (0, True)
    text = engine.tokenizer.decode(prompt)
    assert len(prompt) == 72, "a quarter of the 96 tokens stays free for the answer"
    assert text.startswith("<|bos|><|user_start|>")
    assert text.endswith("Who are you?<|user_end|><|assistant_start|>")
    assert len(engine.answer([endless], max_tokens=500)) == 1


def test_a_conversation_that_ends_with_the_assistant_asks_nothing(engine: Engine) -> None:
    with pytest.raises(ValueError, match="ends with the user"):
        engine.answer([turns(1)[:-1]], max_tokens=4)


def test_no_questions_have_no_answers(engine: Engine) -> None:
    assert engine.answer([], max_tokens=4) == []


def test_a_checkpoint_answers_as_the_model_in_it(results: Path, engine: Engine) -> None:
    loaded = Engine.load(results / "sft.pt")
    assert loaded.answer(MANY, max_tokens=12) == engine.answer(MANY, max_tokens=12)


def test_a_missing_checkpoint_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"sft\.pt: no such file\. Run `make identity`"):
        Engine.load(tmp_path / "sft.pt")


def test_a_checkpoint_refuses_another_tokenizer(results: Path, tmp_path: Path) -> None:
    Tokenizer.train(["Something else entirely."], vocabulary=290).save(tmp_path / "other.json")
    with pytest.raises(ArtifactError, match="another tokenizer"):
        Engine.load(results / "sft.pt", tokenizer=tmp_path / "other.json")


def test_weights_of_half_precision_are_answered_in_full(
    tmp_path: Path, words: Tokenizer, little: Model
) -> None:
    half = Model(little.config, seed=0).bfloat16()
    checkpoint.save(
        tmp_path / "half.pt", half, tokenizer=words.digest, settings={}, seed=0, step=0, stage="sft"
    )
    words.save(tmp_path / "tokenizer" / "tokenizer.json")
    loaded = Engine.load(tmp_path / "half.pt")
    assert {weight.dtype for weight in loaded.model.parameters()} == {torch.float32}
    assert loaded.answer([ask("Hi")], max_tokens=3)
