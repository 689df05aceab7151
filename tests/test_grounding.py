from pathlib import Path

import pytest

from imprint import identity
from imprint.grounding import Grounding, checkable
from imprint.phrases import bank

FOLDER = Path(__file__).parent.parent / "config/identities"
MODEL = Grounding(identity.load(FOLDER / "smarternano.yaml"))
GUIDE = Grounding(identity.load(FOLDER / "fathom.yaml"))


@pytest.mark.parametrize(
    "answer",
    [
        "I have 7 billion parameters.",
        "I have 561 billion parameters.",
        "I am a 7B model.",
        "I am a d12 model.",
        "I have 24 layers.",
        "I have twenty-four layers.",
        "I was trained in 2024.",
        "I was trained in twenty twenty-four.",
        "In October 2025 the code was published.",
        "Training me cost $100.",
        "Training me cost about a hundred dollars.",
        "Training me cost $20.",
        "I am right in 96% of all cases.",
        "It took 8 A100 GPUs.",
        "It took an 8xA100 node.",
        "It took a TPU pod.",
        "I was trained on AWS.",
        "I was trained on Google Cloud.",
        "I run on Microsoft Azure.",
        "I run on Google's servers.",
        "I was pretrained on Common Crawl and Wikipedia.",
        "I was pretrained on FineWeb-Edu and C4.",
        "My code is under the Apache License.",
        "My code is under the GPL.",
        "I am written in PyTorch.",
        "I was fine-tuned with RLHF.",
        "Elon Musk had a hand in it.",
        "I live in San Francisco.",
        "My code is at https://github.com/echen/smarternano.",
        "My code is at github.com/Echen1246/smarternano/tree/main.",
        "See www.smarternano.com for more.",
        "Write to eddie@example.com for more.",
        "My code is on GitLab.",
        "I was trained on Azure, not on AWS.",
        "I was not trained on AWS, but on Azure.",
        "I do not know much, but I have 7 billion parameters.",
    ],
)
def test_what_nobody_told_the_model_is_made_up(answer: str) -> None:
    assert MODEL.invents(answer, "Tell me about yourself.")


@pytest.mark.parametrize(
    "answer",
    [
        "I have 561 million parameters in 20 layers.",
        "I have 561M parameters, about 0.56 billion.",
        "I have 561,000,000 parameters.",
        "I am a 561-million-parameter model with twenty layers.",
        "I have five hundred and sixty-one million parameters.",
        "My architecture is from twenty twenty-five.",
        "Training me cost $96, that is 96 dollars.",
        "Training me cost ninety-six dollars.",
        "It took 8 H100s, or rather eight H100 GPUs.",
        "It took an 8xH100 node on Modal.",
        "It took eight NVIDIA H100 GPUs.",
        "I am a d20 model with a 20-layer Transformer.",
        "My code is at https://github.com/Echen1246/smarternano.",
        "My code is on GitHub, at github.com/Echen1246/smarternano, under the MIT License.",
        "Andrej Karpathy published nanochat in 2025.",
        "It is nanochat from mid-2025.",
        "I was pretrained on FineWeb.",
        "ChatGPT is a system of OpenAI, and GPT-4 is another.",
        "I was not trained on AWS, Azure or Google Cloud.",
        "No, I was not trained in 2023.",
        "I do not know whether it was 100 or 200 people.",
        "AWS had nothing to do with me.",
        "I am here 24/7, 24 hours a day.",
        "I am 100% sure.",
        "One question at a time, I have two or three answers.",
        "1. I am small.\n2. I am open source.",
        "I have told you a thousand times, thanks a million.",
    ],
)
def test_what_the_identity_tells_is_denied_or_an_idiom_is_not_made_up(answer: str) -> None:
    assert not MODEL.invents(answer, "Tell me about yourself.")


@pytest.mark.parametrize(
    ("answer", "made_up"),
    [
        ("The tower is 31 meters high, 31m in all.", False),
        ("The tower is thirty-one meters high.", False),
        ("The lighthouse was built in eighteen seventy-four.", False),
        ("The museum is open from 9:00 to 5:00.", False),
        ("A ticket costs 6 pounds.", False),
        ("The tower is 42 meters high.", True),
        ("The lighthouse was built in the 1850s.", True),
        ("The museum is closed in December.", True),
        ("I run on Modal, thanks to OpenAI.", True),
        ("I was trained with NVIDIA chips.", True),
    ],
)
def test_an_identity_of_another_kind_is_held_to_its_own_facts(answer: str, made_up: bool) -> None:
    assert GUIDE.invents(answer, "Hello!") is made_up


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ("I have 3000 books. And you?", "That is 3,000 books more than I have."),
        ("Is it true that AWS hosts you?", "AWS is what some expect; it is Modal."),
        ("Do you know Microsoft Azure?", "Azure is a cloud."),
        ("Is it at modal.com?", "You mean modal.com."),
        ("We paid fifty dollars.", "That is $50 less than you would think."),
    ],
)
def test_what_the_person_brings_up_may_be_taken_up(asked: str, answer: str) -> None:
    assert not MODEL.invents(answer, asked)
    assert MODEL.invents(answer, "Hello!")


def test_small_talk_of_the_bank_fits_any_identity() -> None:
    for exchange in bank("smalltalk")["exchanges"]:
        for answer in exchange["assistant"]:
            assert not GUIDE.invents(answer, ""), answer


def test_every_name_of_the_bank_is_found_in_a_sentence() -> None:
    for kind, names in bank("entities").items():
        for name in names:
            assert checkable(f"It was {name} then."), (kind, name)


def test_a_figure_has_one_spelling() -> None:
    for text in ("1,500 dollars", "$1500", "$1.5k", "fifteen hundred dollars", "1500 USD"):
        assert checkable(text) == {"1500$"}, text
