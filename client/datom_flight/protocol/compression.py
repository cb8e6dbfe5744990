"""Compression of rows, for callers who ask for it in a header, which servers that do not know it pass over."""

from __future__ import annotations

from .errors import InvalidRequestError

COMPRESSION_HEADER = "x-datom-compression"
CODECS = ("lz4", "zstd")


def validate_codec(text: str) -> str:
    """`text`, which must be one of `CODECS`.

    Raises:
        InvalidRequestError: ``invalid_argument``.
    """
    if text not in CODECS:
        raise InvalidRequestError(
            f'compression "{text}" is not one of {", ".join(CODECS)}', hint="leave it out for none"
        )
    return text
