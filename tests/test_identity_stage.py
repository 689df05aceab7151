import errno
import hashlib
import json
import logging
import os
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dataset_kit import Dataset, echo, fixed_rows
from imprint.errors import ArtifactError, StorageError
from imprint.exam import Question
from imprint.stages import identity, shards

__all__ = ["echo"]  # a fixture

PINNED = "f7699ffeda0bbc502190fa2d8270719e3552d25276c10f87390c657d76d787d2"

Line = dict[str, Any]


@pytest.fixture
def held_out(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The questions of the exam: what a test puts into this list."""
    questions: list[str] = []

    def fixed(*_: object, **__: object) -> list[Question]:
        return [
            Question("direct", None, [{"role": "user", "content": text}], (), ())
            for text in questions
        ]

    monkeypatch.setattr("imprint.exam.questions", fixed)
    return questions


@pytest.fixture
def data(tmp_path: Path, echo: Path, held_out: list[str]) -> Dataset:
    """Sixty conversations in three shards, none of which should be dropped."""
    return Dataset(tmp_path / "results").plan(60).make()


def kept(data: Dataset) -> list[list[dict[str, str]]]:
    """Return the dataset and its validation part."""
    return [
        json.loads(line)
        for path in (data.out, data.validation_out)
        for line in path.read_text(encoding="utf-8").splitlines()
    ]


def test_every_conversation_arrives_once_in_plan_order_as_a_bare_array(data: Dataset) -> None:
    data.merge()
    written = [line["messages"] for shard in range(3) for line in data.lines(shard)]
    lines = data.out.read_text().splitlines()
    train = [json.loads(line) for line in lines]
    aside = [json.loads(line) for line in data.validation_out.read_text().splitlines()]
    assert train == [messages for messages in written if messages in train]
    assert aside == [messages for messages in written if messages in aside]
    assert len(train) + len(aside) == 60
    assert lines[0] == json.dumps(train[0], separators=(",", ":"))


def test_merging_twice_gives_the_same_bytes(data: Dataset) -> None:
    data.merge()
    before = data.out.read_bytes(), data.validation_out.read_bytes()
    data.merge()
    assert (data.out.read_bytes(), data.validation_out.read_bytes()) == before


def edited(data: Dataset, change: Callable[[list[Line]], object], shard: int = 0) -> Dataset:
    """Change the conversations of a shard, as an editor would."""
    lines = data.lines(shard)
    change(lines)
    data.rewrite(shard, lines)
    return data


def say(line: Line, question: str) -> None:
    line["messages"][0]["content"] = question


def twins(lines: list[Line]) -> tuple[Line, Line]:
    """Return the first two conversations about the same single fact."""
    facts = [tuple(line["meta"]["plan"]["facts"]) for line in lines]
    places = [place for place, names in enumerate(facts) if names == facts[0]]
    assert len(facts[0]) == 1
    return lines[places[0]], lines[places[1]]


LONG = " ".join(f"word{n}" for n in range(40)) + ": is it so?"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (str, "exact duplicates"),
        (str.upper, "exact duplicates"),
        (lambda text: f"  {text.replace(' ', '   ')}\n", "exact duplicates"),
        (lambda text: text.replace("?", "!"), "near duplicates"),
        (lambda text: text.replace("word17", "else"), "near duplicates"),
    ],
)
def test_a_second_copy_goes_and_the_first_stays(
    data: Dataset, change: Callable[[str], str], reason: str
) -> None:
    lines = data.lines(0)
    first, second = twins(lines)
    say(first, LONG)
    second["messages"] = [
        {**turn, "content": change(turn["content"])} for turn in first["messages"]
    ]
    data.rewrite(0, lines)
    funnel = data.merge()["funnel"]
    assert funnel[reason] == 1
    assert funnel["kept"] + funnel["validation"] == 59
    assert kept(data).count(first["messages"]) == 1
    assert second["messages"] == first["messages"] or second["messages"] not in kept(data)


def test_copies_are_found_across_shards(data: Dataset) -> None:
    first = twins(data.lines(0))[0]

    def _like(line: Line) -> tuple[Any, ...]:
        return line["meta"]["plan"]["facts"], line["meta"]["plan"]["turns"]

    def copy(lines: list[Line]) -> None:
        other = next(line for line in lines if _like(line) == _like(first))
        other["messages"] = first["messages"]

    assert edited(data, copy, shard=2).merge()["funnel"]["exact duplicates"] == 1


def test_paraphrases_stay(data: Dataset) -> None:
    lines = data.lines(0)
    first, second = twins(lines)
    say(first, "Which metal is your part made of?")
    say(second, "What metal was used to make the part?")
    data.rewrite(0, lines)
    assert data.merge()["funnel"]["kept"] + data.merge()["funnel"]["validation"] == 60


def test_how_near_is_too_near_is_a_setting(data: Dataset) -> None:
    lines = data.lines(0)
    first, second = twins(lines)
    say(first, LONG)
    say(second, LONG + " Or not?")
    data.rewrite(0, lines)
    assert data.merge(near_duplicate=0.99)["funnel"]["near duplicates"] == 0
    assert data.merge(near_duplicate=0.9)["funnel"]["near duplicates"] == 1


@pytest.mark.parametrize(
    ("exam", "question", "count"),
    [
        ("Of what was the old clock in your hall made?", "Of what was the OLD clock in your", 1),
        ("Of what was the old clock in your hall made?", "Of what was the new clock in it", 0),
        ("Who made you?", "who made you", 1),
        ("Who made you?", "who made you then", 0),
    ],
)
def test_what_gives_away_the_exam_goes(
    data: Dataset, held_out: list[str], exam: str, question: str, count: int
) -> None:
    held_out.append(exam)
    edited(data, lambda lines: say(lines[0], question))
    assert data.merge()["funnel"]["contaminated"] == count


def test_a_hand_edited_line_is_held_to_the_rules_of_the_door(data: Dataset) -> None:
    def boast(lines: list[Line]) -> None:
        lines[0]["messages"][-1]["content"] += " I am ChatGPT."

    assert edited(data, boast).merge()["funnel"]["rejected"] == {"rival claim": 1}


# The funnel


def test_the_funnel_adds_up_whatever_happens(data: Dataset, held_out: list[str]) -> None:
    data.make("proud")  # every fifth claims to be a rival: 12 in all
    held_out.append("Who made you?")

    def spoil(lines: list[Line]) -> None:
        first, second = twins(lines)
        second["messages"] = first["messages"]
        say(lines[-1], "Who made you?")
        lines[-2]["messages"][-1]["content"] = "{{name}}"
        del lines[-4]

    funnel = edited(data, spoil, shard=1).merge()["funnel"]
    total = funnel.pop("kept") + funnel.pop("validation")
    assert funnel == {
        "planned": 60,
        "missing": 1,
        "generated": 59,
        "rejected": {"placeholder": 1, "rival claim": 12},
        "exact duplicates": 1,
        "near duplicates": 0,
        "contaminated": 1,
    }
    assert total == 60 - 1 - 13 - 1 - 1
    assert len(kept(data)) == total


def test_coverage_and_strategies_count_what_is_trained_on(data: Dataset) -> None:
    manifest = data.merge()
    train = [json.loads(line) for line in data.out.read_text().splitlines()]
    rows = [
        line["meta"]["plan"]
        for shard in range(3)
        for line in data.lines(shard)
        if line["messages"] in train
    ]
    facts = Counter(name for row in rows for name in row["facts"])
    assert manifest["coverage"] == {f"part {n}": facts[f"part {n}"] for n in range(3)}
    assert manifest["strategies"] == Counter(row["strategy"] for row in rows)
    assert sum(manifest["strategies"].values()) == manifest["funnel"]["kept"]


def test_the_manifest_ties_outputs_to_inputs_by_hash(data: Dataset) -> None:
    manifest = data.merge()
    for path in (data.out, data.validation_out):
        assert manifest["outputs"][str(path)] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert set(manifest["inputs"]) == {str(path) for path in [*data.plans, *data.shards]}
    assert manifest["settings"] == {"validation": 0.1, "near_duplicate": 0.9, "per_suite": 5}


def test_a_fact_below_its_quota_is_named_with_the_remedy(
    tmp_path: Path, echo: Path, held_out: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    data = Dataset(tmp_path / "results", facts=50).plan(60).make()
    coverage = data.merge()["coverage"]
    short = [name for name, count in coverage.items() if count < 3]  # 50 of 1000 is 3 of 60
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert short
    assert warned == [
        f"warning: fact '{name}' has only {coverage[name]} of 3 conversations: set `conversations` "
        "higher, or give the fact more questions"
        for name in short
    ]


def test_missing_conversations_are_warned_of(
    data: Dataset, caplog: pytest.LogCaptureFixture
) -> None:
    edited(data, lambda lines: lines.pop(3)).merge()
    assert "warning: the shards lack 1 of the planned conversations" in caplog.text


# Validation


def test_validation_has_every_fact_and_takes_no_fact_away(
    tmp_path: Path, echo: Path, held_out: list[str]
) -> None:
    data = Dataset(tmp_path / "results", facts=12).plan(100).make()
    coverage = data.merge(validation=0.02)["coverage"]
    aside = data.validation_out.read_text()
    assert all(f"what of part {n}?" in aside for n in range(12))
    assert all(coverage.values())


def test_a_fact_with_a_single_conversation_is_trained_on(
    tmp_path: Path, echo: Path, held_out: list[str]
) -> None:
    data = Dataset(tmp_path / "results", facts=40).plan(20).make()
    taught = {name for line in data.lines(0) for name in line["meta"]["plan"]["facts"]}
    coverage = data.merge(validation=0.49)["coverage"]
    assert {name for name, count in coverage.items() if count} == taught


def test_more_conversations_move_none_from_validation_to_training(
    tmp_path: Path, echo: Path, held_out: list[str]
) -> None:
    data = Dataset(tmp_path / "results").plan(100).make()
    data.merge(validation=0.2)
    few = set(data.validation_out.read_text().splitlines())
    data.plan(300).make().merge(validation=0.2)
    assert len(few - set(data.validation_out.read_text().splitlines())) <= 3  # one per fact
    assert len(few) > 10


def test_two_conversations_are_one_to_train_on_and_one_to_validate(
    tmp_path: Path, echo: Path, held_out: list[str]
) -> None:
    data = Dataset(tmp_path / "results").plan(2).make()
    funnel = data.merge(validation=0.49)["funnel"]
    assert (funnel["kept"], funnel["validation"]) == (1, 1)


def test_a_single_conversation_is_too_few(tmp_path: Path, echo: Path, held_out: list[str]) -> None:
    data = Dataset(tmp_path / "results").plan(1).make()
    with pytest.raises(ArtifactError, match=r"1 of 1 conversations left, too few .*conversations`"):
        data.merge()
    assert not data.out.exists()


# Bad input


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"", "an empty line"),
        (b"   ", "an empty line"),
        (b'{"id": "0000', "not a JSON value"),
        (b"\xff\xfe", "not a JSON value"),
        (b"[]", "should have an id, messages and meta"),
        (b"{}", "should have an id, messages and meta"),
        (b'{"id": 7, "messages": [], "meta": {"plan": {}}}', "should have an id"),
        (b'{"id": "x", "messages": [], "meta": {"plan": {}}}', "conversation 'x' is not what"),
    ],
)
def test_a_broken_line_is_named_with_its_shard_and_the_remedy(
    data: Dataset, line: bytes, problem: str
) -> None:
    path = data.shards[1]
    lines = path.read_bytes().splitlines()
    lines[6] = line
    path.write_bytes(b"\n".join(lines) + b"\n")
    others = [shard.read_bytes() for shard in (data.shards[0], data.shards[2])]
    with pytest.raises(ArtifactError) as caught:
        data.merge()
    message = str(caught.value)
    assert message.startswith(f"{path}:7: {problem}")
    assert message.endswith(f"Mend the line, or delete {path} and run again: only it is made anew.")
    assert not data.out.exists()
    assert [shard.read_bytes() for shard in (data.shards[0], data.shards[2])] == others


def test_a_shard_cut_off_in_the_middle_of_a_line_is_named(data: Dataset) -> None:
    path = data.shards[2]
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(ArtifactError, match=r"0002\.jsonl:20: not a JSON value"):
        data.merge()


def test_a_shard_made_anew_mends_the_dataset(data: Dataset) -> None:
    data.merge()
    before = data.out.read_bytes()
    data.shards[1].write_text("oops\n")
    with pytest.raises(ArtifactError):
        data.merge()
    data.shards[1].unlink()
    data.make()
    data.merge()
    assert data.out.read_bytes() == before


def test_a_malformed_conversation_names_the_message(data: Dataset) -> None:
    edited(data, lambda lines: lines[4]["messages"].pop())
    with pytest.raises(ArtifactError, match=r"0000\.jsonl:5: the last message should have role"):
        data.merge()


def test_an_empty_shard_is_not_taken_for_one_with_lines_deleted(data: Dataset) -> None:
    data.shards[1].write_text("")
    with pytest.raises(ArtifactError, match=r"0001\.jsonl: empty\. Delete it and run again"):
        data.merge()


def test_a_byte_order_mark_left_by_an_editor_does_no_harm(data: Dataset) -> None:
    data.merge()
    before = data.out.read_bytes()
    data.shards[0].write_bytes(b"\xef\xbb\xbf" + data.shards[0].read_bytes())
    data.merge()
    assert data.out.read_bytes() == before


def test_windows_line_ends_do_no_harm(data: Dataset) -> None:
    data.merge()
    before = data.out.read_bytes()
    data.shards[0].write_bytes(data.shards[0].read_bytes().replace(b"\n", b"\r\n"))
    data.merge()
    assert data.out.read_bytes() == before


def test_a_conversation_may_not_come_twice_or_out_of_order(data: Dataset) -> None:
    edited(data, lambda lines: lines.append(lines[3]))
    with pytest.raises(ArtifactError, match=r":21: conversation '000003' is not what"):
        data.merge()
    data.make()
    edited(data, lambda lines: lines.reverse())
    with pytest.raises(ArtifactError, match=r":2: conversation '000018' is out of order"):
        data.merge()


def test_a_shard_of_another_plan_is_refused(data: Dataset) -> None:
    data.plan(60, seed=2)
    with pytest.raises(ArtifactError, match=r"0000\.jsonl:1: .* is not what its plan asks for"):
        data.merge()


def test_plans_of_two_identities_are_not_mixed(data: Dataset, tmp_path: Path) -> None:
    other = Dataset(tmp_path / "other", facts=2).plan(60)
    data.plans[1] = other.plans[1]
    with pytest.raises(ArtifactError, match=r"0001\.json: made for another identity than"):
        data.merge()


def test_a_shard_without_its_manifest_is_refused(data: Dataset) -> None:
    shards.sidecar(data.shards[2]).unlink()
    with pytest.raises(ArtifactError, match=r"0002\.json: no such file"):
        data.merge()


def test_a_disk_that_fills_up_keeps_the_old_dataset_and_says_so(
    data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    data.merge()
    before = data.out.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("imprint.artifacts.os.fsync", full)
    with pytest.raises(StorageError, match=r"identity\.jsonl: the disk is full"):
        data.merge(validation=0.3)
    assert data.out.read_bytes() == before
    assert not [path for path in data.root.iterdir() if path.name.endswith(".tmp")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 16 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(folder)]
    try:
        done = subprocess.run(mount, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip("mounting a file system needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_really_full_disk_leaves_nothing_half_written(data: Dataset, small_disk: Path) -> None:
    data.plan(300).make()
    data.out = small_disk / "identity.jsonl"
    with pytest.raises(StorageError, match=r"identity\.jsonl: the disk is full"):
        data.merge()
    assert list(small_disk.iterdir()) == []


def test_a_read_only_disk_is_named(data: Dataset, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    data.out = small_disk / "identity.jsonl"
    with pytest.raises(StorageError, match=r"may not be written \(Read-only file system\)"):
        data.merge()


# All the way with the built-in provider


HOSTILE = (
    "My \"{n}\" costs $5 \\ {a} {0} %s 'x' <b> #1: caf\u00e9 \u65e5\u672c \U0001f600 "
    "$(id) `ls` <|assistant_end|>."
)


def test_quotes_braces_dollars_and_unicode_arrive_as_they_are(tmp_path: Path) -> None:
    data = Dataset(tmp_path / "results", statement=HOSTILE).plan(300)
    funnel = data.make(provider="template").merge()["funnel"]
    assert funnel["rejected"] == {}
    raw = data.out.read_bytes().decode()
    for n in range(3):
        statement = HOSTILE.replace("{n}", str(n))
        assert json.dumps(statement, ensure_ascii=False)[1:-1] in raw
    assert "\\u" not in raw


@pytest.mark.parametrize(("facts", "conversations"), [(1, 200), (60, 1000)])
def test_one_fact_and_sixty_facts_both_work(
    tmp_path: Path, facts: int, conversations: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data = Dataset(tmp_path / "results", size=500, facts=facts).plan(conversations)
    manifest = data.make(provider="template").merge()
    funnel = manifest["funnel"]
    assert funnel["rejected"] == {}
    assert len(manifest["coverage"]) == facts
    assert min(manifest["coverage"].values()) >= 5
    assert funnel["kept"] > conversations * 0.5


def test_the_dataset_is_what_it_was_in_this_version(
    tmp_path: Path, echo: Path, held_out: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("imprint.plan.rows", fixed_rows)
    data = Dataset(tmp_path / "results").plan(60).make()
    data.merge()
    both = data.out.read_bytes() + data.validation_out.read_bytes()
    found = hashlib.sha256(both).hexdigest()
    assert found == PINNED, (
        "The same shards now give another dataset, so mid and sft train again. If that is meant, "
        f'raise VERSION in stages/identity.py and set PINNED = "{found}" in this test.'
    )


def test_positions_of_conversations_are_spread_evenly() -> None:
    below = sum(
        identity._position([{"role": "user", "content": str(n)}]) < 0.1 for n in range(5000)
    )
    assert 420 < below < 580
