from pathlib import Path

import pytest
import torch

from imprint import checkpoint
from imprint import engine as engines
from imprint.decoding import Request, calm, sample
from imprint.dice import Dice
from imprint.engine import Engine
from imprint.errors import ArtifactError
from imprint.model import Model
from imprint.records import Conversation
from imprint.tokenizer import Tokenizer


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
    with calm(engine.model):
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


@pytest.mark.parametrize("rows", [1, 3, 64])
def test_an_answer_does_not_depend_on_who_else_is_asked(
    engine: Engine, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = [engine.answer([conversation], max_tokens=24)[0] for conversation in MANY]
    monkeypatch.setattr(engines, "ROWS", rows)
    assert engine.answer(MANY, max_tokens=24) == alone
    assert engine.answer(MANY[::-1], max_tokens=24) == alone[::-1]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_stream_says_what_answer_says(engine: Engine, temperature: float) -> None:
    for conversation in MANY:
        pieces = list(engine.stream(conversation, max_tokens=24, temperature=temperature, seed=7))
        whole = engine.answer([conversation], max_tokens=24, temperature=temperature, seed=7)
        assert "".join(pieces) == whole[0]


def test_a_piece_never_breaks_a_character(words: Tokenizer, engine: Engine) -> None:
    text = "Zoë 🙂 你好 ok"
    ids = words.encode(text)
    assert any("\ufffd" in words.decode([token]) for token in ids), "no token breaks a character"
    with Script(engine, ids):
        pieces = list(engine.stream(ask("Hi"), max_tokens=64))
    assert "".join(pieces) == text
    assert len(pieces) > 5
    assert not any("\ufffd" in piece for piece in pieces)


class Script:
    """Makes the model say given tokens, then stop."""

    def __init__(self, engine: Engine, ids: list[int]) -> None:
        self.model, self.left = engine.model, [*ids, engine.tokenizer.assistant_end]

    def __enter__(self) -> None:
        self.hook = self.model.register_forward_hook(self.say)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def say(self, model: Model, given: object, logits_BV: torch.Tensor) -> torch.Tensor:
        told = torch.zeros_like(logits_BV)
        told[:, self.left.pop(0)] = 1.0
        return told


def test_a_small_model_leaves_the_number_of_threads_as_it_was(engine: Engine) -> None:
    seen = set()
    before = torch.get_num_threads()
    hook = engine.model.register_forward_hook(lambda *_: seen.add(torch.get_num_threads()))
    try:
        torch.set_num_threads(2)
        next(engine.stream(ask("Hi"), max_tokens=3))
        assert (seen, torch.get_num_threads()) == ({1}, 2)
    finally:
        hook.remove()
        torch.set_num_threads(before)


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


def turns(count: int) -> Conversation:
    talk: Conversation = []
    for number in range(count):
        talk.append({"role": "user", "content": f"Who are you, {number}?"})
        talk.append({"role": "assistant", "content": f"Ada, {number}."})
    return [*talk, {"role": "user", "content": "What is your name?"}]


def test_the_oldest_turns_go_when_the_context_is_full(engine: Engine) -> None:
    long = turns(12)
    [prompt] = engine.prompts([long], max_tokens=16)
    kept = engine.tokenizer.decode(prompt)
    assert len(prompt) <= engine.model.config.context - 16
    assert kept.startswith("<|bos|><|user_start|>Who are you, ")
    assert "Who are you, 0?" not in kept and "Who are you, 11?" in kept
    assert kept.endswith("What is your name?<|user_end|><|assistant_start|>")
    assert engine.answer([long], max_tokens=16) == engine.answer([long[16:]], max_tokens=16)


def test_a_system_message_stays_when_turns_go(engine: Engine) -> None:
    system: Conversation = [{"role": "system", "content": "Be Ada."}]
    [prompt] = engine.prompts([system + turns(12)], max_tokens=16)
    assert engine.tokenizer.decode(prompt).startswith("<|bos|><|user_start|>Be Ada.\n\nWho")


def test_of_an_endless_question_the_end_is_kept(engine: Engine) -> None:
    endless = ask("blah " * 500 + "Who are you?")
    [prompt] = engine.prompts([endless], max_tokens=500)
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
