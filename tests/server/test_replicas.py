"""The replicas of the settings: as written, or what a name resolves to now."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from datom_flight_server.replicas import Replicas, addresses_of
from support.server import await_condition


class Names:
    """Answers lookups as told, and stops the time between them."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] = addresses
        self.lookups = 0
        self.seconds = 0.0
        self.answering = threading.Event()
        self.answering.set()

    def resolve(self, name: str, port: int) -> Sequence[str]:
        self.answering.wait(10)
        self.lookups += 1
        if not self.addresses:
            raise OSError(-2, "Name or service not known")
        return self.addresses

    def replicas(self, *addresses: str, scheme: str = "grpc") -> Replicas:
        return Replicas(addresses, scheme, self.resolve, lambda: self.seconds)


def test_urls_are_given_as_they_are_and_once() -> None:
    names = Names()
    assert names.replicas("grpc://a:1", "grpc+tls://b:2", "grpc://a:1").urls() == ("grpc://a:1", "grpc+tls://b:2")
    assert names.lookups == 0


def test_a_name_stands_for_every_address_it_resolves_to() -> None:
    replicas = Names("10.0.0.1", "10.0.0.2", "[fd00::3]").replicas("dns:///datom:8815", scheme="grpc+tls")
    await_condition(replicas.urls, 10, "the name is looked up")
    assert replicas.urls() == ("grpc+tls://10.0.0.1:8815", "grpc+tls://10.0.0.2:8815", "grpc+tls://[fd00::3]:8815")


def test_nobody_waits_for_a_lookup() -> None:
    names = Names("10.0.0.1")
    names.answering.clear()
    replicas = names.replicas("grpc://a:1", "dns:///datom:8815")
    assert replicas.urls() == ("grpc://a:1",)
    names.answering.set()
    await_condition(lambda: len(replicas.urls()) == 2, 10, "the name is looked up")


def test_a_name_is_looked_up_again_after_ten_seconds_and_not_before() -> None:
    names = Names("10.0.0.1")
    replicas = names.replicas("dns:///datom:8815")
    await_condition(replicas.urls, 10, "the name is looked up")
    names.addresses = ("10.0.0.2",)
    names.seconds = 9.9
    replicas.urls()
    assert names.lookups == 1
    names.seconds = 10
    await_condition(lambda: replicas.urls() == ("grpc://10.0.0.2:8815",), 10, "the name is looked up again")


def test_a_lookup_that_fails_leaves_what_was_found_and_is_told() -> None:
    names = Names("10.0.0.1")
    replicas = names.replicas("dns:///datom:8815")
    await_condition(replicas.urls, 10, "the name is looked up")
    assert replicas.problems() == []
    names.addresses = ()
    names.seconds = 10
    replicas.urls()
    await_condition(replicas.problems, 10, "the lookup fails")
    assert replicas.problems() == ['server.replicas: "dns:///datom:8815" cannot be resolved: Name or service not known']
    assert replicas.urls() == ("grpc://10.0.0.1:8815",)


def test_the_systems_own_names_are_known() -> None:
    assert "127.0.0.1" in addresses_of("localhost", 8815)
    assert addresses_of("::1", 8815) == ["[::1]"]
