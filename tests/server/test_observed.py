"""What is asked of storage and git is counted, and answered as it would be otherwise."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from datom_flight.protocol.errors import ConflictError, DatomError
from datom_flight_server.metadata.git import Author
from datom_flight_server.metadata.observed import ObservedRepository
from datom_flight_server.outcomes import Outcomes
from datom_flight_server.storage.local import LocalStore
from datom_flight_server.storage.observed import ObservedStore
from support.writable import empty_remote


def counts(outcomes: Outcomes) -> dict[tuple[str, str], int]:
    return {key: total.count for key, total in outcomes.totals().items()}


def test_every_call_to_a_storage_is_counted_with_its_outcome(tmp_path: Path) -> None:
    outcomes = Outcomes()
    store = ObservedStore(LocalStore(str(tmp_path)), outcomes)
    assert store.uri == LocalStore(str(tmp_path)).uri
    store.put("a.json", b"{}")
    (tmp_path / "file").write_bytes(b"rows")
    store.put_file("b.parquet", tmp_path / "file")
    document = store.read("a.json")
    assert (document.data, document.etag) == (b"{}", store.etag("a.json"))
    assert store.read_if_changed("a.json", document.etag) is None
    assert b"".join(store.chunks("b.parquet")) == b"rows"
    assert list(store.keys("")) == ["a.json", "b.parquet"]
    store.check()
    store.sweep()
    with pytest.raises(DatomError):
        store.read("c.json")
    with pytest.raises(DatomError):
        list(store.chunks("c.parquet"))
    operations = ("put", "put_file", "read", "etag", "read_if_changed", "chunks", "keys", "check", "sweep")
    assert counts(outcomes) == {
        **{(operation, "ok"): 1 for operation in operations},
        ("read", "not_found"): 1,
        ("chunks", "not_found"): 1,
    }
    assert all(total.seconds > 0 for total in outcomes.totals().values())


def test_pieces_that_nobody_takes_to_the_end_are_counted_once(tmp_path: Path) -> None:
    outcomes = Outcomes()
    store = ObservedStore(LocalStore(str(tmp_path)), outcomes)
    store.put("a", b"x")
    pieces = store.chunks("a")
    assert next(pieces) == b"x"
    del pieces
    assert counts(outcomes)["chunks", "ok"] == 1


def test_what_is_no_error_of_ours_is_internal() -> None:
    outcomes = Outcomes()
    with pytest.raises(ZeroDivisionError), outcomes.of("read"):
        raise ZeroDivisionError
    assert counts(outcomes) == {("read", "internal"): 1}


def test_what_goes_to_a_git_remote_is_counted_with_its_outcome(tmp_path: Path) -> None:
    remote = str(empty_remote(tmp_path, "STUDY"))
    outcomes = Outcomes()
    author, now = Author("ann", "ann@example.org"), datetime.now(UTC)
    mine, theirs = (ObservedRepository(remote, None, "main", tmp_path / "clones", outcomes) for _ in range(2))
    commits = [
        each.commit(each.fetch(), {"x": name}, "m", author, now) for each, name in ((mine, b"1"), (theirs, b"2"))
    ]
    theirs.push(commits[1])
    with pytest.raises(ConflictError):
        mine.push(commits[0])
    assert counts(outcomes) == {("fetch", "ok"): 2, ("push", "ok"): 1, ("push", "conflict"): 1}
    mine.close()
    theirs.close()
