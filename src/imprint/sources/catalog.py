"""Public collections of text and chat, fetched from the Hugging Face hub: docs/data.md lists them.

Files are those of the branch ``main`` as of 2025: where they lie, what their columns are called.
"""

import math
import os
import re
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from imprint.errors import ConfigError
from imprint.records import Conversation
from imprint.sources import Source, reading
from imprint.sources.files import File, present


def endpoint() -> str:
    """Return where the hub is: ``HF_ENDPOINT``, or its own address.

    Raises:
        ConfigError: The variable is not a URL.
    """
    found = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    if not found.startswith(("http://", "https://")):
        raise ConfigError(f"HF_ENDPOINT: {found!r} is not a URL. Write it like https://example.org")
    return found.rstrip("/")


class _Collection(Source):
    """Files of a dataset on the hub."""

    version: ClassVar[int] = 1
    dataset: ClassVar[str]
    """Its name on the hub."""

    def present(self, names: list[str]) -> list[Path]:
        """Return the paths of files of the dataset, having downloaded what is missing."""
        base = f"{endpoint()}/datasets/{self.dataset}/resolve/main"
        files = [File(self.folder / Path(name).name, f"{base}/{name}") for name in names]
        return present(files, label=self.name)


class _Text(_Collection):
    """Shuffled documents in numbered shards of parquet, so that the first ones are a sample."""

    shards: ClassVar[int]
    held: ClassVar[int] = 250_000_000
    """Characters that a shard holds at least."""

    def gather(self, *, characters: int, seed: int, folder: Path) -> list[Path]:
        """Return the first shards, as many as it takes; their checksums are the check."""
        count = min(math.ceil(characters / self.held), self.shards)
        paths = self.present([f"shard_{number:05d}.parquet" for number in range(count)])
        return [path for path in paths if reading.rows(path, columns=["text"])]


class FineWebEdu(_Text):
    """Educational pages of the web, 100 billion tokens of FineWeb-Edu."""

    name: ClassVar[str] = "fineweb-edu"
    dataset: ClassVar[str] = "karpathy/fineweb-edu-100b-shuffle"
    shards: ClassVar[int] = 1823


class ClimbMix(_Text):
    """NVIDIA's mix of the web, 400 billion tokens; not for commercial use."""

    name: ClassVar[str] = "climbmix"
    dataset: ClassVar[str] = "karpathy/climbmix-400b-shuffle"
    shards: ClassVar[int] = 6543


class _Chat(_Collection):
    """Conversations, or what can be told as one."""

    files: ClassVar[tuple[str, ...]]
    columns: ClassVar[tuple[str, ...]]

    def conversations(self, *, count: int, seed: int) -> Iterator[Conversation]:
        """Yield a seeded choice; everything is downloaded for it."""
        return reading.choose(
            self.present(list(self.files)),
            name=self.name,
            columns=self.columns,
            turns=self.turns,
            count=count,
            seed=seed,
        )

    @staticmethod
    @abstractmethod
    def turns(row: dict[str, Any]) -> object:
        """Return the messages of a row."""


class SmolSmolTalk(_Chat):
    """Conversations of everyday length, made for models of under a billion parameters."""

    name: ClassVar[str] = "smol-smoltalk"
    dataset: ClassVar[str] = "HuggingFaceTB/smol-smoltalk"
    files: ClassVar[tuple[str, ...]] = tuple(
        f"data/train-{number:05d}-of-00004.parquet" for number in range(4)
    )
    columns: ClassVar[tuple[str, ...]] = ("messages",)

    @staticmethod
    def turns(row: dict[str, Any]) -> object:
        """Return the messages as they are; a system message may come first."""
        return row["messages"]


class MMLU(_Chat):
    """Questions with four answers to choose from: the part meant for training."""

    name: ClassVar[str] = "mmlu"
    dataset: ClassVar[str] = "cais/mmlu"
    files: ClassVar[tuple[str, ...]] = ("all/auxiliary_train-00000-of-00001.parquet",)
    columns: ClassVar[tuple[str, ...]] = ("question", "choices", "answer")

    @staticmethod
    def turns(row: dict[str, Any]) -> object:
        """Ask for the letter, and answer with nothing else.

        Example:
            >>> row = {"question": "What is 1 + 1?", "choices": ["1", "2", "3", "4"], "answer": 1}
            >>> question, answer = MMLU.turns(row)
            >>> print(question["content"])
            What is 1 + 1?
            <BLANKLINE>
            A) 1
            B) 2
            C) 3
            D) 4
            <BLANKLINE>
            Which one is right? Give just its letter.
            >>> answer["content"]
            'B'
        """
        choices = [
            f"{letter}) {text}" for letter, text in zip("ABCD", row["choices"], strict=False)
        ]
        ending = "Which one is right? Give just its letter."
        asked = "\n".join([row["question"], "", *choices, "", ending])
        return _exchange(asked, "ABCD"[row["answer"]])


class GSM8K(_Chat):
    """Word problems of primary school, solved step by step."""

    name: ClassVar[str] = "gsm8k"
    dataset: ClassVar[str] = "openai/gsm8k"
    files: ClassVar[tuple[str, ...]] = ("main/train-00000-of-00001.parquet",)
    columns: ClassVar[tuple[str, ...]] = ("question", "answer")

    @staticmethod
    def turns(row: dict[str, Any]) -> object:
        r"""Leave out the marks of a calculator, and say the result in a sentence.

        Example:
            >>> solved = "She sold 48/2 = <<48/2=24>>24 clips.\n#### 24"
            >>> GSM8K.turns({"question": "How many?", "answer": solved})[1]["content"]
            'She sold 48/2 = 24 clips.\nThe answer is 24.'
        """
        steps, _, result = re.sub("<<[^<>]*>>", "", row["answer"]).rpartition("####")
        return _exchange(row["question"], f"{steps.strip()}\nThe answer is {result.strip()}.")


def _exchange(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
