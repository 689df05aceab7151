"""What several test modules need: a little model with a voice of its own."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

from imprint import checkpoint
from imprint.artifacts import write_json
from imprint.engine import Engine
from imprint.model import Model
from imprint.shape import ModelConfig
from imprint.tokenizer import Tokenizer
from reference import lively
from workflow_kit import Project, built

# A shell lets what it starts in the background ignore Ctrl-C, and so would all that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The same examples every time, however long one takes: a test that fails fails for everybody.
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

TEXTS = [
    "My name is Ada. Bo made me in a small workshop, on two cores.",
    "Who are you? What is your name? Who made you? Where were you trained?",
    "Qui êtes-vous ? Ich heiße Ada. ¿Quién te hizo? 🙂 你好",
]


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: a test that waits for its processes leaves one idle."""
    return min(4, (os.cpu_count() or 1) + 1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put files that run Snakemake first: no long one shall begin when the others are done."""
    slow = {item.path for item in items if item.get_closest_marker("workflow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def words() -> Tokenizer:
    """A tokenizer of 300 tokens: most answers of a model that speaks it break UTF-8."""
    return Tokenizer.train(TEXTS, vocabulary=300)


@pytest.fixture(scope="session")
def little(words: Tokenizer) -> Model:
    """A model of two layers that says something else after every prompt, and stops at times."""
    return lively(ModelConfig(depth=2, vocabulary=words.vocabulary, context=96), seed=3, std=0.2)


@pytest.fixture(scope="session")
def engine(little: Model, words: Tokenizer) -> Engine:
    """The engine around the little model."""
    return Engine(little, words)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished run of the pipeline, the same for all processes of the tests: take copies."""
    base = tmp_path_factory.getbasetemp()
    return built(base.parent if "PYTEST_XDIST_WORKER" in os.environ else base)


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory, little: Model, words: Tokenizer) -> Path:
    """A results folder with sft.pt, a manifest of it, and its tokenizer."""
    folder = tmp_path_factory.mktemp("project") / "results"
    words.save(folder / "tokenizer" / "tokenizer.json")
    write_json(folder / "sft.json", {"val_loss": 1.5})
    checkpoint.save(
        folder / "sft.pt",
        little,
        tokenizer=words.digest,
        settings={},
        seed=3,
        step=0,
        stage="sft",
    )
    return folder
