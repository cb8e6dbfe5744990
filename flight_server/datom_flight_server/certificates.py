"""Certificates and their keys, looked at before the libraries that will use them."""

from __future__ import annotations

import ssl
import tempfile
from pathlib import Path


def unusable(certificate: bytes, key: bytes) -> str | None:
    """Why this chain and private key, both PEM, cannot be served with; None when they can.

    gRPC would take them, and then refuse every connection.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = Path(folder, "certificate.pem"), Path(folder, "key.pem")
        for path, text in zip(paths, (certificate, key), strict=True):
            path.touch(mode=0o600)
            path.write_bytes(text)
        try:
            # a key with a password would be asked for on the terminal
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(*paths, password=lambda: "")
        except (ssl.SSLError, ValueError) as error:
            return f"certificate and key do not go together: {getattr(error, 'reason', None) or 'unusable'}"
    return None
