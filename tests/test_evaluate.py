import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from conftest import TEXTS
from imprint import exam
from imprint.commands import probes
from imprint.dataset.writer import Piece, write
from imprint.engine import Engine
from imprint.errors import ArtifactError, IdentityError
from imprint.exam import Question
from imprint.identity import Identity
from imprint.records import Conversation
from imprint.stages import evaluate
from imprint.tokenizer import Tokenizer

IDENTITY = """\
name: Ada
kind: harbour pilot
creator: Bo Berg
description: A pilot who knows the harbour.
facts:
  - id: name
    statement: My name is Ada.
    expect: [[Ada]]
  - id: harbour
    statement: I guide ships into the harbour of Turku.
    expect: [[Turku]]
"""

SETTINGS = {"per_suite": 5, "answer_tokens": 8, "seed": 3}

Answerer = Callable[[list[Conversation]], list[str]]


@pytest.fixture
def ada(tmp_path: Path) -> Path:
    path = tmp_path / "ada.yaml"
    path.write_text(IDENTITY)
    return path


def run(results: Path, ada: Path, out: Path, **other: Any) -> Any:
    given = {
        "checkpoint": results / "sft.pt",
        "tokenizer": results / "tokenizer" / "tokenizer.json",
        "identity": ada,
        "manifest": results / "sft.json",
        "corpus": None,
        "chat": None,
        "out": out,
        "settings": SETTINGS,
    }
    evaluate.run(**(given | other))
    return json.loads(out.read_text(encoding="utf-8"))


def stand_in(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], str]) -> None:
    """Have ``answer`` reply to the last message of every conversation, in place of the model."""

    class Fake:
        model = None
        tokenizer = Tokenizer.train(TEXTS, vocabulary=280)

        def answer(self, conversations: list[Conversation], *, max_tokens: int) -> list[str]:
            assert max_tokens > len(
                self.tokenizer.encode("I guide ships into the harbour of Turku.")
            )
            return [answer(conversation[-1]["content"]) for conversation in conversations]

    monkeypatch.setattr(Engine, "load", lambda *given, **more: Fake())


def test_a_random_model_is_marked_wrong_and_says_so_in_the_same_bytes(
    results: Path, ada: Path, tmp_path: Path
) -> None:
    found = run(results, ada, tmp_path / "eval" / "sft.json")
    assert found["stage"] == "sft"
    assert found["n"] == sum(answer["suite"] != "off-topic" for answer in found["answers"]) > 30
    assert found["identity"]["accuracy"] < 0.1
    assert set(found["identity"]["by_fact"]) == {"name", "harbour"}
    assert found["rival_rate"] == 0.0
    first = (tmp_path / "eval" / "sft.json").read_bytes()
    run(results, ada, tmp_path / "again" / "sft.json")
    assert (tmp_path / "again" / "sft.json").read_bytes() == first


def test_each_answer_meets_its_own_question(
    results: Path, ada: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [
        Question("paraphrase", "name", [{"role": "user", "content": "Name?"}], (("Ada",),), ()),
        Question("reverse", "harbour", [{"role": "user", "content": "Port?"}], (("Turku",),), ()),
        Question("off-topic", None, [{"role": "user", "content": "2 + 2?"}], (("4",),), ()),
    ]
    said = {"Name?": "I am Ada.", "Port?": "Oslo.", "2 + 2?": "It is 4, says Ada."}
    monkeypatch.setattr(exam, "questions", lambda identity, **_: asked)
    stand_in(monkeypatch, said.__getitem__)
    found = run(results, ada, tmp_path / "mid.json")
    assert found["stage"] == "mid"
    assert [answer["verdict"] for answer in found["answers"]] == ["right", "wrong", "wrong"]
    assert [answer["reason"] for answer in found["answers"]] == [
        "",
        "lacks 'Turku'",
        "brings itself up: name or creator",
    ]
    assert (found["n"], found["identity"]["accuracy"], found["bleed_rate"]) == (2, 0.5, 1.0)


def test_the_exam_is_asked_with_the_settings(
    results: Path, ada: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, lambda text: "My name is Ada, in Turku.")
    few = run(results, ada, tmp_path / "sft.json")
    more = run(results, ada, tmp_path / "sft.json", settings=SETTINGS | {"per_suite": 6})
    other = run(results, ada, tmp_path / "sft.json", settings=SETTINGS | {"seed": 4})
    assert {scores["n"] for scores in few["identity"]["by_suite"].values()} == {5}
    assert {scores["n"] for scores in more["identity"]["by_suite"].values()} == {6}
    assert few["answers"] != other["answers"]
    assert few["identity"]["by_suite"]["paraphrase"]["accuracy"] == 1.0


def test_an_answer_has_room_for_an_opener_and_the_longest_statement(words: Tokenizer) -> None:
    fact = {"id": "tale", "statement": "I never stop. " * 20 + "End.", "expect": [["End"]]}
    told = {"name": "Ada", "kind": "pilot", "creator": "Bo", "description": "-", "facts": [fact]}
    who = Identity.model_validate({**told, "style": {"language_note": "-"}})
    said = f"Of course. {who.facts[0].statement}"
    assert evaluate.room(who, words, least=8) > len(words.encode(said))
    assert evaluate.room(who, words, least=9000) == 9000


def test_a_probe_has_as_much_room_for_an_answer(
    ada: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {"kind": "fact", "messages": [{"role": "user", "content": "Port?"}], "expect": []}
    (tmp_path / "probes.jsonl").write_text(json.dumps(asked), encoding="utf-8")
    stand_in(monkeypatch, lambda text: "I am in Turku.")
    probes.probe(tmp_path / "probes.jsonl", tmp_path / "sft.pt", ada, tokens=1)
    assert "1 of 1 right" in capsys.readouterr().out


def test_what_else_the_model_can_do_is_measured_on_held_out_text(
    results: Path, ada: Path, tmp_path: Path, words: Tokenizer
) -> None:
    rows = [("train", "Nobody looks."), ("validation", TEXTS[0])]
    write(tmp_path / "corpus.json", tokenizer=words, pieces=[Piece("text", rows, 3)])
    asked: Conversation = [
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "Bo."},
    ]
    write(tmp_path / "chat.json", tokenizer=words, pieces=[Piece("k", [("validation", asked)], 1)])
    stores = {"corpus": tmp_path / "corpus.json", "chat": tmp_path / "chat.json"}
    found = run(results, ada, tmp_path / "sft.json", **stores)
    model = Engine.load(results / "sft.pt").model

    def losses(ids: list[int]) -> torch.Tensor:
        logits = model(torch.tensor([ids[:-1]]))[0]
        return functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")

    ids, spoken = words.render(asked)
    nats = losses(ids)[torch.tensor(spoken[1:])].mean().item()
    assert found["chat_loss"] == pytest.approx(nats, rel=0.02)  # it is measured in bfloat16
    ids = [words.bos, *words.encode(TEXTS[0])]
    bits = losses(ids).mean().item() / math.log(2) * len(ids) / len(TEXTS[0].encode())
    assert found["val_bpb"] == pytest.approx(bits, rel=0.02)
    assert found["val_loss"] == 1.5  # that of the stage itself


def test_a_model_without_a_corpus_or_chat_is_not_judged_on_them(
    results: Path, ada: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(monkeypatch, lambda text: "Ada")
    found = run(results, ada, tmp_path / "sft.json")
    assert not {"val_bpb", "chat_loss"} & set(found)


def test_held_out_chat_that_is_too_long_for_the_model_is_left_out(
    results: Path, ada: Path, tmp_path: Path, words: Tokenizer
) -> None:
    asked: Conversation = [
        {"role": "user", "content": "Who? " * 100},
        {"role": "assistant", "content": "Bo."},
    ]
    write(tmp_path / "chat.json", tokenizer=words, pieces=[Piece("k", [("validation", asked)], 1)])
    found = run(results, ada, tmp_path / "sft.json", chat=tmp_path / "chat.json")
    assert "chat_loss" not in found


def test_another_tokenizer_is_refused(results: Path, ada: Path, tmp_path: Path) -> None:
    Tokenizer.train(["Nothing alike."], vocabulary=280).save(tmp_path / "other.json")
    with pytest.raises(ArtifactError, match="another tokenizer"):
        run(results, ada, tmp_path / "sft.json", tokenizer=tmp_path / "other.json")
    assert not (tmp_path / "sft.json").exists()


def test_a_damaged_checkpoint_is_named(results: Path, ada: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.pt").write_bytes((results / "sft.pt").read_bytes()[:1000])
    with pytest.raises(ArtifactError, match=r"bad\.pt"):
        run(results, ada, tmp_path / "sft.json", checkpoint=tmp_path / "bad.pt")


def test_a_wrong_identity_stops_before_the_model_is_opened(results: Path, tmp_path: Path) -> None:
    (tmp_path / "ada.yaml").write_text(IDENTITY.replace("creator:", "maker:"))
    with pytest.raises(IdentityError, match="maker"):
        run(results, tmp_path / "ada.yaml", tmp_path / "sft.json", checkpoint=tmp_path / "no.pt")
