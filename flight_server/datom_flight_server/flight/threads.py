"""What Python keeps of a thread that gRPC lends it for a call."""

from __future__ import annotations

import ctypes
import threading

_ensure = ctypes.pythonapi.PyGILState_Ensure
_ensure.argtypes = []
_ensure.restype = ctypes.c_int
_release = ctypes.pythonapi.PyGILState_Release
_release.argtypes = [ctypes.c_int]
_release.restype = None


class HeldThread:
    """The current thread, for which Python keeps its state until `let_go`.

    Threads that Python did not start get one when C++ calls into Python, and lose it when that returns: a mapping of
    memory made, faulted in and unmapped, eight times in a small read, which took a tenth of its time.
    """

    def __init__(self) -> None:
        self._state = _ensure()
        self._thread = threading.get_ident()

    def let_go(self) -> None:
        """To be called once, in the same thread; in another it does nothing, and the state stays with its thread."""
        if threading.get_ident() == self._thread:
            _release(self._state)
