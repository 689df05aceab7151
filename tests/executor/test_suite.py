"""Snakemake's own tests of executors, with every rule on Modal."""

import os
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest
import snakemake.common.tests

from modal_server import Cloud
from snakemake_executor_plugin_modal import ExecutorSettings

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module", autouse=True)
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for both tests: the client of a process keeps to the first server that it met."""
    where = Path.cwd()
    with Cloud(tmp_path_factory.mktemp("cloud")) as cloud, pytest.MonkeyPatch.context() as here:
        for name, value in cloud.environment.items():
            here.setenv(name, value)
        modal.Client.from_env().close()  # which another test may have left
        yield
        modal.Client.from_env().close()
        os.chdir(where)
        assert len(cloud.spawned) == 5 + 4
        assert {call.status for call in cloud.spawned} == {"done"}


class TestModal(snakemake.common.tests.TestWorkflowsLocalStorageBase):  # type: ignore[misc]
    __test__ = True

    def get_executor(self) -> str:
        return "modal"

    def get_executor_settings(self) -> ExecutorSettings:
        return ExecutorSettings(rules=["*"])

    def get_assume_shared_fs(self) -> bool:
        return False
