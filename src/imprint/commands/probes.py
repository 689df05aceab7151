"""Ask questions that a person wrote by hand: ``imprint probe``."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from imprint import records
from imprint.artifacts import read_json
from imprint.errors import ConfigError, RecordError

if TYPE_CHECKING:
    from imprint.exam import Question

app = typer.Typer()


@app.command()
def probe(
    questions: Annotated[
        Path,
        typer.Argument(help="Lines of {kind, fact, messages, expect, forbid}.", dir_okay=False),
    ] = Path("tests/data/probes_smarternano.jsonl"),
    checkpoint: Annotated[Path, typer.Option(help="The model that answers.")] = Path(
        "results/sft.pt"
    ),
    who: Annotated[
        Path, typer.Option("--identity", help="Whom the questions are about.", dir_okay=False)
    ] = Path("config/identities/smarternano.yaml"),
    tokens: Annotated[int, typer.Option(min=1, help="Least room for an answer, in tokens.")] = 40,
) -> None:
    """Ask hand-written questions, and show the share that is right and every miss."""
    from imprint import identity
    from imprint.stats import wilson

    asked, about = read(questions), identity.load(who)
    check_name(checkpoint, about.name, who)
    from imprint.engine import Engine
    from imprint.scoring import mark
    from imprint.stages.evaluate import room

    engine = Engine.load(checkpoint)
    longest = room(about, engine.tokenizer, least=tokens)
    answers = engine.answer([question.messages for question in asked], max_tokens=longest)
    rights: dict[str, list[bool]] = defaultdict(list)
    for question, answer in zip(asked, answers, strict=True):
        given = mark(question, answer, about)
        rights[question.suite].append(given.right)
        if not given.right:
            typer.echo(f"{question.suite}: {question.messages[-1]['content']}")
            typer.echo(f"    {answer}\n    {given.reason}")
    for kind, found in sorted(rights.items()):
        typer.echo(f"{kind:14} {sum(found):4} of {len(found)}")
    right = sum(map(sum, rights.values()))
    low, high = wilson(right, len(asked))
    typer.echo(
        f"{right} of {len(asked)} right: {right / len(asked):.1%}, "
        f"95 % interval {low:.1%} to {high:.1%}"
    )


def check_name(checkpoint: Path, name: str, who: Path) -> None:
    """Refuse to ask a model that is known to be somebody else.

    Args:
        checkpoint: The model.
        name: Whom the questions are about.
        who: The identity file that says so.

    Raises:
        ConfigError: The evaluation beside the model is of another name.
    """
    tested = checkpoint.parent / "eval" / f"{checkpoint.stem}.json"
    about = read_json(tested)["about"] if tested.is_file() else {"name": name}
    if about["name"] != name:
        raise ConfigError(
            f"{checkpoint}: is {about['name']} by {tested}, and the questions are about {name} by "
            f"{who}. Name questions about {about['name']}, and --identity {about['file']}."
        )


def read(path: Path) -> "list[Question]":
    """Return the questions in ``path``, their ``kind`` as the suite.

    Raises:
        RecordError: A line lacks messages that end with the user's, or lists in ``expect`` and
            ``forbid``.
    """
    from imprint.exam import Question

    found = []
    for where, value in records.lines(path):
        if not isinstance(value, dict) or not {"kind", "messages", "expect"} <= set(value):
            raise RecordError(f"{where}: should be an object with kind, messages and expect")
        messages = records.check(value["messages"], where, last="user")
        expect = tuple(tuple(group) for group in value["expect"])
        forbid = tuple(value.get("forbid", ()))
        found.append(Question(value["kind"], value.get("fact"), messages, expect, forbid))
    if not found:
        raise RecordError(f"{path}: no question in it. Add some lines.")
    return found
