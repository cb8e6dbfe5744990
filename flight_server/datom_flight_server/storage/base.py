"""What every backend does: objects by key below a project's ``{root}/{prefix}/datom/``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

MAX_DOCUMENT_BYTES = 256 * 1024 * 1024
"""Largest control document a backend will read; beyond it, ``document_unreadable``."""


@dataclass(frozen=True, slots=True)
class Document:
    """A small object's bytes and the tag that changes when they do."""

    data: bytes
    etag: str


class ObjectStore(Protocol):
    """A project's objects. Keys are relative, use ``/``, and never escape the project's place.

    Every method may raise, as `DatomError`: ``not_found`` (no such object), ``access_denied`` (the storage
    refused the server), ``store_unreachable`` (it cannot be reached, or keeps failing), ``timeout`` (no answer within
    the deadline). None of them names a secret. Safe to use from many threads.
    """

    @property
    def uri(self) -> str:
        """The place, for people and as a scope of caches: ``s3://…`` or ``file://…``."""
        ...

    def check(self) -> None:
        """Return when the place can be reached and read; raise what is wrong otherwise."""
        ...

    def read(self, key: str) -> Document:
        """The whole of a small object."""
        ...

    def read_if_changed(self, key: str, etag: str) -> Document | None:
        """The object if its tag is no longer `etag`, else None. One request."""
        ...

    def etag(self, key: str) -> str:
        """The object's tag now, without its bytes."""
        ...

    def chunks(self, key: str) -> Iterator[bytes | memoryview]:
        """The bytes of a large object in order, a few MiB at a time; memory stays bounded.

        An object that ends early, or changes under way, raises; it never ends as if it were whole.
        """
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins with `prefix`, in byte order."""
        ...
