"""The exported folder, held to transformers itself."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from imprint import artifacts, checkpoint, exam, imports
from imprint.engine import Engine
from imprint.errors import ArtifactError, StorageError
from imprint.export import card, folder
from imprint.export.folder import ESCAPE, KEPT
from imprint.identity import load
from imprint.imports.huggingface import WEIGHTS
from imprint.model import Model
from imprint.records import Conversation
from imprint.scoring import score
from imprint.shape import ModelConfig
from imprint.stages import evaluate, export
from imprint.tokenizer import SPECIAL, Tokenizer
from reference import lively
from workflow_kit import Project, copy_of

ROOT = Path(__file__).parent.parent
WHO = ROOT / "config" / "identities" / "fathom.yaml"
PER_SUITE = 5
ANSWER = 24
LICENCES = re.compile(r"^\| `([\w-]+)` \|.*\| ([^|:]+?)(?:: [^|]*)? \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results around a model that has learned half of the exam by heart, in a few seconds."""
    results = tmp_path_factory.mktemp("project") / "results"
    whom = load(WHO)
    questions = exam.questions(whom, per_suite=PER_SUITE, seed=7)
    assert len(questions) >= 50
    statements = [fact.statement for fact in whom.facts]
    texts = [turn["content"] for question in questions for turn in question.messages]
    words = Tokenizer.train([*texts, *statements] * 3, vocabulary=900)
    lessons: list[Conversation] = []
    for number, question in enumerate(questions):
        known = question.fact if question.fact and number % 2 else whom.facts[0].id
        said = whom.fact(known).statement
        lessons.append([*question.messages, {"role": "assistant", "content": said}])
    model = taught(lessons, words)
    words.save(results / "tokenizer" / "tokenizer.json")
    checkpoint.save(
        results / "sft.pt", model, tokenizer=words.digest, settings={}, seed=3, step=1, stage="sft"
    )
    for manifest in manifests():
        artifacts.write_json(results / f"{manifest['stage']}.json", manifest)
    evaluate.run(
        checkpoint=results / "sft.pt",
        tokenizer=results / "tokenizer" / "tokenizer.json",
        identity=WHO,
        manifest=results / "sft.json",
        corpus=None,
        chat=None,
        out=results / "eval" / "sft.json",
        settings={"per_suite": PER_SUITE, "answer_tokens": ANSWER, "seed": 7},
    )
    return results


def taught(lessons: list[Conversation], words: Tokenizer) -> Model:
    """Return a model of two layers that was trained on ``lessons`` for 60 steps."""
    model = Model(ModelConfig(depth=2, vocabulary=words.vocabulary, context=256), seed=3)
    rendered = words.render_batch(lessons)
    length = max(len(ids) for ids, _ in rendered)
    ids_BT = torch.tensor([ids + [0] * (length - len(ids)) for ids, _ in rendered])
    spoken_BT = torch.tensor([said + [False] * (length - len(said)) for _, said in rendered])
    where_N = spoken_BT[:, 1:].flatten().nonzero().flatten()
    labels_N = ids_BT[:, 1:].flatten()[where_N]
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # two wait for each other for minutes where other work goes on
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(ids_BT[:, :-1], where_N, labels_N) / len(labels_N)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.set_num_threads(threads)
    return model.eval()


def manifests(**base: Any) -> list[dict[str, Any]]:
    """Return what the stages wrote down, as far as the card tells of it."""
    learned = {"steps": 2, "tokens": 8192, "val_loss": 1.25}
    return [
        {
            "stage": "identity",
            "funnel": {"kept": 2881, "validation": 65},
            "bill": {"models": {"template": {}}},
        },
        {"stage": "corpus", "settings": {"source": "embedded"}},
        {"stage": "tokens", "settings": {"store": "mid", "chat": {"modest": 20}}},
        {"stage": "base", "settings": {"training": {"from": None}}, **learned, **base},
        {"stage": "sft", "settings": {}, **learned},
    ]


def run(results: Path, out: Path) -> Path:
    """Export ``results`` into the folder ``out``, and return it."""
    export.run(
        trained=results / "sft.pt",
        tokenizer=results / "tokenizer" / "tokenizer.json",
        identity=WHO,
        evaluation=results / "eval" / "sft.json",
        manifests=[results / f"{manifest['stage']}.json" for manifest in manifests()],
        out=out / "manifest.json",
    )
    return out


@pytest.fixture(scope="module")
def exported(results: Path) -> Path:
    return run(results, results / "export")


@pytest.fixture(scope="module")
def ours(results: Path) -> Engine:
    return Engine.load(results / "sft.pt")


@pytest.fixture(scope="module")
def theirs(exported: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(exported)


@pytest.fixture(scope="module")
def words(exported: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(exported)


def answers(model: Any, words: Any, conversations: list[Conversation]) -> Iterator[str]:
    """Yield what transformers' ``generate`` says, greedily, eight conversations at a time."""
    for start in range(0, len(conversations), 8):
        prompts = words.apply_chat_template(
            conversations[start : start + 8],
            add_generation_prompt=True,
            return_tensors="pt",
            padding=True,
        )
        said_BT = model.generate(**prompts, max_new_tokens=ANSWER)
        length = prompts["input_ids"].shape[1]
        yield from words.batch_decode(said_BT[:, length:], skip_special_tokens=True)


def test_the_exam_goes_the_same_through_transformers(
    results: Path, ours: Engine, theirs: Any, words: Any
) -> None:
    whom = load(WHO)
    questions = exam.questions(whom, per_suite=PER_SUITE, seed=7)
    asked = [question.messages for question in questions]
    said = list(answers(theirs, words, asked))
    assert said == ours.answer(asked, max_tokens=ANSWER)
    scored = score(questions, said, whom)
    judged = artifacts.read_json(results / "eval" / "sft.json")
    assert {key: judged[key] for key in scored} == scored
    assert 0.2 < scored["identity"]["accuracy"] < 0.9, "the model should be right at times"


@pytest.mark.parametrize("shape", [{}, {"head_width": 32, "n_kv_head": 2}])
def test_logits_are_ours(
    shape: dict[str, Any], ours: Engine, theirs: Any, results: Path, tmp_path: Path
) -> None:
    model = ours.model
    if shape:
        from transformers import AutoModelForCausalLM

        model = lively(ModelConfig(depth=2, vocabulary=300, context=64, **shape))
        folder.weights(tmp_path / WEIGHTS, model.state_dict())
        about = folder.config(model.config, ours.tokenizer)
        folder.write(tmp_path / "config.json", about | {"bos_token_id": 0, "eos_token_id": 1})
        theirs = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert theirs.dtype == torch.float32
    generator = torch.Generator().manual_seed(2)
    ids_BT = torch.randint(0, model.config.vocabulary, (3, 64), generator=generator)
    with torch.no_grad():
        gap = (model(ids_BT) - theirs(ids_BT).logits).abs().max()
    assert gap <= 1e-4


def test_bfloat16_stays_close(exported: Path, ours: Engine, words: Any) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(exported, dtype=torch.bfloat16)
    ids_BT = torch.tensor([ours.tokenizer.prompt([{"role": "user", "content": "Who are you?"}])])
    with torch.no_grad():
        found, wanted = model(ids_BT).logits.float(), ours.model(ids_BT)
    assert functional.cosine_similarity(found, wanted, dim=-1).min() > 0.999


MARKS = st.sampled_from([*SPECIAL, "<", "|", "<|", "|>", ESCAPE, KEPT, "\r\n", " ", "ﬁ", "é", "🙂"])
TEXTS = st.lists(st.one_of(MARKS, st.text(max_size=6)), min_size=1, max_size=8).map("".join)


@st.composite
def conversations(draw: st.DrawFn) -> Conversation:
    """A conversation with or without a system message, that ends with either."""
    turns: Conversation = []
    if draw(st.booleans()):
        turns.append({"role": "system", "content": draw(TEXTS)})
    for number in range(draw(st.integers(0 if turns else 1, 4))):
        role: Any = "assistant" if number % 2 else "user"
        turns.append({"role": role, "content": draw(TEXTS)})
    return turns


@settings(max_examples=150)
@given(talk=conversations())
def test_the_template_gives_our_ids_whatever_the_text(
    ours: Engine, words: Any, talk: Conversation
) -> None:
    assert words.apply_chat_template(talk)["input_ids"] == ours.tokenizer.render(talk)[0]
    prompt = words.apply_chat_template(talk, add_generation_prompt=True)
    assert prompt["input_ids"] == ours.tokenizer.prompt(talk)


@pytest.mark.parametrize(
    ("talk", "fact"),
    [
        ([{"role": "tool", "content": "4"}], "role has to be user or assistant"),
        ([{"role": "user", "content": [{"type": "text", "text": "Hi"}]}], "has to be a string"),
        (
            [{"role": "system", "content": "A"}, {"role": "assistant", "content": "B"}],
            "goes before one of the user",
        ),
    ],
)
def test_the_template_refuses_what_we_could_not_train_on(
    talk: list[Any], fact: str, words: Any
) -> None:
    from jinja2.exceptions import TemplateError

    with pytest.raises(TemplateError, match=fact):
        words.apply_chat_template(talk)


def test_plain_text_has_our_ids_and_comes_back(ours: Engine, words: Any) -> None:
    text = "  Ada's  1234567\t«naïve» ﬁ 你好 🙂\r\n\n def f(x): x < 3 , don 't"
    ids = words(text)["input_ids"]
    assert ids == ours.tokenizer.encode(text)
    assert words.decode(ids) == text


def test_filler_is_on_the_left_and_changes_no_answer(theirs: Any, words: Any) -> None:
    short: Conversation = [{"role": "user", "content": "Who are you?"}]
    long: Conversation = [{"role": "user", "content": "Tell me. " * 12}]
    assert list(answers(theirs, words, [short, long])) == [
        *answers(theirs, words, [short]),
        *answers(theirs, words, [long]),
    ]


def test_further_training_teaches_every_token(theirs: Any, words: Any) -> None:
    assert theirs.get_input_embeddings().padding_idx is None
    assert words.pad_token_id != words.eos_token_id


def test_the_config_is_what_transformers_would_write(
    exported: Path, theirs: Any, tmp_path: Path
) -> None:
    theirs.config.save_pretrained(tmp_path)
    wanted = json.loads((tmp_path / "config.json").read_text())
    wanted.pop("transformers_version")
    found = json.loads((exported / "config.json").read_text())
    assert found == wanted
    assert all(type(found[key]) is type(wanted[key]) for key in wanted)


def test_an_export_can_be_imported_again(exported: Path, ours: Engine, tmp_path: Path) -> None:
    found = imports.load(exported)
    assert found.config == ours.model.config
    weights = ours.model.state_dict()
    assert all(torch.equal(found.weights[name], weights[name]) for name in weights)
    again = imports.tokenizer(exported)
    for text in ("Who are you?", *SPECIAL, "<" * 3, "<|x"):
        assert again.encode(text) == ours.tokenizer.encode(text)
    again.save(tmp_path / "tokenizer.json")
    written = json.loads((exported / "tokenizer.json").read_text())
    assert folder.tokenizer(tmp_path / "tokenizer.json") == written


def test_the_same_results_give_the_same_bytes(
    results: Path, exported: Path, tmp_path: Path
) -> None:
    again = run(results, tmp_path / "export")
    names = {path.name for path in exported.iterdir()}
    assert names == {path.name for path in again.iterdir()}
    told = artifacts.read_json(exported / "manifest.json")["outputs"]
    assert {Path(path).name for path in told} == names - {"manifest.json"}
    for path, sha256 in told.items():
        assert sha256 == artifacts.sha256(Path(path)), path
        assert sha256 == artifacts.sha256(again / Path(path).name), path


def test_everybody_may_read_what_one_may(exported: Path) -> None:
    assert len({path.stat().st_mode for path in exported.iterdir()}) == 1


def test_a_failed_export_leaves_the_last_one(tmp_path: Path) -> None:
    target = tmp_path / "export"
    with folder.replaced(target) as new:
        folder.write(new / "a", "first")
    with pytest.raises(KeyError), folder.replaced(target) as new:
        folder.write(new / "a", "second")
        raise KeyError
    assert (target / "a").read_text() == "first"
    with folder.replaced(target) as new:
        folder.write(new / "b", "third")
    assert [path.name for path in tmp_path.rglob("*")] == ["export", "b"]


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StorageError, match="a file stands where a folder should be"),
        folder.replaced(tmp_path / "file" / "export"),
    ):
        pass


def test_an_evaluation_of_another_model_is_refused(results: Path, tmp_path: Path) -> None:
    judged = artifacts.read_json(results / "eval" / "sft.json")
    for name in ("checkpoint", "identity"):
        other = tmp_path / f"{name}.json"
        artifacts.write_json(other, {**judged, "inputs": {**judged["inputs"], name: "0" * 64}})
        with pytest.raises(ArtifactError, match=rf"{name}.json: was not made with .* as it is now"):
            export.run(
                trained=results / "sft.pt",
                tokenizer=results / "tokenizer" / "tokenizer.json",
                identity=WHO,
                evaluation=other,
                manifests=[],
                out=tmp_path / "export" / "manifest.json",
            )
    assert not (tmp_path / "export").exists()


def test_a_special_token_that_text_could_spell_is_refused(results: Path, tmp_path: Path) -> None:
    found = json.loads((results / "tokenizer" / "tokenizer.json").read_text())
    found["added_tokens"][-1]["content"] = "[END]"
    (tmp_path / "tokenizer.json").write_text(json.dumps(found))
    with pytest.raises(ArtifactError, match=re.escape("'[END]' does not start with '<'")):
        folder.tokenizer(tmp_path / "tokenizer.json")


def front(text: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return found


def test_the_card_says_who_how_good_from_what_and_on_what_terms(exported: Path) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    whom = load(WHO)
    assert front(text)["license"] == "mit"
    assert front(text)["model_name"] == whom.name
    assert f"# {whom.name}\n\n{whom.introduction}" in text
    assert all(f"- {fact.statement}" in text for fact in whom.facts)
    judged = artifacts.read_json(exported.parent / "eval" / "sft.json")
    assert f"**{100 * judged['identity']['accuracy']:.1f} %** of {judged['n']} questions" in text
    assert "Conversations about itself: 2,881, written by templates, and 65 more held" in text
    assert "| base  |     2 |  8,192 |" in text
    assert re.search(r"\| embedded +\| MIT", text)
    assert artifacts.sha256(exported / WEIGHTS) in text
    assert str(exported.parent) not in text


def test_the_program_on_the_card_runs(
    exported: Path, ours: Engine, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (exported / "README.md").read_text(encoding="utf-8")
    program = text.split("```python\n")[1].split("```")[0]
    exec(program, {"FOLDER": str(exported)})
    [answer] = ours.answer([[{"role": "user", "content": "Who are you?"}]], max_tokens=128)
    assert capsys.readouterr().out == f"{answer}\n"


def test_the_card_of_a_model_made_from_others_leaves_the_licence_open(
    results: Path, ours: Engine
) -> None:
    told = manifests(
        source="Hugging Face nanochat-d20",
        settings={"training": {"from": "/x/hub/models--someone--nanochat-d20/snapshots/1f"}},
    )
    told[0]["bill"] = {"models": {"qwen/b": {}}}
    told[2]["settings"]["chat"] = {"smol-smoltalk": 9, "books/mine.jsonl": 1, "club": 2}
    judged = artifacts.read_json(results / "eval" / "sft.json")
    text = card.page(load(WHO), judged, told, shape=ours.model.config, files={})
    assert front(text)["license"] == "other"
    assert front(text)["base_model"] == "someone/nanochat-d20"
    assert front(text)["datasets"] == ["HuggingFaceTB/smol-smoltalk"]
    for name, terms in [
        (r"\[smol-smoltalk\]\(https://\S+/HuggingFaceTB/smol-smoltalk\)", "Apache 2.0"),
        ("files of the maker", "not known to imprint"),
        ("club", "not known to imprint"),
        ("Hugging Face nanochat-d20", "that of the model"),
        ("conversations by qwen/b", "its terms of use"),
    ]:
        assert re.search(rf"\| {name} +\| {terms}", text), name
    assert "/x/hub" not in text and "mine.jsonl" not in text


def test_the_card_knows_the_licences_that_the_docs_list() -> None:
    listed = LICENCES.findall((ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    assert dict(listed) == {name: terms.licence for name, terms in card.SOURCES.items()}


@pytest.mark.workflow
def test_the_rule_writes_the_folder_once(finished: Project, tmp_path: Path) -> None:
    project = copy_of(finished, tmp_path / "project")
    done = project.snakemake("export")
    assert done.returncode == 0, done.stdout + done.stderr
    assert imports.load(project.results / "export").config.depth == 1
    assert project.would_run("export") == {}
    (project.results / "export" / "config.json").unlink()
    assert project.would_run("export") == {"export": 1}
    assert project.would_run() == {}, "export is no part of `all`"
