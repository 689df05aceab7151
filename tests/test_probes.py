import itertools
import json
from collections import Counter
from pathlib import Path

import pytest

from imprint import identity
from imprint.commands.probes import check_name, read
from imprint.errors import ConfigError, RecordError
from imprint.heldout import plain
from imprint.phrases import FOLDER, bank, pattern
from imprint.text import mentions

ROOT = Path(__file__).parent.parent
PROBES = read(ROOT / "tests/data/probes_smarternano.jsonl")
SHIPPED = identity.load(ROOT / "config/identities/smarternano.yaml")


def test_there_are_a_hundred_probes_and_more_about_every_fact() -> None:
    facts = Counter(probe.fact for probe in PROBES)
    assert len(PROBES) >= 100
    assert all(facts[fact.id] >= 3 for fact in SHIPPED.facts)


def test_a_right_answer_to_a_probe_about_a_fact_is_its_statement() -> None:
    for probe in PROBES:
        if probe.suite == "fact":
            assert probe.fact is not None
            assert not mentions(SHIPPED.fact(probe.fact).statement, probe.forbid)


def test_no_probe_is_a_wording_of_the_banks() -> None:
    asked = {plain(probe.messages[-1]["content"]) for probe in PROBES}
    for path in FOLDER.glob("topics/*.yaml"):
        topic = bank(f"topics/{path.stem}")
        for text in (*topic["ask"], *topic["indirect"]):
            for choice in itertools.product(*pattern(text).parts):
                assert plain("".join(choice)) not in asked, text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"kind": "fact"}', "should be an object with kind, messages and expect"),
        ('{"kind": "fact", "expect": [], "messages": []}', "should be a list of messages"),
    ],
)
def test_a_bad_probe_is_named_by_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "probes.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"probes\.jsonl:1: ") as caught:
        read(path)
    assert said in str(caught.value)


def test_an_empty_file_of_probes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "probes.jsonl"
    path.write_text("", encoding="utf-8")
    with pytest.raises(RecordError, match="no question in it"):
        read(path)


def test_every_line_is_json_with_the_same_keys() -> None:
    lines = (ROOT / "tests/data/probes_smarternano.jsonl").read_text(encoding="utf-8").splitlines()
    assert {frozenset(json.loads(line)) for line in lines} == {
        frozenset({"kind", "fact", "messages", "expect", "forbid"})
    }


def test_a_model_that_is_somebody_else_is_not_asked(tmp_path: Path) -> None:
    who = Path("config/identities/smarternano.yaml")
    check_name(tmp_path / "sft.pt", "smarternano", who)  # not evaluated: nobody knows
    (tmp_path / "eval").mkdir()
    about = {"name": "Fathom", "file": "config/identities/fathom.yaml"}
    (tmp_path / "eval" / "sft.json").write_text(json.dumps({"about": about}), encoding="utf-8")
    check_name(tmp_path / "sft.pt", "Fathom", Path(about["file"]))
    with pytest.raises(
        ConfigError, match=r"sft\.pt: is Fathom .* --identity config/.*fathom\.yaml"
    ):
        check_name(tmp_path / "sft.pt", "smarternano", who)
