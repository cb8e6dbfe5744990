"""Where servers are: the URLs that `connect` takes, in their one normal form."""

from __future__ import annotations

from urllib.parse import urlsplit

from .protocol.errors import InvalidRequestError

DEFAULT_PORT = 8815
SCHEMES = ("grpc", "grpc+tls")


def parse_urls(text: str) -> list[str]:
    """The replicas in a comma-separated list, normalised, each once, in the order given.

    Raises:
        InvalidRequestError: ``invalid_argument``, for a list without a URL or one that is not ``grpc://host[:port]`` or
            ``grpc+tls://host[:port]``.
    """
    urls = [normalise_url(part.strip()) for part in text.split(",") if part.strip()]
    if not urls:
        raise _refusal("the URL is empty")
    return list(dict.fromkeys(urls))


def normalise_url(url: str) -> str:
    """`url` in lower case, with its port and nothing after it: what a token is stored under.

    Raises:
        InvalidRequestError: as `parse_urls`.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refusal(f'"{url}" is not a URL') from None
    if parts.username is not None or parts.password is not None:
        raise _refusal("the URL holds a user name or password, which go into the token")
    if parts.scheme.lower() not in SCHEMES:
        raise _refusal(f'"{url}" is not a grpc:// or grpc+tls:// URL')
    if not parts.hostname or any(character.isspace() for character in parts.hostname):
        raise _refusal(f'"{url}" names no host')
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _refusal(f'"{url}" has something after the port')
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme.lower()}://{host}:{port or DEFAULT_PORT}"


def _refusal(why: str) -> InvalidRequestError:
    return InvalidRequestError(why, hint='write it like "grpc://127.0.0.1:8815" or "grpc+tls://datom.example.org:8815"')
