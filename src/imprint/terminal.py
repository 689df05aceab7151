"""A conversation in a terminal, or through a pipe with one question a line."""

import contextlib
import json
import re
import sys
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from imprint.artifacts import read_json, written
from imprint.errors import ArtifactError, StorageError
from imprint.records import Conversation

COMMANDS = {
    "/help": "show this list",
    "/reset": "forget the conversation so far",
    "/save": "write the conversation to a file: /save talk.json",
    "/identity": "show who this model should be, and how well it knows it",
    "/quit": "leave",
}
KEYS = {
    "\\": "at the end of a line: the question goes on in the next",
    '"""': "before and after a question of several lines",
    "Ctrl-C": "stop the answer; twice: leave, as Ctrl-D does",
}
QUOTES = '"""'
PASSED = 0.9
"""Share of right answers from which on a suite counts as passed."""
SAVED = "chat.json"

Note = Callable[[str], None]
"""Takes what the person should know about the answer that comes."""

_COMMAND = re.compile(r"/[a-z]*(\s|$)", re.IGNORECASE)  # a question may begin with a path
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Talk:
    """Asks for a line, streams the answer, and remembers both."""

    def __init__(
        self, stream: Callable[[Conversation, Note], Iterator[str]], *, checkpoint: Path
    ) -> None:
        """Prepare to talk.

        Args:
            stream: Yields the pieces of the answer to a conversation; tells the note what the
                model does not see of it.
            checkpoint: Where the model came from; its evaluation lies in eval/ beside it.
        """
        self.stream = stream
        self.checkpoint = checkpoint
        self.messages: Conversation = []
        self.saved: set[Path] = set()
        """Files that this talk has written, and may write again."""
        self.console = Console(highlight=False)
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()

    def run(self) -> None:
        """Talk until /quit, Ctrl-D or the end of the pipe."""
        if not self.interactive:
            for line in sys.stdin:
                if not self.hear(line):
                    return
            return
        with contextlib.suppress(ImportError):
            import readline  # editing and history for input()

            if "libedit" not in (readline.__doc__ or ""):  # pasted lines are one question
                readline.parse_and_bind("set enable-bracketed-paste on")
        self._greet()
        interrupted = False
        while True:
            try:
                words = self._asked()
                interrupted = False
                if not self.hear(words):
                    return
            except EOFError:
                self.console.print()
                return
            except KeyboardInterrupt:
                self.console.print("" if interrupted else "\n[dim]Once more to leave.[/]")
                if interrupted:
                    return
                interrupted = True

    def hear(self, words: str) -> bool:
        """Obey a command or answer a question; return whether to go on."""
        words = words.encode(errors="replace").decode().strip()  # what was no UTF-8 becomes ?
        if _COMMAND.match(words):
            return self._obey(*words.split(maxsplit=1))
        if words:
            self._answer(words)
        return True

    def _asked(self) -> str:
        """Return the next question, of one or several lines."""
        line = input(self._prompt("> ", gap="\n"))
        if line.lstrip().startswith(QUOTES):
            lines = [line.lstrip().removeprefix(QUOTES)]
            while not lines[-1].rstrip().endswith(QUOTES):
                lines.append(input(self._prompt("| ")))
            return "\n".join(lines).rstrip().removesuffix(QUOTES)
        lines = [line]
        while lines[-1].endswith("\\"):
            lines[-1] = lines[-1][:-1]
            lines.append(input(self._prompt("| ")))
        return "\n".join(lines)

    def _prompt(self, mark: str, gap: str = "") -> str:
        if self.console.color_system is None or self.console.no_color:
            return gap + mark
        return f"{gap}\001\033[1;36m\002{mark}\001\033[0m\002"  # readline counts no colours

    def _greet(self) -> None:
        about = Text("/help lists the commands.", style="dim")
        name = str(self.checkpoint)
        with contextlib.suppress(ArtifactError, KeyError, TypeError):
            found = self._evaluation()
            name = found["about"]["name"]
            right = f"{_percent(found['identity']['accuracy'])} of {found['n']} questions"
            about = Text(f"{self.checkpoint} got {right} about itself right.\n") + about
        title = Text(name, style="bold cyan")
        self.console.print(Panel(about, title=title, title_align="left", expand=False))

    def _answer(self, words: str) -> None:
        """Stream the answer to ``words``; what came before an interruption is remembered."""
        self.messages.append({"role": "user", "content": words})
        said = ""
        try:
            for piece in self.stream(self.messages, self._aside):
                said += piece
                sys.stdout.write(_harmless(piece) if self.interactive else piece)
                sys.stdout.flush()
        finally:
            sys.stdout.write("\n")
            sys.stdout.flush()
            if said.strip():
                self.messages.append({"role": "assistant", "content": said})
            else:
                self.messages.pop()

    def _obey(self, command: str, rest: str = "") -> bool:
        command = command.lower()
        if command == "/reset":
            self.messages = []
            self._note("Forgotten. A new conversation begins.")
        elif command == "/save":
            self._save(Path(rest.strip() or SAVED))
        elif command == "/identity":
            self._identity()
        elif command == "/help":
            for name, meaning in {**COMMANDS, **KEYS}.items():
                self.console.print(Text(f"  {name:<10}", style="cyan") + Text(meaning))
        elif command != "/quit":
            close = get_close_matches(command, COMMANDS, n=1, cutoff=0.4)
            hint = f"Did you mean {close[0]}? " if close else ""
            self._note(f"There is no {command}. {hint}/help lists what there is.")
        return command != "/quit"

    def _save(self, path: Path) -> None:
        """Write the conversation to ``path``, but over no file that was there before."""
        if not self.messages:
            self._note("Nothing has been said yet.")
            return
        if path.exists() and path not in self.saved:
            self._note(f"{path}: is there already. Name another file: /save talk.json")
            return
        try:
            with written(path) as file:
                json.dump({"messages": self.messages}, file, indent=2, ensure_ascii=False)
                file.write("\n")
        except (StorageError, OSError) as error:
            self._note(str(error))
            return
        self.saved.add(path)
        self._note(f"{len(self.messages)} messages in {path}")

    def _evaluation(self) -> dict[str, Any]:
        found = read_json(self.checkpoint.parent / "eval" / f"{self.checkpoint.stem}.json")
        return dict(found)

    def _identity(self) -> None:
        """Show which suites were passed, and each fact's share of right answers."""
        try:
            found = self._evaluation()
        except ArtifactError as error:
            self._note(str(error))
            return
        about, identity = found["about"], found["identity"]
        self.console.print(Text(f"{about['name']}, created by {about['creator']}", style="bold"))
        share = _percent(identity["accuracy"])
        self.console.print(Text(f"{share} of {found['n']} held-out questions right."))
        for title, scores in (("suite", identity["by_suite"]), ("fact", identity["by_fact"])):
            self.console.print(Text(f"by {title}:", style="dim"))
            for name, score in scores.items():
                passed = score["accuracy"] >= PASSED
                line = Text("  ✓" if passed else "  ✗", style="green" if passed else "red")
                self.console.print(line + Text(f" {_percent(score['accuracy']):>5}  {name}", ""))
        self._note(f"✓ from {PASSED:.0%} right on. Written down in {about['file']}.")

    def _aside(self, text: str) -> None:
        """Tell the person, but nobody who reads the answers through a pipe."""
        if self.interactive:
            self._note(text)
        else:
            sys.stderr.write(f"{text}\n")

    def _note(self, text: str) -> None:
        self.console.print(Text(text, style="dim"), soft_wrap=True)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _harmless(text: str) -> str:
    r"""Return ``text`` without what a terminal would take for a command.

    Example:
        >>> _harmless("a\x1b[2Jb\n")
        'a\ufffd[2Jb\n'
    """
    return _CONTROL.sub("\ufffd", text)
