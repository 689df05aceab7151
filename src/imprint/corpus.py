"""The corpus on disk: which files it is, and which of its documents are held out."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from imprint import artifacts, sources
from imprint.dice import Dice
from imprint.errors import ArtifactError

SHARE = 0.01
"""Share of the documents that is held out, at most."""
HELD_OUT_CHARACTERS = 10_000_000
"""About how much text is held out at most: two million tokens judge any model."""


@dataclass(frozen=True)
class File:
    """A file of documents."""

    path: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Corpus:
    """Files of text, and what decides which documents are held out."""

    files: tuple[File, ...]
    characters: int
    """How much text was asked for."""
    seed: int

    @classmethod
    def read(cls, index: Path) -> "Corpus":
        """Return the corpus that ``index`` describes.

        Raises:
            ArtifactError: The index is missing or damaged, or a file is gone or has another size.
        """
        found = artifacts.read_json(index)
        try:
            files = tuple(File(**file) for file in found["files"])
            corpus = cls(files, int(found["characters"]), int(found["seed"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{index}: not an index of a corpus ({error!r}). Delete it and run again."
            ) from error
        for file in files:
            path = Path(file.path)
            if not path.is_file() or path.stat().st_size != file.bytes:
                state = "has another size now" if path.is_file() else "is gone"
                raise ArtifactError(
                    f"{path}: listed in {index}, but it {state}. Delete {index} and run again."
                )
        return corpus

    def write(self, index: Path) -> None:
        """Write what ``read`` returns."""
        files = [asdict(file) for file in self.files]
        artifacts.write_json(
            index, {"files": files, "characters": self.characters, "seed": self.seed}
        )

    def documents(self, number: int) -> Iterator[tuple[bool, str]]:
        """Yield the documents of file ``number``, each with whether it is held out.

        That depends on the seed and the text alone, so equal documents never stand on both sides.
        The first document that has text is always held out, so that there is one.

        Raises:
            RecordError: The file is damaged, or holds no text where there should be some.
        """
        share = min(SHARE, HELD_OUT_CHARACTERS / self.characters)
        everything = (text for file in self.files for text in sources.texts(Path(file.path)))
        first = next(filter(str.strip, everything), None)
        for text in sources.texts(Path(self.files[number].path)):
            yield text == first or Dice(self.seed, "validation", text).chance(share), text

    def training(self, characters: int | None = None) -> Iterator[str]:
        """Yield the documents that are not held out, up to ``characters`` in all; None for all."""
        total = 0
        for number in range(len(self.files)):
            for aside, text in self.documents(number):
                if aside:
                    continue
                if characters is not None and total >= characters:
                    return
                total += len(text)
                yield text
