"""What is kept in memory: bounded by bytes, and what is hot stays."""

from __future__ import annotations

from datom_flight_server.versions.memory import Memory

MIB = 1024 * 1024


def read(memory: Memory[str], key: object, size: int) -> bool:
    """Ask for `key`, and keep it, of so many MiB, where it was missing; whether it was there."""
    if memory.get(key) is not None:
        return True
    memory.keep(key, f"value of {key}", size * MIB)
    return False


def test_what_fits_stays() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    for _ in range(2):
        for key in range(10):
            read(memory, key, 100)
    assert all(read(memory, key, 100) for key in range(10))
    assert memory.size_bytes == 1000 * MIB


def test_the_bytes_kept_never_exceed_the_limit() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    for step in range(2000):
        read(memory, step * 7919 % 83, step * 31 % 450)
        assert memory.size_bytes <= 1000 * MIB


def test_one_scan_of_something_huge_leaves_what_is_hot() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    for _ in range(3):
        for key in "hot":
            read(memory, key, 200)
    for block in range(10_000):
        read(memory, block, 100)
    assert all(key in memory for key in "hot")


def test_scans_again_and_again_leave_what_is_hotter() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    for _ in range(10):
        for key in "hot":
            read(memory, key, 200)
        for block in range(100):
            read(memory, block, 100)
    assert all(key in memory for key in "hot")


def test_what_becomes_hot_takes_the_place_of_what_was() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    for _ in range(3):
        for key in "old":
            read(memory, key, 250)
    for _ in range(10):
        for key in "new":
            read(memory, key, 250)
    assert all(key in memory for key in "new")


def test_something_large_takes_the_place_of_many_when_it_is_wanted_more_often_than_they() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    for _ in range(3):
        for key in range(8):
            read(memory, key, 100)
    assert not any(read(memory, "large", 700) for _ in range(3)), "as often as they is not more often"
    assert all(key in memory for key in range(8))
    for _ in range(3):
        read(memory, "large", 700)
    assert "large" in memory


def test_what_is_larger_than_there_is_room_for_is_not_kept() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    read(memory, "small", 100)
    assert not memory.keep("huge", "value", 1001 * MIB)
    assert "huge" not in memory
    assert "small" in memory


def test_what_grows_pushes_others_out() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    for key in range(8):
        read(memory, key, 100)
    value = memory.get(0)
    assert value is not None
    memory.resize(0, value, 700 * MIB)
    assert memory.size_bytes <= 1000 * MIB
    assert memory.get(0) is value


def test_what_is_replaced_or_dropped_frees_its_bytes() -> None:
    memory: Memory[str] = Memory(1000 * MIB)
    memory.keep("a", "first", 400 * MIB)
    memory.keep("a", "second", 300 * MIB)
    assert (memory.get("a"), memory.size_bytes) == ("second", 300 * MIB)
    memory.drop("a", "first")
    assert memory.get("a") == "second", "dropping a value leaves the one that took its place"
    memory.resize("a", "first", 10)
    assert memory.size_bytes == 300 * MIB
    memory.drop("a")
    assert (memory.get("a"), memory.size_bytes) == (None, 0)
