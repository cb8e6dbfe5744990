"""The composition root: builds everything from the settings, serves, drains, stops."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Collection
from functools import partial
from typing import TYPE_CHECKING

from datom_flight.protocol.errors import UnavailableError

from .auth.policy import RolePolicy
from .auth.tokens import Tokens
from .calls import Call
from .certificates import unusable
from .check import checks_here, failing_here
from .flight import connections
from .flight.actions import Actions
from .flight.admission import StreamLimits, Streams
from .flight.placement import Placement
from .flight.port import Port
from .flight.pulse import Pulse
from .flight.rates import Rates
from .flight.reads import Reads
from .flight.service import DatomFlightServer
from .flight.sql.service import FlightSql
from .flight.writes import Writes
from .governance.configured import project_source
from .listening import reached_at
from .management import Management
from .metrics import Metrics
from .readings import of_caches, of_git, of_governance, of_metadata, of_process, of_queries, of_storage, of_streams
from .replicas import Replicas
from .repositories import Repositories
from .settings import LimitsSettings, Settings, SqlSettings
from .sql.engine import Engine
from .sql.statements import Statements
from .sql.turns import EngineLimits
from .sql.where import WhereCompiler
from .stores import Stores
from .tracing import Tracing
from .versions.arrivals import Limits
from .versions.documents import Documents
from .versions.payloads import Payloads
from .versions.prefetching import Prefetching
from .versions.projects import Projects
from .versions.reachability import Reachability
from .versions.spool import Spool
from .versions.writers import Writers

if TYPE_CHECKING:
    from .flight.health import Health

_SHUTDOWN_SECONDS = 5

_log = logging.getLogger(__name__)

_RENEWED = frozenset(
    {"auth", "limits", "projects", "server.certificate", "server.key", "server.shutdown_grace_seconds"}
)
"""What of the settings may change under way."""


class App:
    """A server that can be started once and stopped once.

    Args:
        access: told of every call that has ended, beside the metrics.
    """

    def __init__(self, settings: Settings, access: Callable[[Call], None] | None = None) -> None:
        self._started = self._settings = settings
        self._source = project_source(settings)
        self._stores = Stores()
        self._streams = Streams(_stream_limits(settings.limits), self._cut)
        self._tokens = Tokens.of(settings.auth)
        self._rates = Rates(settings.limits.requests_per_second)
        self._where = WhereCompiler()
        self._replicas = Replicas(settings.server.replicas, settings.server.listen.partition(":")[0])
        self._metrics = Metrics(lambda project: project in self._source.projects())
        self._observers = [self._metrics.ended] if access is None else [self._metrics.ended, access]
        self._tracing: Tracing | None = None
        if settings.tracing.endpoint is not None:
            self._tracing = Tracing(settings.tracing.endpoint)
            self._observers.append(self._tracing)
        self._engine: Engine | None = None
        self._statements: Statements | None = None
        self._port: Port | None = None
        self._probes: list[Health | Management] = []
        self._pulse: Pulse | None = None
        self._repositories = Repositories(settings.cache.directory / "repositories")
        self._writers = Writers(lambda: self._source.projects().values(), self._repositories.open, self._stores.open)
        self._reachability = Reachability(lambda: self._source.projects().values(), self._stores.open)

    def start(self) -> str:
        """Serve, and give the URL: that of the settings, with the port taken.

        Raises:
            OSError: when the address cannot be listened on, or the cache directory cannot be written.
            UnavailableError: when the management or health address cannot be listened on, or the certificate not be
                served with.
        """
        # GetSchema and Flight's own checks would send our frames and paths to callers otherwise
        sys.tracebacklimit = 0
        settings = self._settings
        _refuse_unusable(settings)
        if settings.server.management is not None:
            self._probes.append(
                Management(settings.server.management, self.alive, self.ready, self.problems, self._metrics.registry)
            )
        if settings.server.health is not None:
            # gRPC is loaded by servers that need it
            from .flight.health import Health

            self._probes.append(Health(settings.server.health, self.ready))
        self._source.start()
        documents = Documents(settings.server.metadata_max_age_seconds)
        projects = Projects(self._source, self._stores.open, documents)
        policy = RolePolicy()
        payloads = Payloads(settings.cache.directory, settings.cache.disk_bytes, settings.cache.memory_bytes)
        writing = settings.writes
        limits = Limits(writing.max_bytes, writing.max_rows, writing.max_seconds)
        spool = Spool(settings.cache.directory, limits)
        writes = Writes(projects, policy, self._tokens, spool, self._writers, self._streams, writing.max_concurrent)
        placement = Placement(self._replicas.urls)
        reads = Reads(projects, policy, payloads, self._where, self._streams, placement)
        self._engine = Engine(settings.cache.directory, _engine_limits(settings.sql))
        self._statements = Statements(projects, policy, payloads, self._where, self._engine)
        self._stores.prepare(self._source.projects().values())
        self._writers.start()
        self._watch(documents, payloads, self._engine)
        serve = partial(
            DatomFlightServer,
            authenticator=self._tokens,
            rates=self._rates,
            reads=reads,
            actions=Actions(projects, policy, self._tokens, writes, Prefetching(payloads)),
            writes=writes,
            sql=FlightSql(projects, policy, payloads, self._statements, reads, writes, self._streams),
            ended=self._tell,
        )
        self._streams.start()
        # last: it answers as soon as it is made
        self._port = Port(serve, settings.server.listen, settings.server.tls)
        if self._probes:
            self._pulse = Pulse(reached_at(settings.server.listen, self._port.number))
            self._pulse.start()
        threading.Thread(target=self._look_around, name="start checks", daemon=True).start()
        return self._port.url

    def _look_around(self) -> None:
        """Say in the log what is wrong already, before somebody comes upon it."""
        here = [f"{result.subject}: {result.detail}" for result in checks_here(self._settings) if not result.is_good]
        wrong = [*here, *self._reachability.problems()]
        for sentence in wrong:
            _log.warning("%s", sentence)
        _log.info("start checks: %s", f"{len(wrong)} problems" if wrong else "all is well")

    def alive(self) -> bool:
        """Whether requests are answered, as far as is known; asked only where somebody probes."""
        return self._pulse is None or self._pulse.beats

    def ready(self) -> bool:
        """Whether new requests are welcome: started, and not stopping."""
        return self._port is not None and not self._streams.draining and self.alive()

    def problems(self) -> list[str]:
        """What is wrong now, one sentence each. None of it stops requests that do not need what is broken."""
        return [
            *self._source.problems(),
            *self._writers.problems(),
            *self._reachability.problems(),
            *self._replicas.problems(),
            *failing_here(self._settings),
            *(self._pulse.problems() if self._pulse is not None else ()),
        ]

    def _tell(self, call: Call) -> None:
        if self._pulse is None or call.id != self._pulse.request_id:
            for observer in self._observers:
                observer(call)

    def _watch(self, documents: Documents, payloads: Payloads, engine: Engine) -> None:
        source, watch = self._source, self._metrics.watch
        watch(lambda: of_process(self.ready()))
        watch(lambda: of_streams(self._streams.open, self._streams.queued))
        watch(lambda: of_caches(payloads))
        watch(lambda: of_queries(engine))
        watch(lambda: of_storage(self._stores))
        watch(lambda: of_git(self._repositories, self._writers))
        watch(lambda: of_metadata(documents, source.projects().values()))
        watch(lambda: of_governance(source))

    def refresh(self) -> None:
        """Look for new projects, soon."""
        self._source.refresh()

    def renew(self, settings: Settings) -> list[str]:
        """Go by `settings` from now on, and give the keys that changed but hold only after a restart.

        Streams go on, but for those whose tokens were taken back.

        Raises:
            UnavailableError: a new certificate cannot be served with; all stays as it was.
        """
        _refuse_unusable(settings)
        started, before, self._settings = self._started, self._settings, settings
        self._tokens.renew(settings.auth)
        self._rates.per_second = settings.limits.requests_per_second
        self._streams.limits = _stream_limits(settings.limits)
        self._streams.cut(lambda caller: self._tokens.withdrawn(caller.bearer))
        self._source.renew(project_source(settings))
        self.refresh()
        listen = settings.server.listen == started.server.listen
        if self._port is not None and listen and settings.server.tls != before.server.tls:
            self._port.renew(settings.server.tls)
        now, once = _lasting(settings), _lasting(started)
        return sorted(key for key in {**once, **now} if once.get(key) != now.get(key))

    def _cut(self, peers: Collection[str]) -> None:
        if self._port is not None:
            connections.cut(peers, self._port.number)

    def stop(self, grace_seconds: float | None = None) -> bool:
        """Refuse new streams, let running ones end within the grace period, stop. Whether all ended by themselves.

        Args:
            grace_seconds: instead of those of the settings.
        """
        if grace_seconds is None:
            grace_seconds = self._settings.server.shutdown_grace_seconds
        ended = self._streams.drain(grace_seconds)
        if self._engine is not None:
            # what still computes gives no batch after which it could be cut
            self._engine.close()
        self._streams.close()
        self._writers.close()
        self._source.close()
        if self._port is not None:
            ended = self._port.close(_SHUTDOWN_SECONDS) and ended
        if self._pulse is not None:
            self._pulse.close()
        if self._tracing is not None:
            self._tracing.close()
        for probe in self._probes:
            probe.close()
        if self._statements is not None:
            self._statements.close()
        self._where.close()
        return ended


def _refuse_unusable(settings: Settings) -> None:
    why = unusable(*settings.server.tls) if settings.server.tls is not None else None
    if why is not None:
        raise UnavailableError(
            f"server.certificate: {why}", hint="give the chain and the key that were issued together"
        )


def _lasting(settings: Settings) -> dict[str, object]:
    """What is settled once, at start, by its key."""
    return {
        f"{name}.{key}": value
        for name, table in settings
        if table is not None and name not in _RENEWED
        for key, value in table
        if f"{name}.{key}" not in _RENEWED
    }


def _stream_limits(settings: LimitsSettings) -> StreamLimits:
    return StreamLimits(
        streams=settings.max_streams,
        streams_each=settings.max_streams_each,
        queued=settings.max_queued,
        queue_seconds=settings.queue_seconds,
        rows=settings.max_rows,
        size=settings.max_bytes,
        idle_seconds=settings.idle_seconds,
        seconds=settings.max_seconds,
    )


def _engine_limits(settings: SqlSettings) -> EngineLimits:
    return EngineLimits(
        memory_bytes=settings.memory_bytes,
        spill_bytes=settings.spill_bytes,
        threads=settings.threads,
        seconds=settings.max_seconds,
        result_rows=settings.max_rows,
        result_bytes=settings.max_bytes,
        concurrent=settings.max_concurrent,
        concurrent_each=settings.concurrent_each,
        queue_seconds=settings.queue_seconds,
        stalled_seconds=settings.stalled_seconds,
    )
