"""What a person sees of a run."""

import io
import logging
from pathlib import Path

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.settings import OutputSettingsLoggerInterface

from snakemake_logger_plugin_imprint import LogHandler, said


class Settings(OutputSettingsLoggerInterface):
    printshellcmds = False
    nocolor = False
    quiet = None
    debug_dag = False
    verbose = False
    show_failed_logs = True
    stdout = False
    dryrun = False


@pytest.fixture
def handler() -> LogHandler:
    handler = LogHandler(Settings(), None)
    handler.stream = io.StringIO()
    return handler


def shown(handler: LogHandler) -> list[str]:
    assert isinstance(handler.stream, io.StringIO)
    return handler.stream.getvalue().splitlines()


def send(
    handler: LogHandler,
    event: LogEvent | None,
    level: int = logging.INFO,
    msg: str = "",
    **more: object,
) -> None:
    record = logging.LogRecord("snakemake", level, __file__, 1, msg, (), None)
    record.__dict__.update(event=event, **more)
    handler.handle(record)


def begin(handler: LogHandler, jobid: int, message: str | None, rule: str = "sft") -> None:
    send(handler, LogEvent.JOB_INFO, jobid=jobid, rule_msg=message, rule_name=rule, reason="why")


def test_a_job_is_a_line_at_start_and_one_at_the_end(handler: LogHandler) -> None:
    begin(handler, 1, "Fine-tuning")
    send(handler, LogEvent.JOB_FINISHED, job_id=1)
    send(handler, LogEvent.PROGRESS, done=3, total=9)
    assert shown(handler) == ["start  Fine-tuning", "done   Fine-tuning, 0.0 s (3 of 9)"]


def test_jobs_that_end_together_are_counted_one_by_one(handler: LogHandler) -> None:
    for job in (1, 2):
        begin(handler, job, f"Job {job}")
        send(handler, LogEvent.JOB_FINISHED, job_id=job)
    send(handler, LogEvent.PROGRESS, done=5, total=9)
    assert [line[-8:] for line in shown(handler)[2:]] == ["(4 of 9)", "(5 of 9)"]


def test_targets_are_neither_shown_nor_counted(handler: LogHandler) -> None:
    send(handler, LogEvent.RUN_INFO, stats={"sft": 1, "all": 1, "total": 2})
    begin(handler, 1, "Fine-tuning")
    send(handler, LogEvent.JOB_FINISHED, job_id=1)
    send(handler, LogEvent.PROGRESS, done=1, total=2)
    begin(handler, 0, None, rule="all")
    send(handler, LogEvent.JOB_FINISHED, job_id=0)
    send(handler, LogEvent.PROGRESS, done=2, total=2)
    assert shown(handler) == ["start  Fine-tuning", "done   Fine-tuning, 0.0 s (1 of 1)"]


def test_a_failed_job_shows_its_error_once(handler: LogHandler, tmp_path: Path) -> None:
    log = tmp_path / "sft.log"
    log.write_text("12:00:00 step 1\nerror: the disk is full.\nhint: free some space.\n")
    begin(handler, 1, "Fine-tuning")
    send(handler, LogEvent.ERROR, logging.ERROR, "RuleException:\nCalledProcessError in file x")
    send(handler, LogEvent.JOB_ERROR, logging.ERROR, jobid=1, rule_name="sft", log=[str(log)])
    send(handler, None, logging.ERROR, "Exiting because a job execution failed. Look above")
    send(
        handler, LogEvent.ERROR, logging.ERROR, "WorkflowError:\nAt least one job did not complete"
    )
    assert shown(handler)[1:] == [
        "failed Fine-tuning",
        "error: the disk is full.",
        "hint: free some space.",
        f"       The log: {log}",
        "Stopped. Put that right and run the same again: what is done stays.",
    ]


def test_without_an_error_line_the_end_of_the_log_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "sft.log"
    log.write_text("".join(f"line {number}\n" for number in range(50)))
    assert said(log).splitlines() == [
        *(f"line {number}" for number in range(30, 50)),
        f"       The log: {log}",
    ]
    assert "left no log" in said(tmp_path / "missing.log")


def test_other_errors_and_warnings_are_shown_and_chatter_is_not(handler: LogHandler) -> None:
    send(handler, None, logging.ERROR, "LockException: Directory cannot be locked.")
    send(handler, None, logging.WARNING, "A warning.")
    send(handler, None, logging.INFO, "Building DAG of jobs...")
    send(handler, None, logging.INFO, "Nothing to be done (all requested files are present).")
    send(handler, LogEvent.RUN_INFO, logging.INFO, "Job stats", stats={"total": 3})
    assert shown(handler) == [
        "LockException: Directory cannot be locked.",
        "A warning.",
        "Nothing to be done (all requested files are present).",
    ]


def test_a_dry_run_says_what_would_run_and_why(handler: LogHandler) -> None:
    handler.common_settings.dryrun = True
    begin(handler, 1, "Fine-tuning")
    assert shown(handler) == ["would  Fine-tuning", "       sft: why"]
    handler.common_settings.dryrun = False


def test_a_job_that_never_began_elsewhere_says_why(handler: LogHandler, tmp_path: Path) -> None:
    begin(handler, 1, "Pretraining")
    why = "Modal: Token missing. Run `modal setup` once."
    told = f"{why} For further error details see the cluster/cloud log and the log files of the"
    log = [str(tmp_path / "base.log")]
    send(handler, LogEvent.JOB_ERROR, jobid=1, rule_name="base", rule_msg=told, log=log)
    assert shown(handler) == ["start  Pretraining", "failed Pretraining", f"error: {why}"]
