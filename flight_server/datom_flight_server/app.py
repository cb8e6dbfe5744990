"""The composition root: builds everything from the settings, serves, drains, stops."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Collection

from .auth.policy import RolePolicy
from .auth.tokens import Tokens
from .calls import Call
from .flight import connections
from .flight.actions import Actions
from .flight.admission import StreamLimits, Streams
from .flight.health import Health
from .flight.placement import Placement
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
from .sql.engine import Engine, EngineLimits
from .sql.statements import Statements
from .sql.where import WhereCompiler
from .stores import Stores
from .versions.arrivals import Limits
from .versions.documents import Documents
from .versions.payloads import Payloads
from .versions.prefetching import Prefetching
from .versions.projects import Projects
from .versions.reachability import Reachability
from .versions.spool import Spool
from .versions.writers import Writers

_SHUTDOWN_SECONDS = 5


class App:
    """A server that can be started once and stopped once.

    Args:
        access: told of every call that has ended, beside the metrics.
    """

    def __init__(self, settings: Settings, access: Callable[[Call], None] | None = None) -> None:
        self._settings = settings
        self._source = project_source(settings)
        self._stores = Stores()
        self._streams = Streams(_stream_limits(settings.limits), self._cut)
        self._rates = Rates(settings.limits.requests_per_second)
        self._where = WhereCompiler()
        self._replicas = Replicas(settings.server.replicas, settings.server.listen.partition(":")[0])
        self._metrics = Metrics(lambda project: project in self._source.projects())
        self._observers = [self._metrics.ended] if access is None else [self._metrics.ended, access]
        self._engine: Engine | None = None
        self._statements: Statements | None = None
        self._server: DatomFlightServer | None = None
        self._probes: list[Health | Management] = []
        self._pulse: Pulse | None = None
        self._repositories = Repositories(settings.cache.directory / "repositories")
        self._writers = Writers(lambda: self._source.projects().values(), self._repositories.open, self._stores.open)
        self._reachability = Reachability(lambda: self._source.projects().values(), self._stores.open)

    def start(self) -> str:
        """Serve, and give the URL: that of the settings, with the port taken.

        Raises:
            OSError: when the address cannot be listened on, or the cache directory cannot be written.
            UnavailableError: when the management or health address cannot be listened on.
        """
        # GetSchema and Flight's own checks would send our frames and paths to callers otherwise
        sys.tracebacklimit = 0
        settings = self._settings
        if settings.server.management is not None:
            self._probes.append(
                Management(settings.server.management, self.alive, self.ready, self.problems, self._metrics.registry)
            )
        if settings.server.health is not None:
            self._probes.append(Health(settings.server.health, self.ready))
        self._source.start()
        documents = Documents(settings.server.metadata_max_age_seconds)
        projects = Projects(self._source, self._stores.open, documents)
        tokens = Tokens.of(settings.auth)
        policy = RolePolicy()
        payloads = Payloads(settings.cache.directory, settings.cache.disk_bytes, settings.cache.memory_bytes)
        writing = settings.writes
        limits = Limits(writing.max_bytes, writing.max_rows, writing.max_seconds)
        spool = Spool(settings.cache.directory, limits)
        writes = Writes(projects, policy, tokens, spool, self._writers, self._streams, writing.max_concurrent)
        placement = Placement(self._replicas.urls)
        reads = Reads(projects, policy, payloads, self._where, self._streams, placement)
        self._engine = Engine(settings.cache.directory, _engine_limits(settings.sql))
        self._statements = Statements(projects, policy, payloads, self._where, self._engine)
        self._writers.start()
        self._watch(documents, payloads, self._engine)
        # last: it answers as soon as it is made
        self._server = DatomFlightServer(
            settings.server.listen,
            authenticator=tokens,
            rates=self._rates,
            reads=reads,
            actions=Actions(projects, policy, tokens, writes, Prefetching(payloads)),
            writes=writes,
            sql=FlightSql(projects, policy, payloads, self._statements, reads, writes, self._streams),
            ended=self._tell,
            certificate=settings.server.tls,
        )
        self._streams.start()
        if self._probes:
            self._pulse = Pulse(reached_at(settings.server.listen, self._server.port))
            self._pulse.start()
        return f"{settings.server.listen.rpartition(':')[0]}:{self._server.port}"

    def alive(self) -> bool:
        """Whether requests are answered, as far as is known; asked only where somebody probes."""
        return self._pulse is None or self._pulse.beats

    def ready(self) -> bool:
        """Whether new requests are welcome: started, and not stopping."""
        return self._server is not None and not self._streams.draining and self.alive()

    def problems(self) -> list[str]:
        """What is wrong now, one sentence each. None of it stops requests that do not need what is broken."""
        return [
            *self._source.problems(),
            *self._writers.problems(),
            *self._reachability.problems(),
            *self._replicas.problems(),
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

    def _cut(self, peers: Collection[str]) -> None:
        if self._server is not None:
            connections.cut(peers, self._server.port)

    def stop(self, grace_seconds: float) -> bool:
        """Refuse new streams, let running ones end within `grace_seconds`, stop. Whether all ended by themselves.

        When it is False a stalled reader may still hold a thread: only the end of the process frees it.
        """
        ended = self._streams.drain(grace_seconds)
        if self._engine is not None:
            # what still computes gives no batch after which it could be cut
            self._engine.close()
        self._streams.close()
        self._writers.close()
        self._source.close()
        if self._server is not None:
            # waits for every handler, and a stalled reader's never returns
            stopping = threading.Thread(target=self._server.shutdown, name="shutdown", daemon=True)
            stopping.start()
            stopping.join(_SHUTDOWN_SECONDS)
            ended = ended and not stopping.is_alive()
        if self._pulse is not None:
            self._pulse.close()
        for probe in self._probes:
            probe.close()
        if self._statements is not None:
            self._statements.close()
        self._where.close()
        return ended


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
