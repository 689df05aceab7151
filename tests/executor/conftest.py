"""A cloud of our own, and a small workflow that uses it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from executor.kit import Mini, copy_of_mini


@pytest.fixture
def mini(tmp_path: Path) -> Iterator[Mini]:
    """The small workflow before its first run; nothing of it outlives the test."""
    with copy_of_mini(tmp_path) as mini:
        yield mini
