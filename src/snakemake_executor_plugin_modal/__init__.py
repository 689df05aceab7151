"""A Snakemake executor for Modal: rules with a gpu resource run there, all others here.

Each job is a call of a function that is deployed once. The working directory has a copy on a Modal
Volume, which this plugin fills and reads; so paths are plain, and Snakemake's records are those of
a local run.
"""

import asyncio
import contextlib
import fnmatch
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import (  # type: ignore[import-untyped]
    SubmittedJobInfo,
)
from snakemake_interface_executor_plugins.executors.real import (  # type: ignore[import-untyped]
    RealExecutor,
)
from snakemake_interface_executor_plugins.executors.remote import (  # type: ignore[import-untyped]
    RemoteExecutor,
)
from snakemake_interface_executor_plugins.settings import (  # type: ignore[import-untyped]
    CommonSettings,
)

from . import files, hardware, image, money
from .settings import VOLUME, ExecutorSettings, environment, prefix, python

__all__ = ["Executor", "ExecutorSettings", "common_settings"]

STATE = Path(".snakemake/modal")
LOGS = Path(".snakemake/log/modal")

common_settings = CommonSettings(
    non_local_exec=True,
    implies_no_shared_fs=True,
    job_deploy_sources=False,
    pass_envvar_declarations_to_cmd=False,  # they travel as a Modal secret
    auto_deploy_default_storage_provider=False,
    pass_group_args=True,
    can_transfer_local_files=True,
)


class Executor(RemoteExecutor):  # type: ignore[misc]
    """Hands jobs to ``call.Life``, and tells Snakemake what became of them."""

    # Snakemake starts the thread that looks at jobs before __post_init__.
    _loop: asyncio.AbstractEventLoop | None = None
    _news: asyncio.Event | None = None

    def __post_init__(self) -> None:
        """Check all that can be checked before anything is sent or paid for.

        Raises:
            WorkflowError: A setting or a job's resources are not possible.
        """
        self.settings: ExecutorSettings = self.executor_settings or ExecutorSettings()
        python(self.settings.python)
        self.prefix = prefix(self.settings.prefix)
        self.env = environment(self.settings.env)
        chosen = self.settings.requirements
        usual = Path("requirements.txt")
        self.requirements = Path(chosen) if chosen else usual if usual.is_file() else None
        image.checked(self.requirements)
        told = self.settings.extra_files
        self.extras = [files.inside(path, "Of modal-extra-files one") for path in told]
        self._stay_local()
        self.budget = money.Budget(self.settings.max_usd)
        self._check_jobs()
        self._site: Any = None
        self._stopping = False
        self._tasks: set[asyncio.Task[None]] = set()

    def run_job(self, job: Any) -> None:
        """Submit ``job``; what it needs is looked up here, all else is done beside."""
        info = SubmittedJobInfo(job, aux={})
        try:
            asked, most = self._asked(job)
            order = files.order(job, self.workflow, self.format_job_exec(job), asked, most)
            order.secrets = dict(self.envvars())
        except (WorkflowError, OSError) as error:
            self.report_job_error(info, msg=f"{error} ")
            return
        info.aux = {"order": order}
        self.report_job_submission(info)
        if self._loop is not None and self._news is not None:
            self._loop.call_soon_threadsafe(self._news.set)

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncIterator[SubmittedJobInfo]:
        """Start the lives of new jobs, and report those that are over."""
        if self._news is None:
            self._news, self._loop = asyncio.Event(), asyncio.get_running_loop()
        news = self._news
        news.clear()
        for info in active_jobs:
            assert info.aux is not None
            if "task" not in info.aux:
                info.aux["task"] = asyncio.create_task(self._live(info))
                info.aux["task"].add_done_callback(lambda _: news.set())
                self._tasks.add(info.aux["task"])
            task = info.aux["task"]
            if self._stopping or not task.done():
                yield info
                continue
            self._tasks.discard(task)
            if (error := task.exception()) is None:
                self.report_job_success(info)
            else:
                log = info.aux.get("log")
                told = str(error) if isinstance(error, WorkflowError) else repr(error)
                self.report_job_error(info, msg=f"{told} ", aux_logs=[log] if log else [])

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """End the calls of this run, or leave them with the setting ``detach``."""
        self._stopping = True
        if self._loop is not None and self._site is not None:
            stopped = asyncio.run_coroutine_threadsafe(self._stop(), self._loop)
            stopped.result()

    async def sleep(self) -> None:
        """Wait for news of a job; not long, since nobody tells that Snakemake wants to end."""
        assert self._news is not None  # one looks first, then sleeps
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), 0.2)

    def get_job_args(self, job: Any) -> str:
        """Return the job's part of its command; in its container it has the cores it asked for.

        To count jobs a second, Snakemake ends no earlier than a second after the last one began.
        For a single job it need not: 1.1 instead of 2.2 s for one that does nothing. (In a group,
        jobs wait for cores, and Snakemake would look without a pause whether one is free.)
        """
        at_once = "" if job.is_group() else " --max-jobs-per-timespan 1/0s"
        return str(RealExecutor.get_job_args(self, job, cores=job.threads)) + at_once

    def additional_general_args(self) -> str:
        """Return what else the Snakemake in the container is told: where it is, to say little.

        And not to follow a rule's own `retries:`: those are counted here, where the next attempt
        can ask for more memory.
        """
        quiet = "--directory . --quiet progress rules host reason"
        return f"{quiet} --preemptible-retries 0 --preemptible-rules"  # of all rules

    async def _live(self, info: SubmittedJobInfo) -> None:
        from .call import Life

        assert info.aux is not None
        if self._site is None:
            self._site = self._open()
        life = Life(info.aux["order"], self._site)
        try:
            await life.run()
        finally:
            if life.call is not None and life.log is not None:
                info.external_jobid = life.call.object_id
                info.aux["log"] = str(life.log.path)

    async def _stop(self) -> None:
        from .call import quietly_cancel, stop_all

        await stop_all(self._site, detach=self.settings.detach)
        for task in list(self._tasks):
            await quietly_cancel(task)

    def _open(self) -> Any:
        """Return what the jobs of this run share; only now Modal's client is loaded."""
        import modal

        from .ledger import Ledger
        from .site import Site
        from .text import say
        from .volume import Folder

        told = self.settings
        name, where = told.volume or VOLUME, told.environment
        volume = modal.Volume.from_name(
            name, environment_name=where, create_if_missing=True, version=2
        )
        place = image.Place(
            app=told.app or f"snakemake-{self.prefix}",
            environment=where,
            volume=name,
            prefix=self.prefix,
            requirements=self.requirements,
            packages=tuple(told.packages),
        )
        sources, held = files.sources(self.workflow)
        if held:
            say(f"held back, since they look like keys: {', '.join(held)}")
        return Site(
            folder=Folder(
                volume, self.prefix, f"{where}/{name}/{self.prefix}", STATE / "volume.json"
            ),
            deployed=image.Deployed(place, volume),
            ledger=Ledger(STATE / "calls"),
            budget=self.budget,
            state=STATE,
            logs=LOGS,
            sources=sources,
            extras=self.extras,
            before=told.before or "",
            env=self.env,
            region=told.region,
            fallbacks=told.gpu_fallbacks,
            bill=money.Bill(),
        )

    def _stay_local(self) -> None:
        """Make local rules of those that do not go to Modal."""
        for rule in self.workflow.rules:
            gpu = rule.resources.get("gpu")
            wanted = gpu is not None and (gpu.is_evaluable() or gpu.value not in (None, 0, "", "0"))
            named = any(fnmatch.fnmatch(rule.name, glob) for glob in self.settings.rules)
            if not (wanted or named):
                self.workflow.localrules(rule.name)

    def _check_jobs(self) -> None:
        """Refuse a run that holds a job Modal has no container for, or that may cost too much."""
        wrong: dict[str, None] = {}
        most = []
        for job in self.workflow.dag.needrun_jobs():
            if job.is_local:
                continue
            try:
                most.append((job.rule.name, self._asked(job)[1]))
            except WorkflowError as error:
                wrong[f"rule {job.rule.name}: {error}"] = None
        if wrong:
            raise WorkflowError("\n".join(wrong))
        self.budget.check(most)

    def _asked(self, job: Any) -> tuple[hardware.Hardware, float]:
        """Return the container that ``job`` asks for, and the most it can cost, in USD."""
        asked = hardware.asked(job.resources, job.threads)
        gpus = hardware.alternatives(asked.gpu, self.settings.gpu_fallbacks)
        return asked, money.dearest(asked, gpus, self.settings.region) * asked.hours
