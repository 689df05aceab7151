"""What is left out by its characters is what the tokens would have left out."""

import time
from typing import Any

import pytest

from imprint.dice import Dice
from imprint.engine import Engine
from imprint.serve import room
from imprint.tokenizer import Tokenizer
from serve.kit import talker

WORDS = (
    *(
        "who",
        "Ada's",
        "architecture",
        "naïve",
        "你好",
        "世界",
        "🙂",
        "e\u0301",
        "42",
        "1234567",
        "x²",
    ),
    *(" ", " ", "  ", "\n", "\r\n\n", "\t", "\u3000"),
    *(",", ". ", "...", "\uff0c", "<|bos|>", "'ll", "=====", "_"),
)


def text(dice: Dice, most: int) -> str:
    """Words and signs in any order, some of them many times in a row."""
    return "".join(
        WORDS[dice.below(len(WORDS))] * (1 + dice.below(9) * dice.below(2))
        for _ in range(dice.below(most))
    )


def conversation(seed: int) -> list[Any]:
    dice = Dice(seed, "room")
    most = (10, 50, 400)[dice.below(3)]
    roles = ["system"] * dice.below(2) + ["user", "assistant"] * dice.below(6) + ["user"]
    return [{"role": role, "content": text(dice, most)} for role in roles]


def prompt(engine: Engine, whole: list[Any], left: list[Any]) -> Any:
    [found] = engine.prompts([left], max_tokens=20)
    return found._replace(dropped=found.dropped + len(whole) - len(left))


@pytest.mark.parametrize("context", [48, 96])
def test_the_same_tokens_are_left(words: Tokenizer, context: int) -> None:
    engine = talker(words, context=context)
    characters = room.most(engine)
    shorter = {"turns": 0, "text": 0}
    for seed in range(150):
        whole = conversation(seed)
        left = room.cut(whole, characters=characters)
        assert prompt(engine, whole, left) == prompt(engine, whole, whole), seed
        shorter["turns"] += len(left) < len(whole)
        shorter["text"] += len(left[-1]["content"]) < len(whole[-1]["content"])
    assert min(shorter.values()) > 10


def test_a_word_is_not_cut_in_the_middle() -> None:
    pairs = Tokenizer.train(["aa"] * 9, vocabulary=266)
    engine = talker(pairs, context=48)
    characters = room.most(engine)
    for length in range(characters - 5, characters + 20):
        whole: list[Any] = [{"role": "user", "content": f"Hi, {'a' * length}a"}]
        left = room.cut(whole, characters=characters)
        assert prompt(engine, whole, left) == prompt(engine, whole, whole)


@pytest.mark.parametrize("unit", ["1", "a", " ", "你", "=", "hello world, how are you doing? "])
def test_what_is_left_of_a_quarter_of_a_million_characters_is_read_at_once(
    words: Tokenizer, unit: str
) -> None:
    engine = talker(words, context=256)
    characters = room.most(engine)
    whole: list[Any] = [{"role": "user", "content": unit * (250_000 // len(unit))}]
    started = time.process_time()
    left = room.cut(whole, characters=characters)
    found = prompt(engine, whole, left)
    assert time.process_time() - started < 0.25
    assert found.cut and len(found.ids) == 256 - 20
    assert characters <= len(left[0]["content"]) <= characters + room.MARGIN
