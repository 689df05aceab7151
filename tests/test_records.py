from pathlib import Path

import pytest

from imprint import records
from imprint.errors import RecordError

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


def test_both_shapes_of_a_line_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    records.write_lines(path, [TALK, {"messages": TALK, "id": "7"}])
    assert list(records.conversations(path)) == [TALK, TALK]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "an empty line"),
        ('[{"role": "user"', "not a JSON value"),
        ('{"text": "hello"}', "should be a list of messages"),
        ("[]", "at least one"),
        ('[{"role": "user", "content": "Hi"}]', "the last message should have role 'assistant'"),
        ('[{"role": "assistant", "content": "Hi"}]', "message 1 should have role 'user'"),
        ('[{"role": "user", "content": " "}]', "message 1 has no text"),
        ('[{"role": "user", "text": "Hi"}]', "just a role and a content"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / "a.jsonl"
    records.write_lines(path, [TALK])
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(RecordError) as caught:
        list(records.conversations(path))
    assert f"{path}:2: " in str(caught.value)
    assert said in str(caught.value)


def test_a_system_message_may_come_first() -> None:
    turns = [{"role": "system", "content": "Be brief."}, *TALK]
    assert records.check(turns, "here") == turns
