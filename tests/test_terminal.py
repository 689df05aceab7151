"""The chat in a real terminal: a pty, keys pressed one by one, Ctrl-C and all."""

import json
import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imprint.engine import Engine
from imprint.terminal import Talk, _harmless
from waiting import eventually

SLOW = """
import json, sys, time
from pathlib import Path
from imprint.terminal import Talk

def stream(messages, note):
    if len(messages) > 4:
        note("It forgot.")
    if messages[-1]["content"] == "forever":
        yield "on and"
        while True:
            time.sleep(0.01)
            yield " on"
    yield f"heard {json.dumps([turn['content'] for turn in messages])}"

Talk(stream, checkpoint=Path(sys.argv[1])).run()
"""
"""A talk with a model that repeats what it was told, or goes on for ever."""
UP, LEFT, CTRL_C, CTRL_D = "\x1b[A", "\x1b[D", "\x03", "\x04"


class Terminal:
    """A process in a terminal of its own, as a person has it."""

    def __init__(self, *command: str, cwd: Path, colours: bool = False) -> None:
        self.ours, theirs = pty.openpty()
        # opened by the leader of a session, it becomes its terminal, so that Ctrl-C is a signal
        shell = ["sh", "-c", f'exec 0<>{os.ttyname(theirs)} 1>&0 2>&0; exec "$@"', "sh"]
        plain = {} if colours else {"NO_COLOR": "1"}
        self.process = subprocess.Popen(
            [*shell, *command],
            cwd=cwd,
            start_new_session=True,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "OMP_NUM_THREADS": "1", **plain},
        )
        os.close(theirs)
        self.seen, self.place = "", 0

    def until(self, wanted: str) -> str:
        """Read until ``wanted`` comes, after what was waited for before; return what came."""
        while (found := self.seen.find(wanted, self.place)) < 0:
            assert self._read(), f"it ended; so far: {self.seen!r}"
        start, self.place = self.place, found + len(wanted)
        return self.seen[start : self.place]

    def _read(self) -> bool:
        assert select.select([self.ours], [], [], 60)[0], f"silent; so far: {self.seen!r}"
        try:
            more = os.read(self.ours, 4096)
        except OSError:  # what Linux says when the other side is closed
            return False
        self.seen += more.decode(errors="replace")
        return bool(more)

    def type(self, keys: str) -> None:
        os.write(self.ours, keys.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C as a person does: when the process sleeps, waiting for keys.

        Python's input() shows its prompt, and echoes a key, just before it waits for the next; a
        signal between the two is only seen at the key after it.
        """
        stat = Path("/proc", str(self.process.pid), "stat")
        eventually("it sleeps", lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "S")
        self.type(CTRL_C)

    def ask(self, line: str) -> str:
        """Type a line at the prompt and return what is shown until the next prompt."""
        self.type(f"{line}\r")
        return self.until("\n> ")

    def leaves(self) -> str:
        """Return what is still shown until the process has ended, and well."""
        while self._read():
            pass
        assert self.process.wait(timeout=20) == 0, self.seen
        return self.seen[self.place :]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    """Open terminals, and close them at the end."""
    terminals = []

    def start(*command: str, **more: Any) -> Terminal:
        wanted = command or (sys.executable, "-c", SLOW, "sft.pt")
        terminals.append(Terminal(*wanted, **{"cwd": tmp_path, **more}))
        return terminals[-1]

    yield start
    for terminal in terminals:
        terminal.process.kill()
        terminal.process.wait()
        os.close(terminal.ours)


@pytest.fixture
def talk(opened: Callable[..., Terminal]) -> Terminal:
    terminal = opened()
    terminal.until("/help lists the commands")
    terminal.until("\n> ")
    return terminal


def test_what_was_said_before_is_remembered_until_reset(talk: Terminal) -> None:
    assert 'heard ["Hi"]' in talk.ask("Hi")
    assert r'heard ["Hi", "heard [\"Hi\"]", "Who?"]' in talk.ask("Who?")
    assert "A new conversation begins." in talk.ask("/reset")
    assert 'heard ["Who?"]' in talk.ask("Who?")


def test_the_arrows_bring_back_and_edit_what_was_typed(talk: Terminal) -> None:
    talk.ask("Who are you")
    talk.ask("/reset")
    assert 'heard ["Who are yo?u"]' in talk.ask(f"{UP}{UP}{LEFT}?")


def test_a_backslash_and_three_quotes_make_questions_of_several_lines(talk: Terminal) -> None:
    talk.type("one\\\r")
    talk.until("| ")
    assert r'heard ["one\ntwo"]' in talk.ask("two")
    talk.ask("/reset")
    talk.type('"""def f():\r')
    talk.until("| ")
    talk.type("    return 1\r")
    talk.until("| ")
    assert r'heard ["def f():\n    return 1"]' in talk.ask('"""')
    talk.ask("/reset")
    assert 'heard ["one line"]' in talk.ask('"""one line"""')


def test_lines_that_are_pasted_are_one_question(talk: Terminal) -> None:
    assert "\x1b[?2004h" in talk.seen, "it asks the terminal to mark what is pasted"
    talk.type("\x1b[200~one\rtwo\r\x1b[201~")
    talk.until("two")
    assert r'heard ["one\ntwo"]' in talk.ask("")


def test_what_no_longer_fits_is_told_before_the_answer(talk: Terminal) -> None:
    for question in ("one", "two"):
        assert "It forgot." not in talk.ask(question)
    assert re.search(r"\x1b\[2mIt forgot\.\x1b\[0m\s+heard", talk.ask("three"))


def test_ctrl_c_stops_the_answer_and_what_was_said_is_remembered(talk: Terminal) -> None:
    talk.type("forever\r")
    talk.until("on and on")
    talk.type(CTRL_C)
    assert "Once more to leave." in talk.until("\n> ")
    assert re.search(r'heard \["forever", "on and( on)+", "Hi"\]', talk.ask("Hi"))


def test_ctrl_c_twice_leaves_but_not_with_a_question_between(talk: Terminal) -> None:
    talk.type("half a quest")
    talk.until("half a quest")
    talk.interrupt()
    talk.until("Once more to leave.")
    talk.until("\n> ")
    assert 'heard ["Hi"]' in talk.ask("Hi")
    talk.interrupt()
    talk.until("\n> ")
    talk.interrupt()
    assert "Traceback" not in talk.leaves()


@pytest.mark.parametrize("keys", [CTRL_D, "/quit\r", "/QUIT\r"])
def test_leaving_is_easy(talk: Terminal, keys: str) -> None:
    talk.type(keys)
    assert "Traceback" not in talk.leaves()


def test_an_unknown_command_suggests_one_that_exists(talk: Terminal) -> None:
    assert "There is no /rest. Did you mean /reset? /help lists" in talk.ask("/rest")
    assert "There is no /xyzzy. /help lists what there is." in talk.ask("/xyzzy")
    assert 'heard ["/etc/passwd is what?"]' in talk.ask("/etc/passwd is what?")


def test_save_writes_the_conversation_but_over_no_other_file(
    talk: Terminal, tmp_path: Path
) -> None:
    assert "Nothing has been said yet." in talk.ask("/save")
    talk.ask("Grüße")
    assert "2 messages in chat.json" in talk.ask("/save")
    talk.ask("Who?")
    assert "4 messages in chat.json" in talk.ask("/save")
    found = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert [turn["role"] for turn in found["messages"]] == ["user", "assistant"] * 2
    assert found["messages"][0]["content"] == "Grüße"
    (tmp_path / "my file").write_text("precious")
    assert "my file: is there already" in talk.ask("/save my file")
    assert (tmp_path / "my file").read_text() == "precious"
    assert "a file stands where a folder should be" in talk.ask("/save my file/talk.json")


def evaluation(tmp_path: Path) -> None:
    suites = {"reverse": {"accuracy": 0.925}, "typos": {"accuracy": 0.5}}
    told = {
        "n": 80,
        "identity": {"accuracy": 0.71, "by_suite": suites, "by_fact": {"name": {"accuracy": 1.0}}},
        "about": {"name": "Ada", "creator": "Bo", "file": "ada.yaml"},
    }
    (tmp_path / "eval").mkdir()
    (tmp_path / "eval" / "sft.json").write_text(json.dumps(told))


def test_it_says_who_it_should_be_and_what_it_passed(
    opened: Callable[..., Terminal], tmp_path: Path
) -> None:
    evaluation(tmp_path)
    terminal = opened(colours=True)
    greeting = terminal.until("/help")
    assert "Ada" in greeting and "71 % of 80 questions about itself right" in greeting
    terminal.until("> ")
    terminal.type("/identity\r")
    said = re.sub(r"\x1b\[[\d;]*m", "", terminal.until("ada.yaml"))
    assert "Ada, created by Bo" in said
    assert re.search(r"✓ +92 % +reverse", said) and re.search(r"✗ +50 % +typos", said)
    assert re.search(r"✓ +100 % +name", said)


def test_an_answer_can_do_nothing_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    chat = Talk(lambda *_: iter(["a\x1b]0;owned\x07", "\x9b2J\r\nb\tc é🙂"]), checkpoint=tmp_path)
    chat.interactive = True
    assert chat.hear("Hi")
    assert capsys.readouterr().out == "a\ufffd]0;owned\ufffd\ufffd2J\ufffd\nb\tc é🙂\n"


def imprint(folder: Path, *arguments: str, keys: str = "") -> subprocess.CompletedProcess[str]:
    program = "from imprint.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        input=keys,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_one_prompt_prints_one_answer(results: Path, engine: Engine) -> None:
    [wanted] = engine.answer([[{"role": "user", "content": "Who are you?"}]], max_tokens=12)
    done = imprint(results.parent, "chat", "-p", "Who are you?", "--max-tokens", "12")
    assert (done.returncode, done.stdout, done.stderr) == (0, wanted + "\n", "")
    done = imprint(results.parent, "chat", "-p", " ")
    assert (done.returncode, done.stderr[:30]) == (1, "error: the question is empty. ")


def test_a_question_that_does_not_fit_is_told(results: Path, tmp_path: Path) -> None:
    cut = "This question is too long: the model saw only its end.\n"
    long, short = "And who made you?" * 40, "Hi"
    told = imprint(results.parent, "ask", long, "--max-tokens", "4")
    assert (told.returncode, told.stderr) == (0, cut)
    same = imprint(results.parent, "chat", "-p", long, "--max-tokens", "4")
    assert (same.returncode, same.stdout, same.stderr) == (0, told.stdout, cut)
    piped = imprint(results.parent, "chat", "--max-tokens", "4", keys=f"{long}\n")
    assert (piped.returncode, piped.stdout, piped.stderr) == (0, told.stdout, cut)
    questions = tmp_path / "Q.jsonl"
    lines = [{"messages": [{"role": "user", "content": one}]} for one in (short, long)]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    many = imprint(results.parent, "ask", "--questions", str(questions), "--max-tokens", "4")
    assert many.stderr.startswith(f"{questions}: 1 of 2 conversations did not fit: the model saw")


def test_the_command_talks_in_a_terminal(
    opened: Callable[..., Terminal], results: Path, engine: Engine
) -> None:
    program = "from imprint.cli import main; main()"
    command = (sys.executable, "-c", program, "chat", "--max-tokens", "8")
    terminal = opened(*command, cwd=results.parent)
    terminal.until("\n> ")
    [wanted] = engine.answer([[{"role": "user", "content": "Who made you?"}]], max_tokens=8)
    assert _harmless(wanted) in terminal.ask("Who made you?").replace("\r\n", "\n")
    terminal.type(CTRL_D)
    terminal.leaves()
