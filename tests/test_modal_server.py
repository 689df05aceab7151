"""The loopback Modal server, seen by the real client."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import modal
import pytest
from modal.exception import (
    AuthError,
    FunctionTimeoutError,
    InvalidError,
    NotFoundError,
    RemoteError,
    ResourceExhaustedError,
)

from modal_server import Cloud
from modal_server.apps import Charge
from waiting import eventually

MIB = 2**20
ROOT = Path(__file__).parent  # holds modal_server


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """A cloud without background commits."""
    with Cloud(tmp_path / "cloud", commit_every_s=None) as cloud:
        yield cloud


@pytest.fixture
def client(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[modal.Client]:
    """The real client, connected to the cloud."""
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    token = cloud.environment["MODAL_TOKEN_ID"], cloud.environment["MODAL_TOKEN_SECRET"]
    with modal.Client.from_credentials(*token) as client:
        yield client


@pytest.fixture
def volume(client: modal.Client) -> modal.Volume:
    """An empty volume."""
    return modal.Volume.from_name("data", create_if_missing=True, version=2, client=client)


def deploy(
    client: modal.Client, body: Callable[..., Any], **options: Any
) -> modal.Function[..., Any, Any]:
    """Deploy ``body``, a function inside of a test, and return a handle."""
    app = modal.App("demo")
    app.function(serialized=True, name="job", image=modal.Image.debian_slim(), **options)(body)
    app.deploy(client=client)
    return modal.Function.from_name("demo", "job", client=client)


def upload(volume: modal.Volume, source: Path, path: str) -> None:
    """Put one file."""
    with volume.batch_upload(force=True) as batch:
        batch.put_file(source, path)


def test_one_changed_block_means_one_put(
    cloud: Cloud, client: modal.Client, volume: modal.Volume, tmp_path: Path
) -> None:
    content = bytearray(os.urandom(20 * MIB)) + bytes(100)
    (tmp_path / "file").write_bytes(content)
    upload(volume, tmp_path / "file", "/in/file")
    assert cloud.uploaded_bytes == 20 * MIB
    assert b"".join(volume.read_file("in/file")) == content
    content[9 * MIB] ^= 1
    (tmp_path / "file").write_bytes(content)
    cloud.http_fault("put", status=503)
    upload(volume, tmp_path / "file", "/in/file")
    assert cloud.uploaded_bytes == 28 * MIB
    assert (cloud.volume("data") / "in" / "file").read_bytes() == content
    upload(volume, cloud.volume("data") / "in" / "file", "/copy")  # blocks that are known already
    assert cloud.uploaded_bytes == 28 * MIB
    cloud.http_fault("get", status=503, times=2)
    assert b"".join(volume.read_file("copy")) == content


def test_a_volume_lists_and_removes_what_it_holds(cloud: Cloud, volume: modal.Volume) -> None:
    volume.hydrate()
    (cloud.volume("data") / "in").mkdir()
    (cloud.volume("data") / "in" / "a").write_text("abc")
    listed = [(entry.path, entry.type.name, entry.size) for entry in volume.iterdir("/")]
    assert listed == [("in", "DIRECTORY", 0), ("in/a", "FILE", 3)]
    assert [entry.path for entry in volume.listdir("/", recursive=False)] == ["in"]
    volume.remove_file("in/a")
    assert list((cloud.volume("data") / "in").iterdir()) == []
    with pytest.raises(FileNotFoundError):
        volume.remove_file("in/a")
    with pytest.raises(NotFoundError):
        volume.listdir("nowhere")


def test_a_call_has_its_value_its_lines_and_its_environment(
    cloud: Cloud, client: modal.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRIVATE", "of the developer")

    def job(word: str, *, times: int) -> tuple[str, dict[str, str]]:
        import os
        import sys

        sys.stdout.write(word * times + "\n")
        sys.stderr.write("careful\n")
        return word, dict(os.environ)

    function = deploy(client, job, secrets=[modal.Secret.from_dict({"KEY": "secret"})])
    call = function.with_options(gpu="H100:8", cpu=2.5, memory=4096, timeout=60).spawn("a", times=3)
    word, environment = call.get()
    assert (word, environment["KEY"], "PRIVATE" in environment) == ("a", "secret", False)
    lines = [(line.source, line.message) for line in call.logs.fetch()]
    assert sorted(lines) == [("stderr", "careful\n"), ("stdout", "aaa\n")]
    assert sorted((line.source, line.message) for line in call.logs.tail(5)) == sorted(lines)
    record = cloud.spawned[0]
    assert (record.id, record.status, record.starts) == (call.object_id, "done", 1)
    assert (record.gpu, record.cpu, record.memory, record.timeout) == ("H100:8", 2.5, 4096, 60)
    assert record.arguments == (("a",), {"times": 3})
    again = modal.FunctionCall.from_id(call.object_id, client=client)
    assert again.get(timeout=0) == call.get()


def test_an_exception_arrives_as_itself(client: modal.Client) -> None:
    def job() -> None:
        raise KeyError("no such thing")

    with pytest.raises(KeyError, match="no such thing"):
        deploy(client, job).spawn().get()


def test_a_call_beyond_its_time_limit_is_ended(cloud: Cloud, client: modal.Client) -> None:
    def job() -> None:
        import time

        time.sleep(60)

    with pytest.raises(FunctionTimeoutError):
        deploy(client, job, timeout=1).spawn().get()
    assert cloud.spawned[0].status == "timeout"


def test_what_fails_is_tried_again_as_often_as_asked(
    cloud: Cloud, client: modal.Client, volume: modal.Volume
) -> None:
    def job() -> str:
        from pathlib import Path

        with Path("starts").open("a") as file:
            file.write("x")
        raise RuntimeError(Path("starts").read_text())

    function = deploy(client, job, volumes={"/work": volume})
    retries = modal.Retries(max_retries=2, initial_delay=0.0)
    with pytest.raises(RuntimeError, match=r"^xxx$"):
        function.with_options(retries=retries).spawn().get()
    assert cloud.spawned[0].starts == 3


def test_a_lost_spawn_answer_runs_the_function_once(cloud: Cloud, client: modal.Client) -> None:
    def job() -> int:
        return 7

    function = deploy(client, job)
    cloud.fault("FunctionMap", after="UNAVAILABLE", times=2)
    assert function.spawn().get() == 7
    assert (cloud.calls["FunctionMap"], len(cloud.spawned)) == (1, 1)


def test_a_refused_request_has_no_effect(cloud: Cloud, client: modal.Client) -> None:
    def job() -> int:
        return 7

    function = deploy(client, job).hydrate()
    cloud.fault("FunctionMap", before="UNAVAILABLE", times=4)
    with pytest.raises(modal.exception.ServiceError):
        function.spawn()
    assert (cloud.calls["FunctionMap"], cloud.spawned) == (0, [])


def test_a_preempted_call_runs_again_with_what_it_committed(
    cloud: Cloud, client: modal.Client, volume: modal.Volume
) -> None:
    def job() -> list[str]:
        import subprocess
        import time
        from pathlib import Path

        seen = sorted(path.name for path in Path().iterdir())
        if seen:
            return seen
        Path("synced").write_text("1")
        subprocess.run(["sync", "/work"], check=True)
        try:
            time.sleep(60)
        finally:
            Path("in-grace").write_text("1")
        return []

    cloud.preempt(after_s=1.5, grace_s=5)
    call = deploy(client, job, volumes={"/work": volume}).spawn()
    assert call.get() == ["in-grace", "synced"]
    assert [(record.id, record.starts) for record in cloud.spawned] == [(call.object_id, 2)]
    assert [line.message.split(":")[0] for line in call.logs.fetch(source="system")] == [
        "Preempted"
    ]


def test_sigkill_loses_what_was_not_committed(
    cloud: Cloud, client: modal.Client, volume: modal.Volume
) -> None:
    def job() -> list[str]:
        import subprocess
        import time
        from pathlib import Path

        seen = sorted(path.name for path in Path().iterdir())
        if seen:
            return seen
        Path("synced").write_text("1")
        subprocess.run(["sync", "/work"], check=True)
        Path("lost").write_text("1")
        time.sleep(60)
        return []

    call = deploy(client, job, volumes={"/work": volume}).spawn()
    eventually("the first commit", lambda: (cloud.volume("data") / "synced").exists())
    time.sleep(0.2)
    pid = cloud.spawned[0].pid
    assert pid is not None
    os.killpg(pid, signal.SIGKILL)
    assert call.get() == ["synced"]
    assert cloud.spawned[0].starts == 2


def test_background_commits_bring_deletions_too_and_a_cancelled_call_leaves_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job() -> None:
        import subprocess
        from pathlib import Path

        Path("old").unlink()
        Path("old").mkdir()
        Path("gone").unlink()
        # A session of its own, as torchrun starts its processes.
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as child:
            Path("new").write_text(str(child.pid))

    with Cloud(tmp_path, commit_every_s=0.2) as cloud:
        for name, value in cloud.environment.items():
            monkeypatch.setenv(name, value)
        with modal.Client.from_credentials("ak-loopback", "as-loopback") as client:
            work = cloud.volume("data") / "run" / "work"
            work.mkdir(parents=True)
            (work / "old").write_text("1")
            (work / "gone").write_text("1")
            volume = modal.Volume.from_name("data", client=client)
            mounted = volume.with_mount_options(sub_path="run/work")
            call = deploy(client, job, volumes={"/work": mounted}).spawn()
            eventually("a background commit", (work / "new").exists)
            eventually("the deletion", lambda: not (work / "gone").exists())
            assert (work / "old").is_dir()
            call.cancel(terminate_containers=True)
            with pytest.raises(RemoteError):
                call.get()
            pid = (work / "new").read_text()
            eventually("the end of its child", lambda: not Path("/proc", pid).exists())


def test_a_full_volume_refuses_commits_and_uploads(
    cloud: Cloud, client: modal.Client, volume: modal.Volume, tmp_path: Path
) -> None:
    def job() -> tuple[int, str]:
        import subprocess
        from pathlib import Path

        Path("small").write_bytes(bytes(10))
        Path("large").write_bytes(bytes(1000))
        done = subprocess.run(["sync", "/work"], capture_output=True, text=True)
        return done.returncode, done.stderr

    cloud.full_after(100)
    status, text = deploy(client, job, volumes={"/work": volume}).spawn().get()
    assert (status, "No space left" in text) == (1, True)
    assert list(cloud.volume("data").iterdir()) == []
    (tmp_path / "file").write_bytes(os.urandom(1000))
    with pytest.raises(ResourceExhaustedError):
        upload(volume, tmp_path / "file", "/file")
    cloud.full_after(None)
    upload(volume, tmp_path / "file", "/file")


def test_a_read_only_volume_takes_nothing(
    cloud: Cloud, client: modal.Client, volume: modal.Volume
) -> None:
    def job() -> int:
        import subprocess
        from pathlib import Path

        Path("file").write_text("1")
        return subprocess.run(["sync", "."]).returncode

    mounted = volume.with_mount_options(read_only=True)
    assert deploy(client, job, volumes={"/work": mounted}).spawn().get() == 1
    assert list(cloud.volume("data").iterdir()) == []


def test_dropped_log_streams_lose_no_line(cloud: Cloud, client: modal.Client) -> None:
    def job() -> None:
        import sys
        import time

        for number in range(60):
            sys.stdout.write(f"line {number}\n")
            time.sleep(0.02)

    function = deploy(client, job)
    cloud.fault("AppGetLogs", drop_after=2, times=4)
    call = function.spawn()
    lines = [line.message for line in call.logs.stream()]
    assert lines == [f"line {number}\n" for number in range(60)]
    assert cloud.calls["AppGetLogs"] >= 5


def test_calls_wait_for_capacity_and_then_run_at_once(cloud: Cloud, client: modal.Client) -> None:
    def job(number: int) -> int:
        import time

        time.sleep(1)
        return number

    function = deploy(client, job)
    cloud.capacity(1.0)
    calls = [function.spawn(number) for number in range(2)]
    with pytest.raises(TimeoutError):
        calls[0].get(timeout=0)
    assert [(record.status, record.starts) for record in cloud.spawned] == [("waiting", 0)] * 2
    assert calls[0].get_call_graph()[0].task_id == ""
    cloud.capacity(0)
    assert [call.get() for call in calls] == [0, 1]
    first, second = cloud.spawned
    assert second.started_at < first.finished_at


def test_a_cancelled_call_in_the_queue_never_starts(cloud: Cloud, client: modal.Client) -> None:
    def job() -> None:
        raise AssertionError("it was cancelled")

    cloud.capacity(60)
    call = deploy(client, job).spawn()
    call.cancel()
    with pytest.raises(RemoteError, match="cancelled"):
        call.get()
    assert (cloud.spawned[0].status, cloud.spawned[0].starts) == ("cancelled", 0)


@pytest.mark.parametrize("gpu", ["H101", "H100:9", "A10:5", "T4:0"])
def test_a_gpu_that_does_not_exist_is_refused(client: modal.Client, gpu: str) -> None:
    def job() -> None:
        pass

    with pytest.raises(InvalidError, match=gpu.partition(":")[0]):
        deploy(client, job).with_options(gpu=gpu).spawn()


def test_a_wrong_token_is_refused(client: modal.Client) -> None:
    with (
        modal.Client.from_credentials("ak-loopback", "as-other") as stranger,
        pytest.raises(AuthError),
    ):
        modal.Volume.from_name("data", create_if_missing=True, client=stranger).hydrate()


def test_what_does_not_exist_is_not_found(client: modal.Client) -> None:
    for thing in (
        modal.Volume.from_name("data", client=client),
        modal.Function.from_name("demo", "job", client=client),
        modal.Secret.from_name("keys", client=client),
    ):
        with pytest.raises(NotFoundError):
            thing.hydrate()
    with pytest.raises(NotFoundError):
        modal.FunctionCall.from_id("fc-" + "0" * 22, client=client).get(timeout=0)
    with pytest.raises(modal.exception.UnimplementedError, match="QueueGetOrCreate"):
        modal.Queue.from_name("jobs", create_if_missing=True, client=client).hydrate()


def test_a_web_app_is_deployed_with_its_options_and_stopped(
    cloud: Cloud, client: modal.Client, volume: modal.Volume
) -> None:
    def load(self: Any) -> None:
        pass

    def web(self: Any) -> Any:
        pass

    app = modal.App("chat")
    body = {"load": modal.enter()(load), "web": modal.asgi_app()(web), "__module__": __name__}
    app.cls(
        serialized=True,
        gpu="L40S",
        max_containers=1,
        scaledown_window=300,
        enable_memory_snapshot=True,
        volumes={"/ckpt": volume.with_mount_options(sub_path="run", read_only=True)},
    )(modal.concurrent(max_inputs=16)(type("Chat", (), body)))
    app.deploy(client=client)
    options = cloud.apps["chat"]["Chat.*"]
    assert (options.gpu, options.max_containers, options.scaledown_window) == ("L40S:1", 1, 300)
    assert (options.snapshot, options.max_inputs) == (True, 16)
    assert options.volumes == {"/ckpt": (volume.object_id, "run", True)}
    assert options.url == "https://loopback--chat-chat-web.modal.run"
    run = [sys.executable, "-m", "modal", "app", "stop", "--yes", "chat"]
    subprocess.run(run, check=True, env=os.environ | cloud.environment)
    assert cloud.apps == {}


def test_an_image_lists_its_files_and_a_mounted_module_runs(
    cloud: Cloud, client: modal.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "source"
    package.mkdir()
    (package / "helper.py").write_text("def answer():\n    return 42\n")

    def job() -> int:
        import importlib

        answer: int = importlib.import_module("helper").answer()
        return answer

    image = modal.Image.debian_slim().env({"WHO": "a b"}).workdir("/work")
    image = image.add_local_dir(package, "/baked", copy=True).add_local_dir(package, "/root")
    app = modal.App("demo")
    app.function(serialized=True, name="job", image=image)(job)
    app.deploy(client=client)
    assert modal.Function.from_name("demo", "job", client=client).spawn().get() == 42
    built = cloud.images[-1]
    assert list(built.files) == ["/baked/helper.py"]
    assert built.files["/baked/helper.py"] in cloud.mounts[list(cloud.mounts)[-1]].values()
    assert (built.environment["WHO"], built.workdir) == ("a b", "/work")


def test_billing_answers_what_the_test_says(cloud: Cloud, client: modal.Client) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    cloud.rates["gpu_h100"] = "0.001097"
    cloud.billed.append(Charge("ap-1", "demo", now - timedelta(hours=1), "3.25"))
    cloud.billed.append(Charge("ap-1", "demo", now - timedelta(days=3), "8"))
    billing = modal.Workspace.from_context(client=client).billing
    assert dict(billing.rates()) == {"gpu_h100": Decimal("0.001097")}
    report = billing.report(start=now - timedelta(days=1), resolution="h")
    assert [(item.object_id, item.cost) for item in report] == [("ap-1", Decimal("3.25"))]


def test_a_killed_server_takes_its_containers_along(tmp_path: Path) -> None:
    (tmp_path / "use.py").write_text(
        "import os, pathlib, signal, sys, time; sys.path.insert(0, sys.argv[1]);"
        "import modal, modal_server, test_modal_server as test;"
        "cloud = modal_server.Cloud(pathlib.Path(sys.argv[2])).__enter__();"
        "os.environ.update(cloud.environment);"
        "call = test.deploy(modal.Client.from_env(), lambda: time.sleep(60)).spawn();"
        "test.eventually('a start', lambda: cloud.spawned[0].pid);"
        "print(cloud.spawned[0].pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, *map(str, (tmp_path / "use.py", ROOT, tmp_path / "cloud"))]
    pid = subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()
    assert pid
    eventually("the end of the container", lambda: not Path("/proc", pid).exists())
    with Cloud(tmp_path / "cloud"):
        assert list((tmp_path / "cloud" / "containers").glob("ta-*")) == []


def test_the_program_says_how_to_reach_it_and_keeps_volumes(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("abc")
    serve = [sys.executable, "-m", "modal_server", "--folder", str(tmp_path / "cloud")]
    path = {"PYTHONPATH": str(ROOT)}

    def use(*commands: str) -> list[str]:
        server = subprocess.Popen(serve, env=os.environ | path, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            lines = [server.stdout.readline().removeprefix("export ").strip() for _ in range(4)]
            exported = dict(line.split("=", 1) for line in lines)
            modal = [sys.executable, "-m", "modal", "volume"]
            return [
                subprocess.run(
                    modal + command.split(),
                    cwd=tmp_path,
                    env=os.environ | exported,
                    stdout=subprocess.PIPE,
                    text=True,
                    check=True,
                ).stdout
                for command in commands
            ]
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(timeout=10) == 0
            if server.stdout:
                server.stdout.close()

    use("create --version 2 kept", "put kept file")
    (answer,) = use("get kept file -")
    assert answer.startswith("abc")
