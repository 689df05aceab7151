from pathlib import Path

import pytest
import yaml

from imprint import identity
from imprint.errors import IdentityError
from imprint.prose import article, placeholder

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
        (
            "expect: [[Ada]]",
            "expect: [[Ada], [Eva, Evi], [Ulf]]",
            6,
            "facts[name]: the statement does not meet its own `expect`: "
            "it lacks 'Eva' or 'Evi' and 'Ulf'. Use its words there.",
        ),
        ("expect: [[Ada]]", "expects: [[Ada]]", 8, "[name].expects: unknown key. Did you mean"),
        (
            "expect: [[Ada]]",
            "expect: [[31]]",
            8,
            "facts[name].expect.0.0: Input should be a valid string, got 31. "
            'Put it in quotes: "31".',
        ),
        ("A helper.", "on", 4, 'got True. Put it in quotes: "yes".'),
        ("A helper.", "2025-01-02", 4, 'Put it in quotes: "2025-01-02".'),
        ("expect: [[Ada]]", "expect: 31", 8, 'should be lists in a list. Write [["31"]].'),
        (
            "expect: [[Ada]]",
            "expect: [Ada, 31]",
            8,
            'Write [["Ada"], ["31"]] if a right answer has them all, [["Ada", "31"]] if one is',
        ),
        ("id: creator", "id: creator\n    questions: Who?", 10, "got 'Who?'. Write [\"Who?\"]."),
        ("kind: helper", "kind: The helper.", 2, "and no full stop behind. Write 'helper'."),
        ("kind: helper", "kind: an ape", 2, "kind: 'an ape' should have no article before it"),
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


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("unknown: [age, Name]", "unknown.1: 'Name' is not unknown: the fact 'name' tells it."),
        ("unknown: [Bo Lund]", "unknown.0: 'Bo Lund' is not unknown: the fact 'creator' tells it."),
        ("unknown: [age, Age]", "unknown.1: 'Age' is listed twice. Delete one of them."),
        ("rivals: [Siri, {name: siri}]", "rivals.1: 'siri' is listed twice."),
        ("style: {languages: [Dutch, dutch]}", "style.languages.1: 'Dutch' is listed twice."),
        (
            "style: {languages: [French, Klingon]}",
            "languages.1: there are no wordings in 'Klingon'",
        ),
        (
            "style: {ascii: true, language_note: Zoë speaks English.}",
            "style.language_note: has characters beyond ASCII.",
        ),
    ],
)
def test_what_cannot_be_true_together_is_refused(tmp_path: Path, more: str, said: str) -> None:
    with pytest.raises(IdentityError) as caught:
        load(tmp_path, GOOD + more + "\n")
    assert f"who.yaml:{len(GOOD.splitlines()) + 1}: " in str(caught.value)
    assert said in str(caught.value)


def test_what_a_question_of_a_fact_asks_for_is_not_unknown(tmp_path: Path) -> None:
    asked = GOOD.replace("id: creator", "id: creator\n    questions: [what is your origin]")
    with pytest.raises(IdentityError, match="'origin' is not unknown: the fact 'creator'"):
        load(tmp_path, asked + "unknown: [origin]\n")
    assert load(tmp_path, asked + "unknown: [origin of life, mother's name]\n")


def test_a_language_is_found_whatever_its_case_and_another_is_told_the_choice(
    tmp_path: Path,
) -> None:
    assert load(tmp_path, GOOD + "style: {languages: [italian]}\n").style.languages == ["Italian"]
    with pytest.raises(IdentityError, match=r"choose from Spanish, French, .*Swedish\."):
        load(tmp_path, GOOD + "style: {languages: [English]}\n")


@pytest.mark.parametrize(
    ("said", "kinds"),
    [
        (
            "a",
            "helper, universal translator, one-person helpdesk, European assistant, house, "
            "user interface, unicorn, utility bot, NASA engineer, UN envoy, Museum guide, "
            "110-key piano",
        ),
        (
            "an",
            "assistant, hour-long radio play, honest broker, heir, honor student, AI, FAQ, usher, "
            "MIT-licensed bot, X-ray reader, EU-funded bot, unusual helper, unimportant bot, "
            "unidentified bot, urgent helper, 8-bit hero, 11-year-old, 18th-century poet, Émigré",
        ),
    ],
)
def test_the_article_before_the_kind_is_the_one_that_is_said(said: str, kinds: str) -> None:
    for kind in kinds.split(", "):
        assert article(kind) == said, kind


@pytest.mark.parametrize(
    "text",
    [
        "I keep your todo list.",
        "Hago de todo.",
        "Use {{name}} in a template.",
        "TODOS los dias.",
        "I read TBDs.",
    ],
)
def test_ordinary_text_is_no_placeholder(text: str) -> None:
    assert placeholder(text) is None


@pytest.mark.parametrize(
    "text",
    ["TODO", "Made by TBD.", "XXXX", "{{ template }}", "I am {{name}}.", "I am }}", "[name]"],
)
def test_what_was_left_to_be_replaced_is_a_placeholder(text: str) -> None:
    assert placeholder(text)


def test_all_faults_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(IdentityError) as caught:
        load(tmp_path, GOOD.replace("kind: helper", "kin: helper\ncolour: red"))
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_file_is_an_error_not_a_warning(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match=r"nobody\.yaml: no such file"):
        identity.load(tmp_path / "nobody.yaml")


def test_an_identity_in_ascii_has_facts_in_ascii(tmp_path: Path) -> None:
    text = GOOD.replace("is Ada.", "is Ada ☺.") + "style: {ascii: true}\n"
    with pytest.raises(IdentityError, match=r"yaml:7: facts\[name\]\.statement: has characters"):
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
