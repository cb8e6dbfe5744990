"""What `import datom_flight` gives, and what it leaves unloaded."""

from __future__ import annotations

import subprocess
import sys

import pytest

import datom_flight


def test_every_public_name_is_there() -> None:
    for name in datom_flight.__all__:
        assert getattr(datom_flight, name).__name__ == name
        assert name in dir(datom_flight)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'conect'"):
        _ = datom_flight.conect


@pytest.mark.parametrize("module", ["datom_flight", "datom_flight.protocol", "datom_flight.protocol.messages"])
def test_the_protocol_loads_neither_arrow_nor_keyring(module: str) -> None:
    program = (
        f"import {module}, sys; print([m for m in ('pyarrow', 'keyring', 'tenacity', 'click') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
