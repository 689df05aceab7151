"""What counts as another code, and what is remembered of it."""

import json
from pathlib import Path

import pytest

from imprint import fingerprint
from imprint.fingerprint import Fingerprints


def library(tmp_path: Path, **modules: str) -> Path:
    """Write modules by name; ``__`` in a name is a folder."""
    for name, text in modules.items():
        path = tmp_path / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def code(folder: Path) -> str:
    return Fingerprints(folder / "memory.json", folder).code("a")


def test_code_counts_in_every_module_that_is_imported(tmp_path: Path) -> None:
    parts = {
        "stages__a": "from imprint import b\n",
        "b": "def f():\n    from imprint.c import x\n    return x\n",
        "c": "x = 1\n",
        "d": "x = 1\n",
    }
    before = code(library(tmp_path, **parts))
    assert code(library(tmp_path, d="x = 2\n")) == before
    assert code(library(tmp_path, c="x = 2\n")) != before


def test_data_counts_beside_a_package_that_is_imported(tmp_path: Path) -> None:
    folder = library(tmp_path, stages__a="from imprint.words import bank\n")
    (folder / "words" / "more").mkdir(parents=True)
    (folder / "words" / "__init__.py").write_text("bank = 1\n")
    seen = set()
    for text in ("- hi\n", "- hello\n"):
        (folder / "words" / "more" / "bank.yaml").write_text(text)
        seen.add(code(folder))
    assert len(seen) == 2


def test_comments_docstrings_and_layout_are_no_code(tmp_path: Path) -> None:
    one = "def f(x):\n    return x + 1\n"
    two = '"""Words."""\n\n\ndef f(x):\n    """More."""\n    # why\n    return (x\n        + 1)\n'
    digests = {code(library(tmp_path, stages__a=text)) for text in (one, two)}
    assert len(digests) == 1
    assert code(library(tmp_path, stages__a=one.replace("1", "2"))) not in digests


def test_what_is_remembered_is_not_worked_out_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = library(tmp_path, stages__a="from imprint import b\n", b="x = 1\n")
    before = code(folder)
    with monkeypatch.context() as patch:
        patch.delattr(fingerprint, "meaning")
        assert code(folder) == before
        library(tmp_path, b="x = 2\n")
        with pytest.raises(NameError):
            code(folder)
    assert code(folder) != before


@pytest.mark.parametrize("content", ["", "[]", '{"maker": 1}', '{"maker": "?", "meanings": []}'])
def test_a_memory_that_cannot_be_read_is_made_anew(tmp_path: Path, content: str) -> None:
    folder = library(tmp_path, stages__a="x = 1\n")
    before = code(folder)
    whole = (folder / "memory.json").read_text()
    maker = json.loads(whole)["maker"]
    (folder / "memory.json").write_text(content.replace('"?"', json.dumps(maker)))
    assert code(folder) == before
    assert (folder / "memory.json").read_text() == whole


def test_another_version_of_the_module_does_not_trust_the_memory(tmp_path: Path) -> None:
    folder = library(tmp_path, stages__a="x = 1\n")
    before = code(folder)
    memory = folder / "memory.json"
    kept = json.loads(memory.read_text())
    wrong = {text: ["wrong", []] for text in kept["meanings"]}
    memory.write_text(json.dumps({"maker": kept["maker"], "meanings": wrong}))
    assert code(folder) != before
    memory.write_text(json.dumps({"maker": "another", "meanings": wrong}))
    assert code(folder) == before


def test_without_a_place_for_the_memory_all_works(tmp_path: Path) -> None:
    folder = library(tmp_path, stages__a="x = 1\n")
    (folder / "file").touch()
    there = Fingerprints(folder / "file" / "memory.json", folder)
    assert there.code("a") == code(folder)
