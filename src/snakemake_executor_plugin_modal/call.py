"""One job's life on Modal, from the files that travel there to those that come back."""

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snakemake_interface_common.exceptions import WorkflowError

from . import files, hardware, money
from .ledger import Entry
from .logs import Log
from .outcome import Outcome, outcome_of
from .patience import brief, patiently
from .site import Site
from .text import say, span
from .volume import Missing

if TYPE_CHECKING:
    import modal

PATIENCE_S = 15
"""How long one waits for Modal at Ctrl-C."""

TURN_S = 10.0
"""How long a call is waited for before it is the next one's turn."""


class Life:
    """A job; ``run`` lives it."""

    def __init__(self, order: files.Order, site: Site) -> None:
        """Touch nothing yet."""
        self.order, self.site = order, site
        self.gpus = hardware.alternatives(order.hardware.gpu, site.fallbacks)
        self.call: modal.FunctionCall[Any] | None = None
        self.log: Log | None = None
        self.started = 0.0
        self._spec = ""
        self._starting: asyncio.Task[None] | None = None
        self._over = False

    async def run(self) -> None:
        """Run the job, or follow it if it runs already.

        Raises:
            WorkflowError: It failed; the message tells how, and what to do.
        """
        order, site = self.order, self.site
        site.live[order.key] = self
        try:
            # In a thread: 2 GB take a second or two to digest.
            self._spec = await asyncio.to_thread(files.spec, order, site.folder.digest)
            outcome = await self._attach()
            if self.call is None:
                site.budget.reserve(order.key, order.most)
                await site.folder.bring(site.sources, "source")
                await site.folder.bring(files.expanded(site.extras), "extra")
                await site.folder.bring(files.expanded(order.inputs))
                # Shielded: a call that has been started must become known, or nobody ends it.
                self._starting = asyncio.create_task(self._start(await self._function()))
                await asyncio.shield(self._starting)
            await self._finish(await self._follow(outcome))
        finally:
            site.budget.settle(order.key, 0.0)
            site.live.pop(order.key, None)
            if self.log:
                self.log.close()

    async def stop(self, *, detach: bool) -> str:
        """End the call, or leave it; return what to tell about it, nothing if there is none."""
        if self._starting is not None:
            await asyncio.wait({self._starting}, timeout=PATIENCE_S)
        if self.call is None:
            return ""
        label, call = self.order.label, self.call.object_id
        if self._over:
            return f"{label}: {call} is over; start Snakemake again to fetch what it made"
        if detach:
            return f"{label}: left running as {call}; start Snakemake again to follow it"
        try:
            await asyncio.wait_for(self.call.cancel.aio(), PATIENCE_S)
        except Exception as error:
            return f"{label}: {call} may still be running ({brief(error)}); run again to follow it"
        self.site.ledger.drop(self.order.key)
        self._receipt("cancelled", self.log.seconds(time.time()) if self.log else 0.0)
        return f"{label}: {call} cancelled"

    async def _attach(self) -> Outcome:
        """Take up the call of an earlier run of Snakemake, if there is one and it still fits."""
        import modal

        order, ledger = self.order, self.site.ledger
        entry = ledger.find(order.key)
        if entry is None:
            return Outcome("gone")
        call = modal.FunctionCall.from_id(entry.call)
        if entry.spec != self._spec:
            say(f"{order.label}: changed since {entry.call} was started; cancelling that")

            async def cancel() -> None:
                with contextlib.suppress(modal.exception.NotFoundError):
                    await call.cancel.aio()

            await patiently(cancel, say)
            ledger.drop(order.key)
            return Outcome("gone")
        outcome = await patiently(lambda: outcome_of(call, 0), say)
        if outcome.kind in ("gone", "lost"):
            say(f"{order.label}: {entry.call} is no more ({outcome.reason}); starting anew")
            ledger.drop(order.key)
            return outcome
        self.call, self.started = call, entry.started
        self.site.budget.running[order.key] = order.most
        self.log = self._open(entry.log, since=time.time())
        self.log.tell(f"taking up {entry.call}, {outcome.kind}; earlier lines are in {entry.log}")
        return outcome

    async def _function(self) -> "modal.Function[..., Any, Any]":
        """Return the function with the container that the job asks for."""
        import modal

        asked, region = self.order.hardware, self.site.region
        options: dict[str, Any] = {
            "cpu": float(asked.cpu),
            "memory": asked.memory_mib,
            "timeout": asked.timeout_s,
            **({"region": region} if region else {}),
        }
        secrets = [modal.Secret.from_dict(dict(self.order.secrets))] if self.order.secrets else []
        gpus = self.gpus if asked.gpu else []
        return await self.site.deployed.function(gpus, options, asked.attempts, secrets)

    async def _start(self, function: "modal.Function[..., Any, Any]") -> None:
        """Start the call, and make it known."""
        order, site, asked = self.order, self.site, self.order.hardware
        usd = money.dearest(asked, self.gpus, site.region)
        env = {
            "PYTHONUNBUFFERED": "1",  # or lines of a job in Python come in blocks of 8 kB
            "SNAKEMAKE_MODAL_USD_PER_HOUR": f"{usd:.4f}",
            **site.env,
        }
        call = await patiently(lambda: function.spawn.aio(order.command, site.before, env), say)
        self.call, self.started = call, time.time()
        log = site.logs / f"{order.rule}-{call.object_id}.log"
        entry = Entry(call.object_id, self._spec, order.rule, asked.gpu, self.started, str(log))
        site.ledger.put(order.key, entry)
        self.log = self._open(str(log), since=0.0)
        self.log.tell(f"{call.object_id} waits for {asked}; log: {log}")

    async def _follow(self, outcome: Outcome) -> Outcome:
        """Wait for the end of the call, with its log on the terminal."""
        assert self.call is not None and self.log is not None
        call = self.call
        tasks = [
            asyncio.create_task(each)
            for each in (self._listen(self.log), self.log.wait_told(str(self.order.hardware)))
        ]
        try:
            while outcome.kind not in ("ended", "timeout", "lost"):
                async with self.site.waits:
                    outcome = await patiently(lambda: outcome_of(call, TURN_S), self.log.tell)
                if outcome.kind == "gone":
                    break
        finally:
            for task in tasks:
                await quietly_cancel(task)
        self._over = True
        await self.log.complete(call, self.started, ended=outcome.kind == "ended")
        return outcome

    async def _listen(self, log: Log) -> None:
        """Follow the log as soon as few enough others are; what it misses comes at the end."""
        assert self.call is not None
        async with self.site.ears:
            await log.follow(self.call)

    async def _finish(self, outcome: Outcome) -> None:
        """Fetch what the job made, write down what it cost, and fail if it failed."""
        assert self.log is not None
        order, site, log = self.order, self.site, self.log
        once = outcome.kind == "ended" and log.starts <= 1
        seconds = outcome.result["seconds"] if once else log.seconds()
        if outcome.kind == "timeout":  # it may have been silent for long
            seconds = order.hardware.hours * 3600
        failed = self._complaint(outcome)
        await site.folder.fetch_any(order.extras)
        if not failed:
            try:
                await site.folder.fetch(order.outputs, order.folders)
            except Missing:
                site.ledger.drop(order.key)  # nothing is left to take up
                raise
        self._narrow(outcome.result.get("gpus", []))
        usd = self._receipt("failed" if failed else "done", seconds, await self._billed())
        site.ledger.drop(order.key)
        cost = f"{span(seconds)} on {order.hardware}, {money.dollars(usd)}"
        if failed:
            log.add(f"error: {failed}\n")
            raise WorkflowError(f"{failed}\nIt took {cost}. The end of {log.path}:\n{log.tail()}")
        log.tell(f"done in {cost}")

    def _complaint(self, outcome: Outcome) -> str:
        """Return what went wrong and what to do; nothing if all went well."""
        assert self.call is not None and self.log is not None
        call, asked = self.call.object_id, self.order.hardware
        what = f"{self.order.label} failed on Modal ({call})"
        if outcome.kind == "timeout":
            return (
                f"{what}: it took longer than its runtime,"
                f" {span(asked.timeout_s * asked.attempts)}. Raise runtime; a job that saves its"
                " state resumes from it."
            )
        if outcome.kind != "ended":
            return f"{what}: its container is lost ({outcome.reason}). Run again."
        if not outcome.result["synced"]:
            return (
                f"{what}: the Volume did not take what it wrote; is it full? Look with `modal"
                " volume ls`, make room with `modal volume rm`, and run again."
            )
        if outcome.result["status"] == 0:
            return ""
        status = self.log.status() or str(outcome.result["status"])
        if status in ("137", "SIGKILL"):
            return (
                f"{what}: killed (exit status {status}), most likely since it needs more than its"
                f" {asked.memory_mib} MiB of memory. Raise mem_mb and run again."
            )
        return f"{what}: exit status {status}. Its log says why; put that right and run again."

    def _narrow(self, found: list[str]) -> None:
        """Keep of the alternatives those that the container's own names of its GPUs fit."""
        fits = [gpu for gpu in self.gpus if any(hardware.family(gpu) in name for name in found)]
        self.gpus = fits or self.gpus

    def _open(self, path: str, since: float) -> Log:
        return Log(Path(path), self.order.label, lambda: len(self.site.live) < 2, since)

    async def _billed(self) -> float | None:
        began = datetime.fromtimestamp(self.started, UTC)
        return await self.site.bill.since(self.site.deployed.place.app, began)

    def _receipt(self, status: str, seconds: float, billed: float | None = None) -> float:
        assert self.call is not None
        order, asked = self.order, self.order.hardware
        usd = money.dearest(asked, self.gpus, self.site.region) * seconds / 3600
        self.site.budget.settle(order.key, usd)
        receipt = money.Receipt(
            rule=order.rule,
            outputs=order.outputs,
            call=self.call.object_id,
            gpu=self.gpus[0],
            cpu=asked.cpu,
            memory_mib=asked.memory_mib,
            seconds=round(seconds, 3),
            usd=round(usd, 6),
            status=status,
            billed_usd=billed,
        )
        money.keep(receipt, self.site.state)
        return usd


async def quietly_cancel(task: "asyncio.Task[None]") -> None:
    """Cancel ``task``; a log stream of modal 1.6 may turn that into another error, so again."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=0.5)
    if not task.cancelled():
        task.exception()  # looked at, or Python would complain


async def stop_all(site: Site, *, detach: bool) -> None:
    """End all calls, or leave them, and say so."""
    stops: list[Coroutine[Any, Any, str]] = [
        life.stop(detach=detach) for life in list(site.live.values())
    ]
    for told in filter(None, await asyncio.gather(*stops)):
        say(told)
