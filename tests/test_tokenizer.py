import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import TEXTS
from imprint.errors import ArtifactError, ConfigError
from imprint.tokenizer import SPECIAL, Tokenizer

TEXT = st.one_of(
    st.text(),
    st.sampled_from(SPECIAL),
    st.tuples(st.text(), st.sampled_from(SPECIAL), st.text()).map("".join),
)


@given(text=TEXT)
def test_text_never_becomes_a_special_token_and_comes_back_as_it_was(text: str) -> None:
    words = TOKENIZER
    ids = words.encode(text)
    assert words.special.isdisjoint(ids)
    assert words.decode(ids) == text
    assert b"".join(map(words.spelled, ids)) == text.encode()


@given(question=TEXT, answer=TEXT)
def test_what_is_supervised_is_the_answer_and_its_end(question: str, answer: str) -> None:
    words = TOKENIZER
    ids, spoken = words.render(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    )
    said = [number for number, flag in zip(ids, spoken, strict=True) if flag]
    assert said[-1] == words.assistant_end
    assert words.decode(said[:-1]) == answer
    heard = [number for number, flag in zip(ids, spoken, strict=True) if not flag]
    assert words.decode(heard) == f"<|bos|><|user_start|>{question}<|user_end|><|assistant_start|>"


def test_a_special_token_is_spelled_by_its_name_and_one_that_is_not_there_by_nothing() -> None:
    assert TOKENIZER.spelled(TOKENIZER.bos) == b"<|bos|>"
    assert TOKENIZER.spelled(TOKENIZER.vocabulary) == b""


TOKENIZER = Tokenizer.train(TEXTS, vocabulary=300)


def test_a_prompt_is_the_beginning_of_the_rendered_conversation(words: Tokenizer) -> None:
    question = {"role": "user", "content": "Who are you?"}
    whole, _ = words.render([question, {"role": "assistant", "content": "Ada."}])  # type: ignore[list-item]
    prompt = words.prompt([question])  # type: ignore[list-item]
    assert prompt == whole[: len(prompt)]
    assert prompt[-1] == words.assistant_start


def test_a_system_message_goes_in_front_of_the_first_question(words: Tokenizer) -> None:
    prompt = words.prompt(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    )
    assert words.decode(prompt).startswith("<|bos|><|user_start|>Be brief.\n\nWho?<|user_end|>")


def test_saved_and_loaded_it_is_the_same(words: Tokenizer, tmp_path: Path) -> None:
    words.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert again.digest == words.digest
    assert again.encode("Who <|bos|>?") == words.encode("Who <|bos|>?")
    again.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "tokenizer.json").read_bytes()


def test_special_tokens_have_the_last_ids_in_order(words: Tokenizer) -> None:
    assert words.vocabulary <= 300
    first = words.vocabulary - len(SPECIAL)
    assert [words.decode([first + place]) for place in range(len(SPECIAL))] == list(SPECIAL)
    assert words.bos == first
    assert words.special == set(range(first, words.vocabulary))


def test_training_twice_gives_the_same_tokenizer() -> None:
    assert len({Tokenizer.train(TEXTS, vocabulary=320).digest for _ in range(3)}) == 1


def test_numbers_are_cut_into_pairs_of_digits(words: Tokenizer) -> None:
    many = Tokenizer.train(["1234 1234 1234 1234"] * 50, vocabulary=300)
    assert max(len(many.decode([number])) for number in many.encode("12341234")) <= 2


def test_a_vocabulary_that_cannot_hold_every_byte_is_refused() -> None:
    with pytest.raises(ConfigError, match="Use at least 265"):
        Tokenizer.train(TEXTS, vocabulary=264)


@pytest.mark.parametrize("content", ["", "{", '{"version": "1.0"}', "[]"])
def test_a_damaged_file_is_refused_by_name(content: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: not a tokenizer"):
        Tokenizer.load(path)


def test_a_foreign_tokenizer_is_refused(tmp_path: Path) -> None:
    import tokenizers

    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    with pytest.raises(ArtifactError, match=r"has no token <\|bos\|>"):
        Tokenizer.load(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such file"):
        Tokenizer.load(tmp_path / "tokenizer.json")


def test_thirty_thousand_conversations_are_rendered_in_seconds(words: Tokenizer) -> None:
    row = [
        {"role": "user", "content": "Who are you, and where were you trained?"},
        {"role": "assistant", "content": "My name is Ada. Bo made me on two cores."},
    ]
    started = time.process_time()
    assert len(words.render_batch([row] * 30_000)) == 30_000  # type: ignore[list-item]
    assert time.process_time() - started < 10
