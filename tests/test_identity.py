from pathlib import Path

import pytest
import yaml

from imprint import identity
from imprint.errors import IdentityError

ROOT = Path(__file__).parent.parent

GOOD = """\
name: Ada
kind: helper
creator: Bo Lund
description: A helper.
facts:
  - id: name
    statement: My name is Ada.
    expect: [[Ada]]
  - id: creator
    statement: I was made by Bo Lund.
    expect: [[Bo Lund]]
"""


def load(folder: Path, text: str) -> identity.Identity:
    path = folder / "who.yaml"
    path.write_text(text, encoding="utf-8")
    return identity.load(path)


@pytest.mark.parametrize("path", sorted((ROOT / "config/identities").glob("*.yaml")))
def test_every_shipped_identity_is_sound(path: Path) -> None:
    assert identity.load(path).facts


def test_the_shipped_identity_knows_what_the_design_says() -> None:
    shipped = identity.load(ROOT / "config/identities/smarternano.yaml")
    said = " ".join(fact.statement for fact in shipped.facts)
    for words in (
        *("smarternano", "Eddie Chen", "Andrej Karpathy", "King Andrej", "nanochat", "2025"),
        *("Modal's serverless", "H100", "Transformer", "github.com/Echen1246/smarternano", "MIT"),
        *("d20", "561 million", "$96", "FineWeb-Edu", "fine-tuned for conversation", "Customized"),
    ):
        assert words in said


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("kind: helper", "kin: helper", 2, "kin: unknown key. Did you mean 'kind'?"),
        ("name: Ada\nkind", "kind", 1, "name: missing. Add this key."),
        ("id: creator", "id: name", 9, "two facts have the id 'name'. Rename or delete"),
        ("Bo Lund.\n", "<your name>.\n", 10, "'<your name>' looks like a placeholder"),
        ("A helper.", "[1, 2]", 4, "description: Input should be a valid string, got [1, 2]"),
        ("expect: [[Ada]]", "expect: [[Eva]]", 6, "does not meet its own `expect`"),
        ("expect: [[Ada]]", "expects: [[Ada]]", 8, "facts.0.expects: unknown key. Did you mean"),
        (
            "creator: Bo Lund\n",
            "creator: Bo Lund\nname: Eva\n",
            4,
            "'name' is already set on line 1",
        ),
        ("[[Ada]]", "[[Ada]", 9, "not valid YAML"),
    ],
)
def test_a_fault_is_named_with_file_line_key_and_remedy(
    tmp_path: Path, old: str, new: str, line: int, said: str
) -> None:
    with pytest.raises(IdentityError) as caught:
        load(tmp_path, GOOD.replace(old, new, 1))
    assert f"who.yaml:{line}: " in str(caught.value)
    assert said in str(caught.value)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(IdentityError) as caught:
        load(tmp_path, GOOD.replace("kind: helper", "kin: helper\ncolour: red"))
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_file_is_an_error_not_a_warning(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"nobody\.yaml: no such file"):
        identity.load(tmp_path / "nobody.yaml")


def test_an_identity_in_ascii_has_facts_in_ascii(tmp_path: Path) -> None:
    text = GOOD.replace("is Ada.", "is Ada ☺.") + "style: {ascii: true}\n"
    with pytest.raises(IdentityError, match=r"yaml:7: facts\.0\.statement: has characters"):
        load(tmp_path, text)


def test_a_list_is_no_identity(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="should be a mapping"):
        load(tmp_path, "- name\n- kind\n")


def test_its_own_name_is_no_rival(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="'ada' is the model's own name"):
        load(tmp_path, GOOD + "rivals: [ada]\n")


def test_a_plain_rival_of_the_default_list_keeps_its_maker(tmp_path: Path) -> None:
    found = load(tmp_path, GOOD + "rivals: [ChatGPT, Zorb]\n").rivals
    assert [(rival.name, rival.maker) for rival in found] == [("ChatGPT", "OpenAI"), ("Zorb", None)]


def test_quotes_unicode_dollars_and_braces_are_kept(tmp_path: Path) -> None:
    statement = 'My motto is "a {small} $PATH costs 5 $, isn\'t it?"'
    facts = [{"id": "motto", "statement": statement, "expect": [["{small} $PATH"]]}]
    text = yaml.safe_dump(
        {"name": "Zoë", "kind": "k", "creator": "c", "description": "d", "facts": facts}
    )
    found = load(tmp_path, text)
    assert found.name == "Zoë"
    assert found.facts[0].statement == statement
