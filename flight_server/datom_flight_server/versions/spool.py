"""Where tables are kept on the disk while they come in, until they are written or refused."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pyarrow as pa

from datom_flight.protocol.errors import InvalidRequestError

from .arrivals import Arrivals, Deadline, Limits
from .spooled import Spooled, disk_errors
from .stored_form import StoredForm


class Spool:
    """Where tables are kept while they come in; nothing of them outlives their writing.

    What killed processes left behind is removed when one starts.

    Args:
        directory: made if missing; may be shared with other processes.
        clock: seconds, monotonic.
    """

    def __init__(self, directory: Path, limits: Limits, clock: Callable[[], float] = time.monotonic) -> None:
        self._directory = directory / "spool"
        self._limits = limits
        self._clock = clock
        self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._sweep()

    @contextmanager
    def receive(self, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[Spooled]:
        """The table that `batches` make, checked; its files are removed when the context ends.

        Args:
            batches: of `schema`, not to be trusted; none is asked for when the schema alone is refused.

        Raises:
            DatomError: ``not_hashable`` (no rows, no columns, or columns of types that cannot be stored),
                ``invalid_argument`` (a malformed batch, or of another schema), ``too_large`` with the limit's name in
                ``fields["limit"]``, ``timeout``, ``overloaded`` (the disk is full), or what `batches` raises.
        """
        form = StoredForm(schema)
        deadline = Deadline(self._limits.max_seconds, self._clock)
        arrivals = Arrivals(self._limits, deadline)
        with self._folder() as folder:
            path = folder / "values.arrow"
            with ExitStack() as open_files:
                with disk_errors():
                    file = open_files.enter_context(pa.OSFile(str(path), "wb"))
                    writer = pa.ipc.new_file(file, form.flat_schema)
                for batch in arrivals.batches(schema, form, batches):
                    with disk_errors():
                        writer.write_batch(batch)
                with disk_errors():
                    writer.close()
                    file.close()
            if arrivals.rows == 0:
                raise InvalidRequestError("a table without rows has no identity", code="not_hashable", hint="add rows")
            yield Spooled(path, form, arrivals.rows, arrivals.bytes, deadline)

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A new folder, locked for as long as it is in use, and gone afterwards."""
        folder = self._directory / uuid.uuid4().hex
        with ExitStack() as held:
            with disk_errors(), _locked(self._directory, fcntl.LOCK_SH):
                folder.mkdir(mode=0o700)
                held.callback(shutil.rmtree, folder, ignore_errors=True)
                held.enter_context(_locked(folder, fcntl.LOCK_EX))
            yield folder

    def _sweep(self) -> None:
        """Remove the folders that nobody holds."""
        with _locked(self._directory, fcntl.LOCK_EX):  # none is between being made and being locked
            for folder in self._directory.iterdir():
                with suppress(OSError), _locked(folder, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    shutil.rmtree(folder)


@contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    """Around what needs a lock on `folder`; raises OSError when it cannot be had at once and `how` says so."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, how)
        yield
    finally:
        os.close(descriptor)
