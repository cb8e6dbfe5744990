"""Signals are heard whichever thread of the process gets them."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import signal, sys, threading
from datom_flight_server.signals import Signals

arriving = iter(Signals((signal.SIGTERM, signal.SIGHUP)))

def send():
    for number in (signal.SIGHUP, signal.SIGTERM):
        sys.stdin.readline()
        # to this thread, while the main thread waits
        signal.pthread_kill(threading.get_ident(), number)

threading.Thread(target=send, daemon=True).start()
for number in arriving:
    print(number.name, flush=True)
    if number == signal.SIGTERM:
        break
"""


def test_a_signal_that_another_thread_received_is_heard() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        heard, _ = process.communicate("\n\n", timeout=60)
    assert heard.split() == ["SIGHUP", "SIGTERM"]
    assert process.returncode == 0
