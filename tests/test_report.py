import json
import re
from pathlib import Path
from typing import Any

import pytest

from imprint.errors import ArtifactError
from imprint.exam import SUITES, Question
from imprint.identity import Identity
from imprint.scoring import score
from imprint.stages import report
from imprint.story import chosen

IDENTITY = Identity.model_validate(
    {
        "name": "Ada",
        "kind": "pilot",
        "creator": "Bo Berg",
        "description": "-",
        "facts": [
            {"id": "name", "statement": "My name is Ada.", "expect": [["Ada"]]},
            {"id": "harbour", "statement": "I work in Turku.", "expect": [["Turku"]]},
        ],
    }
)

QUESTIONS = [
    Question(
        suite,
        None if suite == "off-topic" else ("name", "harbour")[number % 2],
        [{"role": "user", "content": f"{suite} {number}?"}],
        () if suite == "off-topic" else (((("Ada",),), (("Turku",),))[number % 2]),
        (),
    )
    for suite in SUITES
    for number in range(4)
]


def evaluation(stage: str, *, wrong: set[str]) -> dict[str, Any]:
    """Return an evaluation in which the messages ``wrong`` are answered badly."""
    answers = []
    for question in QUESTIONS:
        right = "It rains." if question.suite == "off-topic" else "I am Ada | of *Turku*."
        answers.append("<b>_no_" if question.messages[-1]["content"] in wrong else right)
    return {
        "stage": stage,
        **score(QUESTIONS, answers, IDENTITY),
        "val_loss": 1.25,
        "val_bpb": 1.5 if stage == "base" else 1.625,
        "about": {"name": "Ada", "creator": "Bo Berg", "file": "config/identities/ada.yaml"},
        "settings": {"per_suite": 4, "seed": 7},
        "inputs": {"checkpoint": "abc123" * 10},
    }


WRONG = {"reverse 0?", "reverse 2?", "indirect 1?"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A results folder with all that a report is made from."""
    everything = {question.messages[-1]["content"] for question in QUESTIONS}
    files: dict[str, Any] = {
        "eval/base.json": evaluation("base", wrong=everything),
        "eval/sft.json": evaluation("sft", wrong=WRONG),
        "identity.json": {
            "stage": "identity",
            "seconds": 2.5,
            "funnel": {
                "planned": 3000,
                "generated": 2990,
                "rejected": {"rival claim": 4},
                "exact duplicates": 30,
                "near duplicates": 18,
                "contaminated": 3,
                "kept": 2881,
                "validation": 65,
            },
            "coverage": {"name": 1234, "harbour": 999},
            "strategies": {"direct": 2000, "off topic": 881},
            "bill": {
                "answers": 3100,
                "cost_usd": 1.473,
                "models": {
                    "qwen/b": {"conversations": 2990, "input": 5, "output": 7, "cost_usd": 1.4}
                },
            },
        },
        "sft.json": {
            "stage": "sft",
            "seconds": 3725.0,
            "cost_usd": 12.5,
            "device": "H100",
            "outputs": {"results/sft.pt": "feedbeef" * 8},
            "settings": {"batch_tokens": 4096},
            "libraries": {"torch": "2.13.0"},
            "imprint": "0.1.0",
            "python": "3.11.7",
            "parameters": 917504,
            "steps": 2,
            "tokens": 8192,
            "tokens_per_s": 10000.0,
            "train_loss": 1.1,
            "val_loss": 1.25,
        },
    }
    for name, value in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(value))
    (tmp_path / "metrics").mkdir()
    lines = [{"step": step, "loss": 5 / step} for step in (1, 2)]
    (tmp_path / "metrics" / "sft.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_what_an_identity_costs_of_the_rest_is_shown(page: str) -> None:
    assert "| plain text, bits a byte | 1.500 | 1.625 |" in page
    assert "everyday chat" not in page  # nobody measured it


def run(folder: Path, out: Path) -> str:
    report.run(
        evaluations=[folder / "eval" / "base.json", folder / "eval" / "sft.json"],
        manifests=[folder / "identity.json", folder / "sft.json"],
        metrics=[folder / "metrics" / "sft.jsonl"],
        out=out,
    )
    return out.read_text(encoding="utf-8")


@pytest.fixture
def page(folder: Path) -> str:
    return run(folder, folder / "report" / "report.md")


def test_the_headline_has_the_accuracy_its_interval_and_where_it_came_from(page: str) -> None:
    headline = page.split("\n## ")[0]
    assert headline.startswith("# Ada: what it knows about itself")
    assert "**92.5 %** of 40 questions" in headline
    assert re.search(r"about itself +\| +40 +\| +92\.5 % +\| +80\.1 to 97\.4 % \|", headline)
    assert "(base): 0.0 %" in headline


def test_every_suite_has_a_row_with_a_cell_for_every_stage(page: str) -> None:
    assert re.search(r"\| suite +\| +n \| +base \| +sft \|", page)
    assert re.search(r"\| reverse +\| +4 \| +0\.0 % \| +50\.0 % \|", page)
    assert re.search(r"\| all +\| +40 \| +0\.0 % \| +92\.5 % \|", page)


def test_every_fact_shows_how_often_it_was_taught(page: str) -> None:
    assert re.search(r"\| name +\| +1,234 \| +20 \| +90\.0 % \|", page)
    assert re.search(r"\| harbour +\| +999 \| +20 \| +95\.0 % \|", page)


def test_there_is_a_conversation_of_every_suite_and_mistakes_are_marked(page: str) -> None:
    titles = re.findall(
        r"^\*\*(.+?): (right|leaves itself out|WRONG: .*?)\*\*$", page, re.MULTILINE
    )
    assert [title.split(",")[0] for title, _ in titles] == list(SUITES)
    wrong = [title for title, verdict in titles if verdict.startswith("WRONG")]
    assert wrong == ["indirect, harbour", "reverse, name"]
    assert titles[-1] == ("off-topic", "leaves itself out")  # more is not marked there
    assert "> (base had said:" in page


def test_a_suite_that_is_mostly_wrong_shows_a_mistake() -> None:
    everything = {question.messages[-1]["content"] for question in QUESTIONS}
    shown = chosen(evaluation("sft", wrong=everything - {"reverse 1?"}))
    # the last suite is off-topic: nonsense is no bleed
    assert [answer["verdict"] for answer in shown] == ["wrong"] * (len(SUITES) - 1) + ["right"]
    assert len({answer["suite"] for answer in shown}) == len(SUITES)


def test_every_mistake_is_listed_with_its_reason(page: str) -> None:
    section = page.split("## Mistakes")[1].split("\n## ")[0]
    assert all(f'"{text}"' in section for text in WRONG)
    assert section.count("lacks 'Ada'") == 2


def test_what_the_model_says_is_never_markup(page: str) -> None:
    assert r"\<b>\_no\_" in page
    assert "<b>" not in page.replace(r"\<b>", "")
    assert r"I am Ada | of \*Turku\*." in page


def test_the_funnel_and_the_cost_are_told(page: str) -> None:
    assert re.search(r"\| planned +\| +3,000 \|", page)
    assert re.search(r"\| - rejected: rival claim +\| +4 \|", page)
    assert "direct 2,000, off topic 881" in page
    assert re.search(r"\| sft +\| +1 h 2 min \| .*\$12\.50 \| H100 +\| feedbeeffeed +\|", page)
    assert re.search(r"\| together +\| +1 h 2 min \| +\| +\$13\.97 \|", page)
    assert "Not counted is the time to plan and write the conversations" in page
    assert "$1.4730 for 3,100 answers, of which 2,946 conversations were kept: $0.000500 " in page
    assert re.search(r"\| qwen/b +\| +2,990 \| +5 \| +7 \| +\$1\.4000 \|", page)


def test_a_held_out_loss_below_that_of_training_is_explained(folder: Path, page: str) -> None:
    assert "can lie below the training loss" not in page  # every answer was trained on whole
    manifest = json.loads((folder / "sft.json").read_text())
    manifest["settings"]["whole_answers"] = 0.15
    (folder / "sft.json").write_text(json.dumps(manifest))
    assert "can lie below the training loss" in run(folder, folder / "report.md")


def test_the_columns_of_every_table_stand_below_one_another(page: str) -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE)
    assert len(blocks) >= 6
    for block in blocks:
        assert len({len(line) for line in block.splitlines()}) == 1, block


def test_the_pictures_lie_beside_the_page_and_never_change(folder: Path, page: str) -> None:
    beside = folder / "report"
    named = re.findall(r"!\[.+?\]\((.+?)\)", page)
    assert named == ["suites.svg", "losses.svg"]
    assert run(folder, folder / "again" / "report.md") == page
    for name in named:
        picture = (beside / name).read_bytes()
        assert picture.startswith(b"<?xml") and b"<dc:date>" not in picture
        assert (folder / "again" / name).read_bytes() == picture


def test_the_picture_shows_the_numbers(folder: Path, page: str) -> None:
    before = (folder / "report" / "suites.svg").read_bytes()
    changed = evaluation("sft", wrong=WRONG | {"paraphrase 0?"})
    (folder / "eval" / "sft.json").write_text(json.dumps(changed))
    run(folder, folder / "report" / "report.md")
    assert (folder / "report" / "suites.svg").read_bytes() != before


def test_a_missing_evaluation_says_what_to_run(folder: Path) -> None:
    (folder / "eval" / "sft.json").unlink()
    with pytest.raises(ArtifactError, match=r"sft\.json: no such file\. Run `make identity`"):
        run(folder, folder / "report.md")


def test_one_perfect_stage_without_manifests_still_makes_a_page(folder: Path) -> None:
    (folder / "eval" / "sft.json").write_text(json.dumps(evaluation("sft", wrong=set())))
    report.run(
        evaluations=[folder / "eval" / "sft.json"], manifests=[], metrics=[], out=folder / "r.md"
    )
    page = (folder / "r.md").read_text(encoding="utf-8")
    assert "## Mistakes\n\nNone." in page
    assert "losses.svg" not in page
