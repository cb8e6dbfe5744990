"""What every backend does: objects by key below a project's ``{root}/{prefix}/datom/``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datom_flight.protocol.errors import DatomError

MAX_DOCUMENT_BYTES = 256 * 1024 * 1024
"""Largest control document a backend will read; beyond it, ``document_unreadable``."""


@dataclass(frozen=True, slots=True)
class Document:
    """A small object's bytes and the tag that changes when they do."""

    data: bytes
    etag: str


class ObjectStore(Protocol):
    """A project's objects. Keys are relative, use ``/``, and never escape the project's place.

    Every method may raise, as `DatomError`: ``invalid_address`` (not a key, see `validate_key`), ``not_found`` (no
    such object), ``access_denied`` (the storage refused the server), ``store_unreachable`` (it cannot be reached, or
    keeps failing), ``timeout`` (no answer within the deadline). None of them names a secret or a path of the server.
    Safe to use from many threads.
    """

    @property
    def uri(self) -> str:
        """The place, for people and as a scope of caches: ``s3://…`` or ``file://…``."""
        ...

    def check(self) -> None:
        """Return when the place can be reached and read; raise what is wrong otherwise."""
        ...

    def read(self, key: str) -> Document:
        """The whole of a small object; over `MAX_DOCUMENT_BYTES` it is ``document_unreadable``, unread."""
        ...

    def read_if_changed(self, key: str, etag: str) -> Document | None:
        """The object if its tag is no longer `etag`, else None. One request."""
        ...

    def etag(self, key: str) -> str:
        """The object's tag now, without its bytes."""
        ...

    def chunks(self, key: str) -> Iterator[bytes | memoryview]:
        """The bytes of a large object in order, some MiB at a time; memory stays bounded.

        Nothing is asked of the storage before the first piece is. An object that ends early, or changes under way,
        raises ``store_unreachable``; it never ends as if it were whole. Bytes that the storage itself holds altered
        are delivered: only a hash can tell.
        """
        ...

    def keys(self, prefix: str) -> Iterator[str]:
        """Every key that begins with `prefix` (which may be empty, or end in ``/``), in byte order."""
        ...


class WritableStore(ObjectStore, Protocol):
    """An `ObjectStore` that can be written to, by many servers at once.

    Whatever fails, a key holds its old object or the new one, whole; and after ``timeout`` or ``store_unreachable`` the
    new one may still take the old one's place, when only the answer was lost. Beside the codes of `ObjectStore` there
    is ``unavailable``: the disk is full.
    """

    def put(self, key: str, data: bytes) -> None:
        """Make `key` hold `data`, at once and durably. Readers see the old object or the new one."""
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Make `key` hold the bytes of the file at `path`, as `put` does, in bounded memory."""
        ...

    def sweep(self) -> None:
        """Remove what writers that were killed have left; what is being written now stays. Keys do not change."""
        ...


def is_key(text: str) -> bool:
    """Whether `text` is a key: relative, printable, and unable to leave the place it is joined to."""
    return text.isprintable() and "\\" not in text and {"", ".", ".."}.isdisjoint(text.split("/"))


def validate_key(key: str) -> str:
    """`key`, if it is one.

    Raises:
        StoredDataError: ``invalid_address``.
    """
    if not is_key(key):
        raise DatomError.of(
            "invalid_address",
            f"key {key[:80]!a} is not a relative path of named segments",
            hint="tell the data team: do not trust the document",
        )
    return key


def data_place(prefix: str) -> str:
    """Where keys begin below a root, with a slash at its end: ``datom/`` or ``{prefix}/datom/``.

    Slashes around `prefix` do not count.

    Raises:
        StoredDataError: ``invalid_address`` when `prefix` would leave the root.
    """
    trimmed = prefix.strip("/")
    return f"{validate_key(trimmed)}/datom/" if trimmed else "datom/"
