import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from generation.kit import Fake, good, money, query, rows, run
from imprint.errors import StorageError
from imprint.generation.journal import Journal
from imprint.providers import Reply


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A journal of 30 answers that cost a hundredth of a cent each."""
    path = tmp_path / "journal" / "journal.sqlite"
    run(Fake(), rows(30), path)
    return path


def aside(book: Path) -> list[Path]:
    return sorted(
        path for path in book.parent.glob("journal.*.sqlite") if path.name != "journal.sqlite"
    )


def test_an_answer_comes_back_as_it_was(tmp_path: Path) -> None:
    reply = Reply(
        [{"role": "user", "content": 'He said "\u00e9\U0001f600"\n\x00'}],
        "m-1",
        usage={"input": 3, "output": 4, "cached": 1},
        cost_usd=0.1 + 0.2,
        flaw="odd",
    )
    request = Fake().request(rows(1)[0])
    with Journal(tmp_path / "j.sqlite") as journal, journal.transaction():
        journal.keep(request, reply, cost_usd=0.1 + 0.2, seconds=1.5)
    with Journal(tmp_path / "j.sqlite") as journal:
        kept = journal.find(request.key)
    assert kept and (kept.reply, kept.cost_usd) == (reply, 0.1 + 0.2)


def test_a_transaction_happens_wholly_or_not_at_all(book: Path) -> None:
    with Journal(book) as journal:
        with pytest.raises(KeyError), journal.transaction():
            journal.reserve("a", most_usd=1.0, budget_usd=5)
            journal.note("color", "red")
            raise KeyError
        assert journal.noted("color") is None
        with journal.transaction():
            assert journal.money.flying == 0


def test_closing_leaves_no_lock_and_no_flight(book: Path) -> None:
    with Journal(book) as journal, journal.transaction():
        journal.reserve("a", most_usd=1.0, budget_usd=5)
    assert money(book)["lost_usd"] == 1.0
    assert sorted(path.name for path in book.parent.iterdir()) == ["journal.sqlite", "opening.lock"]


@pytest.mark.parametrize(
    ("damage", "saved"),
    [
        (lambda data: b"\x07garbage" * 999, 0),
        (lambda data: data[: len(data) // 2], range(31)),
        (lambda data: data[:20000] + b"\xff" * 3000 + data[23000:], range(31)),
        (lambda data: data[:60] + (77).to_bytes(4, "big") + data[64:], 30),  # user_version
    ],
    ids=["garbage", "cut", "holes", "another version"],
)
def test_a_damaged_journal_is_kept_aside_and_what_can_be_read_is_taken_over(
    book: Path, caplog: pytest.LogCaptureFixture, damage: object, saved: int | range
) -> None:
    damaged = damage(book.read_bytes())  # type: ignore[operator]
    book.write_bytes(damaged)
    with Journal(book) as journal:
        found = query(book, "SELECT count(*) FROM answers")[0][0]
        assert found in ([saved] if isinstance(saved, int) else saved)
        assert journal.money.answers == found
        assert journal.money.spent_usd == pytest.approx(0.0001 * found)
    (kept,) = aside(book)
    assert kept.read_bytes() == damaged
    assert f"warning: {book}: damaged or not readable here (" in caplog.text
    assert f"It is kept as {kept}; {found} of its answers are taken over" in caplog.text
    again = Fake()
    run(again, rows(30), book)
    assert len(again.asked) == 30 - found


def test_a_journal_that_is_damaged_again_is_kept_beside_the_first(book: Path) -> None:
    for number in range(3):
        book.write_bytes(f"garbage {number}".encode() * 50)
        Journal(book).close()
    assert len({path.read_bytes() for path in aside(book)}) == 3


def test_what_another_versions_journal_had_not_got_back_counts_as_spent(book: Path) -> None:
    with Journal(book) as journal, journal.transaction():
        journal.reserve("a", most_usd=0.5, budget_usd=5)
        journal.reserve("b", most_usd=0.25, budget_usd=5)
        journal.lose("b", "cut off")
        journal.db.execute("PRAGMA user_version = 77")
    with Journal(book) as journal:
        assert journal.money.spent_usd == pytest.approx(0.003 + 0.75)


def test_a_journal_left_by_a_kill_is_kept_aside_with_its_log(book: Path) -> None:
    """The newest answers may be in SQLite's log only; nothing tidies it up on the way."""
    with Journal(book) as journal:
        run(Fake(), rows(40, start=30), book)
        with journal.transaction():
            journal.db.execute("PRAGMA user_version = 77")
        folder = book.parent.parent / "copy"  # as the files lie when a process is killed now
        shutil.copytree(book.parent, folder)
    copy = folder / book.name
    before = {end: copy.with_name(copy.name + end).read_bytes() for end in ("", "-wal")}
    assert before["-wal"]
    with Journal(copy) as journal:
        assert journal.money.answers == 70
    (kept,) = aside(copy)
    assert {end: kept.with_name(kept.name + end).read_bytes() for end in before} == before


def test_another_programs_database_is_kept_aside(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE recipes (name)")
    db.close()
    Journal(path).close()
    assert query(aside(path)[0], "SELECT * FROM recipes") == []


def test_processes_that_open_a_damaged_journal_at_once_move_it_aside_once(book: Path) -> None:
    book.write_bytes(b"garbage" * 1000)
    code = (
        "import sys, time; from pathlib import Path; from imprint.generation.journal import Journal"
        "\nbook = Path(sys.argv[1]); (book.parent / f'ready{sys.argv[2]}').touch()"
        "\nwhile len(list(book.parent.glob('ready*'))) < 3: time.sleep(0.001)"
        "\nJournal(book).close()"
    )
    command = [sys.executable, "-c", code, str(book)]
    processes = [subprocess.Popen([*command, str(number)]) for number in range(3)]
    assert [process.wait(20) for process in processes] == [0, 0, 0]
    assert [path.read_bytes() for path in aside(book)] == [b"garbage" * 1000]


def test_a_worker_that_lives_on_with_the_old_journal_does_not_block_a_new_one(book: Path) -> None:
    with Journal(book) as living:
        living.db.execute("PRAGMA user_version = 77")
        with Journal(book) as journal:
            assert journal.worker != living.worker


@pytest.fixture
def locked() -> Iterator[Path]:
    """A folder that only its owner may write, under no folder that others cannot enter."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("known", [False, True])
def test_a_folder_that_may_not_be_written_is_a_clear_error(locked: Path, known: bool) -> None:
    path = locked / "journal.sqlite"
    if known:
        Journal(path).close()
    locked.chmod(0o555)
    path.touch()
    path.chmod(0o444)
    before = path.read_bytes()
    child = os.fork()
    if child == 0:  # root may write everywhere, so somebody else tries
        status = 1
        try:
            if os.geteuid() == 0:
                os.seteuid(65534)
            Journal(path)
        except StorageError as error:
            status = 0 if str(locked) in str(error) and "writ" in str(error) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert path.read_bytes() == before


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "journal").write_text("in the way")
    with pytest.raises(StorageError, match="a file stands where a folder should be"):
        Journal(tmp_path / "journal" / "journal.sqlite")


def test_experience_is_an_average_over_answers_whatever_identity_they_are_about(
    tmp_path: Path,
) -> None:
    with Journal(tmp_path / "j.sqlite") as journal:
        assert journal.experience("fake", "fake-1") is None
        for name in ("one", "other"):
            for row in rows(10):
                for ask in (1, 2):
                    request = Fake().request(row, ask)
                    request.__dict__["key"] = f"{name} {row.index} {ask}"
                    with journal.transaction():
                        reply = good(usage={"input": 5, "output": 80 * ask})
                        journal.keep(request, reply, cost_usd=0.0, seconds=3.0)
        found = journal.experience("fake", "fake-1")
    assert found and (found.asks, found.output, found.seconds) == (2, 120, 3)
