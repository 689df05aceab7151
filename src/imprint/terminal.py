"""A conversation in a terminal, or through a pipe with one question a line."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.text import Text

from imprint.artifacts import read_json
from imprint.errors import ArtifactError
from imprint.records import Conversation

COMMANDS = {
    "/help": "show this list",
    "/reset": "forget the conversation so far",
    "/identity": "show what this model was taught about itself, and how well it knows it",
    "/quit": "leave; Ctrl-D does it too",
}


class Talk:
    """Asks for a line, streams the answer, and remembers both."""

    def __init__(
        self, stream: Callable[[Conversation], Iterator[str]], *, checkpoint: Path
    ) -> None:
        """Prepare to talk.

        Args:
            stream: Yields the pieces of the answer to a conversation.
            checkpoint: Where the model came from; its evaluation lies in eval/ beside it.
        """
        self.stream = stream
        self.checkpoint = checkpoint
        self.messages: Conversation = []
        self.console = Console(highlight=False)
        self.interactive = sys.stdin.isatty() and sys.stdout.isatty()

    def run(self) -> None:
        """Talk until /quit, Ctrl-D or the end of the pipe."""
        if self.interactive:
            with contextlib.suppress(ImportError):
                import readline  # noqa: F401  (editing and history for input())
            self.console.print(f"[dim]{self.checkpoint} is listening. /help lists the commands.[/]")
        for line in self._lines():
            words = line.encode(errors="replace").decode().strip()  # what was no UTF-8 becomes ?
            if words == "/quit":
                break
            if words.startswith("/"):
                self._obey(words)
            elif words:
                self._answer(words)

    def _lines(self) -> Iterator[str]:
        if not self.interactive:
            yield from sys.stdin
            return
        prompt = "\n> " if self.console.no_color else "\n\001\033[1;36m\002> \001\033[0m\002"
        while True:
            try:
                yield input(prompt)
            except (EOFError, KeyboardInterrupt):
                self.console.print()
                return

    def _answer(self, words: str) -> None:
        self.messages.append({"role": "user", "content": words})
        said = ""
        with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C cuts the answer short
            for piece in self.stream(self.messages):
                said += piece
                sys.stdout.write(piece)
                sys.stdout.flush()
        sys.stdout.write("\n")
        sys.stdout.flush()
        if said.strip():
            self.messages.append({"role": "assistant", "content": said})
        else:
            self.messages.pop()

    def _obey(self, command: str) -> None:
        if command == "/reset":
            self.messages = []
            self.console.print("[dim]Forgotten. A new conversation begins.[/]")
        elif command == "/identity":
            self._identity()
        else:
            if command != "/help":
                self.console.print(Text(f"There is no {command}. These there are:", style="dim"))
            for name, meaning in COMMANDS.items():
                self.console.print(Text(f"  {name:<10}", style="cyan") + Text(meaning))

    def _identity(self) -> None:
        """Show each fact's share of right answers, from the evaluation beside the checkpoint."""
        path = self.checkpoint.parent / "eval" / f"{self.checkpoint.stem}.json"
        try:
            found = read_json(path)
        except ArtifactError as error:
            self.console.print(Text(str(error), style="dim"))
            return
        about, identity = found["about"], found["identity"]
        share = f"{100 * identity['accuracy']:.0f} %"
        self.console.print(Text(f"{about['name']}, created by {about['creator']}", style="bold"))
        self.console.print(Text(f"{share} of {found['n']} held-out questions right, by fact:"))
        for fact, scores in identity["by_fact"].items():
            self.console.print(Text(f"  {100 * scores['accuracy']:3.0f} %  {fact}"))
        self.console.print(Text(f"written down in {about['file']}", style="dim"))
