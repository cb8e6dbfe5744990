"""Packages that only some of what the client does needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .protocol.errors import InvalidRequestError


@contextmanager
def needing(extra: str) -> Iterator[None]:
    """Around imports that the extra `extra` of this distribution brings.

    Raises:
        InvalidRequestError: ``unsupported``: one of them is not installed; the hint says how to.
    """
    try:
        yield
        return
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
    raise InvalidRequestError(
        f'this needs the package "{missing}", which is not installed',
        code="unsupported",
        hint=f"pip install 'datom-flight[{extra}]'",
    )
