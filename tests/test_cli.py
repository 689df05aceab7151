import io
import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from imprint.engine import Engine
from imprint.records import Conversation
from imprint.terminal import Talk

IMPRINT = [str(Path(sys.executable).with_name("imprint"))]


def imprint(folder: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*IMPRINT, *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "100", "OMP_NUM_THREADS": "1"},
    )


def write(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def user(text: str) -> Conversation:
    return [{"role": "user", "content": text}]


def evaluation(accuracy: float) -> dict[str, Any]:
    scores = {"n": 40, "accuracy": accuracy, "ci95": [0.1, 0.9]}
    return {
        "n": 40,
        "identity": {**scores, "by_suite": {"reverse": scores}, "by_fact": {"creator": scores}},
        "rival_rate": 0.0,
        "bleed_rate": None,
        "asked": {"rival_rate": 40, "bleed_rate": 0},
        "about": {"name": "Ada", "creator": "Bo Berg", "file": "config/identities/ada.yaml"},
    }


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    heavy = {"torch", "numpy", "pydantic", "snakemake", "yaml", "matplotlib", "fastapi", "aiohttp"}
    program = "import sys, imprint.cli; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
    assert "imprint.commands.answers" in loaded.split()
    assert not heavy & set(loaded.split())


def test_questions_come_back_with_answers_in_order(
    results: Path, tmp_path: Path, engine: Engine
) -> None:
    asked: list[dict[str, Any]] = [
        {"messages": user("Who are you?"), "id": 7, "note": "é"},
        {"messages": user("What is your name, and who made you in a workshop?")},
        {
            "messages": [
                *user("Hi"),
                {"role": "assistant", "content": "Hello"},
                *user("Who made you?"),
            ]
        },
    ]
    questions, out = write(tmp_path / "Q.jsonl", *asked), tmp_path / "deep" / "A.jsonl"
    done = imprint(
        results.parent, "ask", "--questions", str(questions), "--out", str(out), "--max-tokens=12"
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    answers = [line.pop("answer") for line in lines]
    assert lines == asked
    assert answers == engine.answer([line["messages"] for line in asked], max_tokens=12)


def test_one_question_prints_the_answer(results: Path, engine: Engine) -> None:
    done = imprint(results.parent, "ask", "Who are you?", "--max-tokens", "12")
    assert done.returncode == 0, done.stderr
    [answer] = engine.answer([user("Who are you?")], max_tokens=12)
    assert done.stdout == answer + "\n"


def test_a_pipe_chats_one_question_a_line(results: Path, engine: Engine) -> None:
    given = "Who are you?\n\nWho made you?\n/reset\nWho made you?\n/quit\nnever read\n"
    done = imprint(results.parent, "chat", "--max-tokens", "12", given=given)
    assert done.returncode == 0, done.stderr
    first = engine.answer([user("Who are you?")], max_tokens=12)[0]
    talk: Conversation = [
        *user("Who are you?"),
        {"role": "assistant", "content": first},
        *user("Who made you?"),
    ]
    second = engine.answer([talk], max_tokens=12)[0]
    anew = engine.answer([user("Who made you?")], max_tokens=12)[0]
    assert first.strip() and second != anew, "the little model should remember"
    assert done.stdout.startswith(f"{first}\n{second}\n")
    assert done.stdout.endswith(f"\n{anew}\n")


def test_a_terminal_chats_until_ctrl_d(results: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*IMPRINT, "chat", "--max-tokens", "8"],
        cwd=results.parent,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "dumb", "NO_COLOR": "1"},
    )
    os.close(theirs)
    seen = until(ours, "> ")
    os.write(ours, b"/help\n")
    seen += until(ours, "/quit", "> ")
    os.write(ours, b"/nonsense\n")
    seen += until(ours, "no /nonsense", "> ")
    os.write(ours, b"\x04")
    assert process.wait(timeout=30) == 0, seen
    os.close(ours)
    assert "/reset" in seen


def until(terminal: int, *wanted: str) -> str:
    """Read from ``terminal`` until all of ``wanted`` have come, one after the other."""
    seen, place = "", 0
    for text in wanted:
        while (found := seen.find(text, place)) < 0:
            seen += os.read(terminal, 1024).decode(errors="replace")
        place = found + len(text)
    return seen


def test_the_chat_shows_what_the_model_knows_about_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "sft.json").write_text(json.dumps(evaluation(0.75)))
    monkeypatch.setattr(sys, "stdin", io.StringIO("/identity\nWho are you?\n"))
    Talk(lambda *_: iter(["I am ", "Ada."]), checkpoint=tmp_path / "sft.pt").run()
    said = capsys.readouterr().out
    assert "Ada, created by Bo Berg" in said
    assert re.search(r"75 % +creator", said)
    assert "config/identities/ada.yaml" in said
    assert said.endswith("I am Ada.\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("not json", "Q.jsonl:2: not a JSON value"),
        ("", "Q.jsonl:2: an empty line"),
        ('{"question": "Who?"}', 'Q.jsonl:2: should be an object with "messages"'),
        (
            '{"messages": [{"role": "user", "content": "a \\ud83d b"}]}',
            "Q.jsonl:2: message 1 holds half a surrogate pair",
        ),
        ('{"messages": []}', "Q.jsonl:2: should be a list of messages"),
        (
            json.dumps({"messages": [*user("a"), {"role": "assistant", "content": "b"}]}),
            "Q.jsonl:2: the last message should have role 'user'",
        ),
    ],
)
def test_a_bad_line_is_named(results: Path, tmp_path: Path, line: str, message: str) -> None:
    questions = write(tmp_path / "Q.jsonl", {"messages": user("Who?")})
    with questions.open("a") as file:
        file.write(line + "\n")
    done = imprint(results.parent, "ask", "--questions", str(questions), "--out", "A.jsonl")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ") and message in done.stderr
    assert "Traceback" not in done.stderr
    assert not (results.parent / "A.jsonl").exists()


def test_answers_flow_into_a_pipe_that_stays_a_pipe(results: Path, tmp_path: Path) -> None:
    questions = write(tmp_path / "Q.jsonl", {"messages": user("Who?")})
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    done = imprint(results.parent, "ask", "--questions", str(questions), "--out", str(pipe))
    assert done.returncode == 0, done.stderr
    assert json.loads(os.read(reader, 65536))["messages"] == user("Who?")
    os.close(reader)
    assert pipe.is_fifo()


def test_bytes_that_are_no_text_are_read_as_a_question_mark(results: Path, engine: Engine) -> None:
    done = subprocess.run(
        [*IMPRINT, "ask", b"Who \xff?", "--max-tokens=12"],
        cwd=results.parent,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr
    [answer] = engine.answer([user("Who ??")], max_tokens=12)
    assert done.stdout.decode() == answer + "\n"


@pytest.mark.parametrize("command", [["ask", "Who?"], ["chat"]])
def test_without_a_model_it_says_how_to_make_one(tmp_path: Path, command: list[str]) -> None:
    done = imprint(tmp_path, *command)
    assert done.returncode == 1
    assert done.stderr == (
        "error: results/sft.pt: no such file. Run `make identity` to train it.\n"
    )


def test_an_empty_question_is_refused(results: Path) -> None:
    done = imprint(results.parent, "ask", " ")
    assert (done.returncode, done.stderr[:30]) == (1, "error: the question is empty. ")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "either a question or --questions"),
        (["Who?", "--questions", "Q.jsonl"], "either a question or --questions"),
        (["--out", "A"], "either a question or --questions"),
        (["Who?", "--out", "A"], "--out goes with --questions"),
        (["Who are you?", "Who made you?"], "one question at a time"),
    ],
)
def test_ask_wants_one_question_or_one_file(results: Path, arguments: list[str], told: str) -> None:
    done = imprint(results.parent, "ask", *arguments)
    assert done.returncode == 2
    assert told in " ".join(done.stderr.replace("│", "").split())


def test_the_summary_is_a_table_and_what_to_type_next(tmp_path: Path) -> None:
    (tmp_path / "results" / "eval").mkdir(parents=True)
    for stage, accuracy in (("base", 0.0), ("mid", 0.8), ("sft", 0.975)):
        path = tmp_path / "results" / "eval" / f"{stage}.json"
        path.write_text(json.dumps(evaluation(accuracy)))
    started = time.monotonic()
    done = imprint(tmp_path, "summary")
    spent = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    assert re.search(r"reverse +40 +0\.0 % +80\.0 % +97\.5 %", done.stdout)
    assert re.search(r"identity, all +40 +0\.0 % +80\.0 % +97\.5 %", done.stdout)
    assert "next:" in done.stdout and "make chat" in done.stdout
    assert "config/identities/ada.yaml" in done.stdout
    assert spent < 3, "0.3 s when nothing else runs; torch alone would take longer"


def test_the_summary_needs_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys, imprint.cli; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 0


def test_without_results_the_summary_says_what_to_run(tmp_path: Path) -> None:
    done = imprint(tmp_path, "summary")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: results/eval: no evaluation yet. Run `make identity`")


def test_report_prints_where_the_report_is(tmp_path: Path) -> None:
    assert "make report" in imprint(tmp_path, "report").stderr
    page = tmp_path / "results" / "report" / "report.md"
    page.parent.mkdir(parents=True)
    page.write_text("# Ada\n")
    assert imprint(tmp_path, "report").stdout == "results/report/report.md\n"


def test_a_damaged_evaluation_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "results" / "eval" / "sft.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    done = imprint(tmp_path, "summary")
    assert done.returncode == 1
    assert done.stderr.startswith("error: results/eval/sft.json: not JSON")
