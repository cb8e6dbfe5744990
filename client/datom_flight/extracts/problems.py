"""What is wrong with a file, as an error that names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..protocol.errors import InvalidRequestError


def problem(path: Path, what: str, hint: str | None = None) -> InvalidRequestError:
    """The error that says `what` of the file."""
    return InvalidRequestError(f'"{path.name}" {what}', hint=hint)


@contextmanager
def reading(path: Path, kind: str, *errors: type[Exception]) -> Iterator[None]:
    """Around a library's reading of a file: its `errors` say that the file is not of that `kind`."""
    try:
        yield
        return
    except errors as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
    raise problem(path, f"cannot be read as {kind}: {reason}")
