"""Addresses as settings write them: places to listen on, places of data, repositories.

Each function gives the address in its one normal form, or raises `ValueError` with a sentence that says what was
expected; the settings put the key's name before it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from .model import DataLocation

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
_SSH_SHORT_FORM = re.compile(r"[^/:@]+@[^/:]+:.+|[^/:@]{2,}:[^/].*")


def absolute_path(text: str, directory: Path) -> Path:
    """`text` as an absolute path without ``..``; what is relative is so to `directory`, ``~`` is the home."""
    return Path(os.path.abspath(directory / Path(text).expanduser()))


def listen_url(text: str) -> str:
    """``grpc://HOST:PORT`` or ``grpc+tls://HOST:PORT``; an IPv6 host is in brackets, port 0 is any free one."""
    expected = 'expected "grpc://HOST:PORT" or "grpc+tls://HOST:PORT"'
    parts = _split(text, expected)
    if parts.scheme not in ("grpc", "grpc+tls") or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{expected}, got {_shown(text)}")
    _host_and_port(parts, text, expected)
    return text


def replica(text: str) -> str:
    """``grpc://HOST:PORT`` or ``grpc+tls://HOST:PORT`` as clients reach it, or ``dns:///NAME:PORT`` for several."""
    expected = 'expected "grpc://HOST:PORT", "grpc+tls://HOST:PORT" or "dns:///NAME:PORT"'
    name = text.removeprefix("dns:///")
    parts = _split(f"dns://{name}" if name != text else text, expected)
    known = ("dns",) if name != text else ("grpc", "grpc+tls")
    if parts.scheme not in known or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{expected}, got {_shown(text)}")
    host, port = _host_and_port(parts, text, expected)
    if port == 0 or host in ("0.0.0.0", "::"):  # noqa: S104 - refused, not listened on
        raise ValueError(f"{expected} that clients can reach, got {_shown(text)}")
    return text.lower()


def host_port(text: str) -> str:
    """``HOST:PORT``; an IPv6 host is in brackets, port 0 is any free one."""
    expected = 'expected "HOST:PORT"'
    split_host_port(text)
    if "/" in text or "@" in text:
        raise ValueError(f"{expected}, got {_shown(text)}")
    return text


def split_host_port(text: str) -> tuple[str, int]:
    """Host (without brackets) and port of ``HOST:PORT``."""
    expected = 'expected "HOST:PORT"'
    return _host_and_port(_split(f"//{text}", expected), text, expected)


def http_url(text: str) -> str:
    """``http://HOST[:PORT]`` or ``https://HOST[:PORT]``."""
    expected = 'expected "http://HOST:PORT" or "https://HOST"'
    parts = _split(text, expected)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{expected}, got {_shown(text)}")
    if "@" in parts.netloc:
        raise ValueError(f"{expected}, without a user or password")
    return text


def data_location(text: str, directory: Path) -> DataLocation:
    """The place that ``s3://BUCKET[/PREFIX]`` or ``file:///PATH`` names; ``file:PATH`` is relative to `directory`."""
    scheme, _, rest = text.partition(":")
    if scheme == "s3" and rest.startswith("//"):
        bucket, _, prefix = rest[2:].partition("/")
        if not _BUCKET.fullmatch(bucket):
            raise ValueError(f'expected "s3://BUCKET/PREFIX", got {_shown(text)}')
        return DataLocation("s3", bucket, prefix.strip("/"))
    if scheme == "file" and rest.strip("/"):
        return DataLocation("local", str(_file_path(rest, directory)))
    raise ValueError(f'expected "s3://BUCKET/PREFIX" or "file:///PATH", got {_shown(text)}')


def repository(text: str, directory: Path) -> str:
    """A git repository: an ``https://`` or ``ssh://`` URL, ``user@host:path``, or a folder, made absolute."""
    if "://" not in text and not text.startswith("file:"):
        return text if _SSH_SHORT_FORM.fullmatch(text) else str(absolute_path(text, directory))
    scheme, _, rest = text.partition(":")
    if scheme == "file":
        return str(_file_path(rest, directory))
    expected = 'expected an "https://" or "ssh://" URL, "user@host:path", or a path'
    parts = _split(text, expected)
    if parts.password or (parts.username and scheme in ("http", "https")):
        raise ValueError("a URL with a user or password in it: leave them out, the token has a key of its own")
    if scheme not in ("https", "http", "ssh") or not parts.hostname:
        raise ValueError(f"{expected}, got {_shown(text)}")
    return text


def _file_path(rest: str, directory: Path) -> Path:
    # "file:///a", "file://localhost/a" and "file:/a" are absolute; "file:a" and "file://a" are not
    path = rest[2:].removeprefix("localhost/") if rest.startswith("//") else rest
    if rest.startswith("//localhost/"):
        path = "/" + path
    return absolute_path(unquote(path), directory)


def _split(text: str, expected: str) -> SplitResult:
    try:
        return urlsplit(text)
    except ValueError:
        raise ValueError(f"{expected}, got {_shown(text)}") from None


def _host_and_port(parts: SplitResult, text: str, expected: str) -> tuple[str, int]:
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None:
        raise ValueError(f"{expected}, got {_shown(text)}")
    return host, port


def _shown(text: str) -> str:
    # what stands before an @ may be a password
    return "one with a user or password in it" if "@" in text else f'"{text}"'
