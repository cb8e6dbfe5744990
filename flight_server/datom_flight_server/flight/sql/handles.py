"""Values that go out as bytes and come back: taken apart only where they were not made, or long ago."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from ...sql.recent import Recent

_KEPT_HANDLES = 256
_KEPT_BYTES = 64 * 1024


class _Travels(Protocol):
    def to_bytes(self) -> bytes: ...


T = TypeVar("T", bound=_Travels)


class Handles(Generic[T]):
    """Handles of values that never change. Safe to use from many threads.

    Args:
        parse: the value in a handle, wherever it was made; raises for what is none.
    """

    def __init__(self, parse: Callable[[bytes], T]) -> None:
        self._parse = parse
        self._made: Recent[bytes, T] = Recent(_KEPT_HANDLES)

    def give(self, value: T) -> bytes:
        """The handle of `value`."""
        handle = value.to_bytes()
        if len(handle) <= _KEPT_BYTES:
            self._made.put(handle, value)
        return handle

    def take(self, handle: bytes) -> T:
        """The value with this handle; raises as ``parse`` does."""
        return self._made.get(handle) or self._parse(handle)
