"""What every test may use."""

from __future__ import annotations

import signal

import pytest
from hypothesis import settings

from support.s3 import s3

__all__ = ["s3"]

# The same examples on every run: a failure here is a failure everywhere, and no test fails for its time.
settings.register_profile("datom", derandomize=True, database=None, deadline=None)
settings.load_profile("datom")

# A shell's background job ignores Ctrl-C, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, so that of several processes none is left with one of them at the end."""
    items.sort(key=lambda item: "integration" not in item.path.parts)
