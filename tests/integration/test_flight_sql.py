"""Flight SQL on the wire: what drivers that are not at hand would send, and what none should."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.flight as fl
import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datom_flight_server.flight.sql import flight_pb2, flight_sql_pb2
from datom_flight_server.flight.sql import service as sql_service
from datom_flight_server.flight.sql.messages import packed, unpacked
from support.answers import assert_reveals_nothing, code_of
from support.server import Server, running, write_config
from support.stores import write_store

M = TypeVar("M", bound=Message)

sql = flight_sql_pb2
ENDS = sql.ActionEndTransactionRequest

DM = pa.table({"USUBJID": ["01-001", "01-002", "01-003"], "AGE": pa.array([71, 64, 58], pa.int32())})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flight_sql")
    write_store(folder / "one", {"dm": [DM.slice(0, 2), DM]})
    write_store(folder / "two", {"dm": [DM.slice(0, 1)]})
    return folder


def config(folder: Path, name: str) -> Path:
    projects = {
        "STUDY_001": {"data": f"file://{folder / 'one'}"},
        "STUDY_002": {"data": f"file://{folder / 'two'}"},
    }
    return write_config(folder / name, projects)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with running(config(folder, "server")) as server:
        yield server


class Caller:
    """A plain Flight client of one server with one token, which keeps no session."""

    def __init__(self, server: Server, token: str | None = None, **headers: str) -> None:
        self._client = server.raw()
        sent = [(b"authorization", f"Bearer {token or server.token()}".encode())]
        sent += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
        self._options = fl.FlightCallOptions(timeout=30, headers=sent)

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *exc: object) -> None:
        self._client.close()

    def info(self, command: Message | bytes) -> fl.FlightInfo:
        return self._client.get_flight_info(fl.FlightDescriptor.for_command(_bytes(command)), self._options)

    def schema(self, command: Message) -> pa.Schema:
        return self._client.get_schema(fl.FlightDescriptor.for_command(packed(command)), self._options).schema

    def json_schema(self, command: bytes) -> pa.Schema:
        return self._client.get_schema(fl.FlightDescriptor.for_command(command), self._options).schema

    def get(self, ticket: fl.Ticket | bytes) -> pa.Table:
        return self._client.do_get(
            ticket if isinstance(ticket, fl.Ticket) else fl.Ticket(ticket), self._options
        ).read_all()

    def rows(self, command: Message) -> pa.Table:
        info = self.info(command)
        table = pa.concat_tables([self.get(endpoint.ticket) for endpoint in info.endpoints])
        assert table.schema.equals(info.schema), "a stream has the schema that was announced, nullability included"
        return table

    def action(self, name: str, body: Message | bytes = b"") -> list[bytes]:
        data = _bytes(body)
        return [result.body.to_pybytes() for result in self._client.do_action(fl.Action(name, data), self._options)]

    def flight_action(self, name: str, body: Message, kind: type[M]) -> M:
        """The result of an action of Flight itself, which has no wrapping."""
        (result,) = self.action(name, body.SerializeToString())
        return kind.FromString(result)

    def sql_action(self, name: str, body: Message, kind: type[M]) -> M:
        (result,) = self.action(name, body)
        return unpacked(result, kind)

    def prepare(self, query: str, **more: Any) -> Any:
        asked = sql.ActionCreatePreparedStatementRequest(query=query, **more)
        return self.sql_action("CreatePreparedStatement", asked, sql.ActionCreatePreparedStatementResult)

    def put(self, command: Message | bytes, data: pa.RecordBatch) -> bytes:
        descriptor = fl.FlightDescriptor.for_command(_bytes(command))
        writer, answers = self._client.do_put(descriptor, data.schema, self._options)
        with writer:
            writer.write_batch(data)
            writer.done_writing()
            answer = answers.read()
        return bytes(answer)

    def bind(self, handle: bytes, **parameters: Any) -> bytes:
        """The handle of the statement with these parameters."""
        command = sql.CommandPreparedStatementQuery(prepared_statement_handle=handle)
        answer = self.put(command, pa.record_batch({name: [value] for name, value in parameters.items()}))
        return sql.DoPutPreparedStatementResult.FromString(answer).prepared_statement_handle

    def list_actions(self) -> set[str]:
        return {action.type for action in self._client.list_actions(self._options)}


def _bytes(message: Message | bytes) -> bytes:
    return message if isinstance(message, bytes) else packed(message)


@pytest.fixture
def caller(server: Server) -> Iterator[Caller]:
    with Caller(server, x_datom_project="STUDY_001") as caller:
        yield caller


def refusal(server: Server, caught: pytest.ExceptionInfo[Exception]) -> str:
    assert_reveals_nothing(str(caught.value), server)
    return code_of(caught.value)


EMPTY = [
    sql.CommandGetPrimaryKeys(db_schema="STUDY_001", table="dm"),
    sql.CommandGetExportedKeys(db_schema="STUDY_001", table="dm"),
    sql.CommandGetImportedKeys(db_schema="STUDY_001", table="dm"),
    sql.CommandGetCrossReference(pk_table="dm", fk_table="ae"),
]


@pytest.mark.parametrize("command", EMPTY, ids=lambda command: command.DESCRIPTOR.name)
def test_nothing_is_a_key_of_anything(caller: Caller, command: Message) -> None:
    assert caller.rows(command).num_rows == 0
    assert caller.schema(command) == caller.info(command).schema


@pytest.mark.parametrize(
    ("command", "count"),
    [
        (sql.CommandGetSqlInfo(info=[0, 8]), 2),
        (sql.CommandGetXdbcTypeInfo(data_type=0), 0),
        (sql.CommandGetXdbcTypeInfo(), 19),
        (sql.CommandGetCatalogs(), 1),
        (sql.CommandGetDbSchemas(db_schema_filter_pattern="STUDY_00%"), 2),
        (sql.CommandGetTables(table_name_filter_pattern="dm"), 2),
        (sql.CommandGetTables(db_schema_filter_pattern="STUDY\\_001", include_schema=True), 1),
        (sql.CommandGetTableTypes(), 1),
    ],
    ids=lambda value: value.DESCRIPTOR.name if isinstance(value, Message) else str(value),
)
def test_what_there_is_comes_with_the_schema_announced(caller: Caller, command: Message, count: int) -> None:
    assert caller.rows(command).num_rows == count
    assert len(caller.info(command).endpoints) == 1


def test_a_statement_runs_without_being_prepared(caller: Caller) -> None:
    command = sql.CommandStatementQuery(query="SELECT max(AGE) AS oldest FROM dm")
    assert caller.rows(command).to_pydict() == {"oldest": [71]}
    assert caller.schema(command).names == ["oldest"]


def test_what_was_resolved_is_said_and_travels_in_the_ticket(caller: Caller) -> None:
    info = caller.info(sql.CommandStatementQuery(query="SELECT max(AGE) AS oldest FROM dm"))
    (pin,) = json.loads(bytes(info.app_metadata))["pins"]
    assert (pin["project"], pin["table"], len(pin["version"])) == ("STUDY_001", "dm", 64)
    (endpoint,) = info.endpoints
    assert endpoint.locations == []
    assert unpacked(endpoint.ticket.ticket, sql.TicketStatementQuery).statement_handle


def test_a_prepared_statement_says_its_schemas_and_is_no_update(caller: Caller) -> None:
    prepared = caller.prepare("SELECT USUBJID FROM dm WHERE AGE > ?")
    assert prepared.HasField("is_update")
    assert not prepared.is_update
    assert pa.ipc.read_schema(pa.BufferReader(prepared.dataset_schema)).names == ["USUBJID"]
    assert len(pa.ipc.read_schema(pa.BufferReader(prepared.parameter_schema))) == 1


def test_a_handle_runs_on_another_replica_with_parameters_bound_elsewhere(folder: Path, server: Server) -> None:
    with Caller(server, x_datom_project="STUDY_001") as one:
        handle = one.prepare("SELECT USUBJID FROM dm WHERE AGE > ?").prepared_statement_handle
        bound = one.bind(handle, **{"0": 65})
    with running(config(folder, "replica")) as replica, Caller(replica, server.token()) as two:
        for each, count in ((bound, 1), (two.bind(handle, **{"0": 60}), 2)):
            command = sql.CommandPreparedStatementQuery(prepared_statement_handle=each)
            assert two.rows(command).num_rows == count
            assert two.schema(command).names == ["USUBJID"]


def test_a_handle_and_a_ticket_grant_nothing(server: Server, caller: Caller) -> None:
    handle = caller.prepare("SELECT max(AGE) FROM dm").prepared_statement_handle
    command = sql.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    (endpoint,) = caller.info(command).endpoints
    with Caller(server, server.token("reader", "STUDY_002")) as stranger:
        with pytest.raises(fl.FlightError) as caught:
            stranger.info(command)
        assert refusal(server, caught) == "not_found"
        with pytest.raises(fl.FlightError) as caught:
            stranger.get(endpoint.ticket)
        assert refusal(server, caught) == "not_found"


def test_parameters_can_be_taken_back(caller: Caller) -> None:
    handle = caller.prepare("SELECT count(*) AS n FROM dm").prepared_statement_handle
    command = sql.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    answer = caller.put(command, pa.record_batch({"0": pa.array([], pa.int32())}))
    bound = sql.DoPutPreparedStatementResult.FromString(answer).prepared_statement_handle
    assert caller.rows(sql.CommandPreparedStatementQuery(prepared_statement_handle=bound)).to_pydict() == {"n": [3]}


def test_too_large_parameters_are_refused(server: Server, caller: Caller) -> None:
    handle = caller.prepare("SELECT ? AS x").prepared_statement_handle
    with pytest.raises(fl.FlightError) as caught:
        caller.bind(handle, **{"0": "x" * 2_000_000})
    assert refusal(server, caught) == "too_large"


@pytest.mark.parametrize("kind", [sql.CommandStatementUpdate, sql.CommandPreparedStatementUpdate])
def test_an_update_is_refused(server: Server, caller: Caller, kind: type[Message]) -> None:
    with pytest.raises(fl.FlightError, match="read-only") as caught:
        caller.put(kind(), pa.record_batch({"0": [1]}))
    assert refusal(server, caught) == "sql_error"


def test_a_transaction_s_id_is_all_that_there_is_of_it(folder: Path, server: Server, caller: Caller) -> None:
    begun = caller.sql_action("BeginTransaction", sql.ActionBeginTransactionRequest(), sql.ActionBeginTransactionResult)
    assert json.loads(begun.transaction_id)["as_of"]
    query = "SELECT count(*) AS n FROM dm"
    command = sql.CommandStatementQuery(query=query, transaction_id=begun.transaction_id)
    assert caller.rows(command).to_pydict() == {"n": [3]}
    earlier = json.dumps({"as_of": "2026-01-15T00:00:00+00:00"}).encode()
    assert caller.rows(sql.CommandStatementQuery(query=query, transaction_id=earlier)).to_pydict() == {"n": [2]}
    handle = caller.prepare(query, transaction_id=earlier).prepared_statement_handle
    command_ = sql.CommandPreparedStatementQuery(prepared_statement_handle=handle)
    assert caller.rows(command_).to_pydict() == {"n": [2]}
    commit = ENDS(transaction_id=earlier, action=ENDS.END_TRANSACTION_COMMIT)
    rollback = ENDS(transaction_id=earlier, action=ENDS.END_TRANSACTION_ROLLBACK)
    assert caller.action("EndTransaction", commit) == caller.action("EndTransaction", rollback) == []


@pytest.mark.parametrize(
    "asked",
    [
        ENDS(transaction_id=b"x", action=ENDS.END_TRANSACTION_COMMIT),
        ENDS(transaction_id=b'{"as_of":"2026-01-15"}'),
        ENDS(transaction_id=b'{"as_of":"yesterday"}', action=ENDS.END_TRANSACTION_COMMIT),
        ENDS(action=ENDS.END_TRANSACTION_ROLLBACK),
    ],
)
def test_the_end_of_no_transaction_is_refused(server: Server, caller: Caller, asked: Message) -> None:
    with pytest.raises(fl.FlightError) as caught:
        caller.action("EndTransaction", asked)
    assert refusal(server, caught) == "invalid_argument"


def test_closing_never_fails(caller: Caller) -> None:
    for handle in (b"", b"junk", packed(sql.ActionClosePreparedStatementRequest(prepared_statement_handle=b"x"))):
        assert caller.action("ClosePreparedStatement", handle) == []
    closed = caller.flight_action("CloseSession", flight_pb2.CloseSessionRequest(), flight_pb2.CloseSessionResult)
    assert closed.status == flight_pb2.CloseSessionResult.CLOSED


def test_nothing_is_cancelled_but_streams(caller: Caller) -> None:
    asked = flight_pb2.CancelFlightInfoRequest(info=b"x")
    result = caller.flight_action("CancelFlightInfo", asked, flight_pb2.CancelFlightInfoResult)
    assert result.status == flight_pb2.CANCEL_STATUS_NOT_CANCELLABLE
    older = caller.sql_action("CancelQuery", sql.ActionCancelQueryRequest(info=b"x"), sql.ActionCancelQueryResult)
    assert older.result == sql.ActionCancelQueryResult.CANCEL_RESULT_NOT_CANCELLABLE


def test_every_action_is_listed(caller: Caller) -> None:
    assert set(sql_service.ACTIONS) <= caller.list_actions()


@pytest.mark.parametrize(
    "name", ["CommandStatementSubstraitPlan", "CommandFromTheFuture", "ActionBeginTransactionRequest"]
)
def test_a_command_that_is_not_supported_is_unimplemented(server: Server, caller: Caller, name: str) -> None:
    command = Packed(type_url=f"type.googleapis.com/arrow.flight.protocol.sql.{name}").SerializeToString()
    for ask in (
        lambda: caller.info(command),
        lambda: caller.get(command),
        lambda: caller.put(command, pa.record_batch({"0": [1]})),
    ):
        with pytest.raises(pa.ArrowNotImplementedError) as caught:
            ask()
        assert refusal(server, caught) == "unsupported"


@pytest.mark.parametrize(
    "name", ["BeginSavepoint", "EndSavepoint", "CreatePreparedSubstraitPlan", "RenewFlightEndpoint"]
)
def test_an_action_that_is_not_supported_is_unimplemented(server: Server, caller: Caller, name: str) -> None:
    with pytest.raises(pa.ArrowNotImplementedError) as caught:
        caller.action(name)
    assert refusal(server, caught) == "unsupported"


def test_only_what_settles_something_answers_with_an_authorization(server: Server) -> None:
    seen: list[tuple[fl.FlightMethod, bool]] = []

    class Watcher(fl.ClientMiddleware):  # type: ignore[misc]
        def __init__(self, method: fl.FlightMethod) -> None:
            self._method = method

        def received_headers(self, headers: dict[str, list[str]]) -> None:
            seen.append((self._method, "authorization" in headers))

    class Factory(fl.ClientMiddlewareFactory):  # type: ignore[misc]
        def start_call(self, info: fl.CallInfo) -> Watcher:
            return Watcher(info.method)

    options = server.call_options()
    with fl.FlightClient(server.url, middleware=[Factory()]) as client:
        client.get_flight_info(fl.FlightDescriptor.for_command(packed(sql.CommandGetCatalogs())), options)
        list(client.do_action(fl.Action("CloseSession", b""), options))
        list(client.do_action(fl.Action("GetSessionOptions", b""), options))
        assert not any(found for _, found in seen)
        list(client.do_action(fl.Action("SetSessionOptions", b""), options))
        assert any(found for _, found in seen)


def test_other_commands_are_what_they_were(caller: Caller) -> None:
    info = caller.info(b'{"project":"STUDY_001","table":"dm"}')
    assert caller.get(info.endpoints[0].ticket).to_pydict() == DM.to_pydict()


# Queries in JSON


def asked(query: str, **more: Any) -> bytes:
    return json.dumps({"project": "STUDY_001", "sql": query, **more}).encode()


def answer(caller: Caller, query: str, **more: Any) -> pa.Table:
    """The rows that GetFlightInfo's tickets give, which are those of a ticket written by hand."""
    command = asked(query, **more)
    info = caller.info(command)
    table = pa.concat_tables([caller.get(endpoint.ticket) for endpoint in info.endpoints])
    by_hand = caller.get(command)
    assert table.equals(by_hand)
    assert table.schema.equals(info.schema)
    assert by_hand.schema.equals(info.schema, check_metadata=True)
    described = caller.json_schema(command)
    assert described.equals(info.schema, check_metadata=True)
    return table


@pytest.mark.parametrize("query", ["SELECT * FROM dm", "SELECT AGE FROM dm WHERE AGE > 60", "SELECT max(AGE) FROM dm"])
def test_a_query_in_json_is_planned_as_a_statement_is(caller: Caller, query: str) -> None:
    in_json, in_sql = caller.info(asked(query)), caller.info(sql.CommandStatementQuery(query=query))
    assert in_json.schema.equals(in_sql.schema, check_metadata=True)
    assert [each.ticket for each in in_json.endpoints] == [each.ticket for each in in_sql.endpoints]
    assert in_json.app_metadata == in_sql.app_metadata
    assert (in_json.total_records, in_json.total_bytes) == (in_sql.total_records, in_sql.total_bytes)
    assert answer(caller, query).num_rows == caller.rows(sql.CommandStatementQuery(query=query)).num_rows


def test_a_query_in_json_reads_as_of_an_instant(caller: Caller) -> None:
    assert answer(caller, "SELECT count(*) AS n FROM dm", as_of="2026-01-15").to_pydict() == {"n": [2]}


def test_a_query_s_own_project_and_instant_go_before_the_connection_s(server: Server) -> None:
    count = "SELECT count(*) AS n FROM dm"
    with Caller(server, x_datom_project="STUDY_002", x_datom_as_of="2026-02-15") as caller:
        assert caller.get(asked(count, project=None)).to_pydict() == {"n": [1]}
        assert caller.get(asked(count)).to_pydict() == {"n": [3]}
        assert caller.get(asked(count, as_of="2026-01-15")).to_pydict() == {"n": [2]}


def test_a_query_without_a_project_reads_the_only_one_the_caller_sees(server: Server) -> None:
    command = asked("SELECT count(*) AS n FROM dm", project=None)
    with Caller(server, server.token("reader", "STUDY_002")) as caller:
        assert caller.get(command).to_pydict() == {"n": [1]}
    with Caller(server) as caller, pytest.raises(fl.FlightError, match="no project is chosen"):
        caller.get(command)


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        ("SELECT ? AS a, ? AS b", [65, "x"]),
        ("SELECT $2 AS b, $1 AS a", {"1": 65, "2": "x"}),
        ("SELECT $old AS a, $text AS b", {"text": "x", "old": 65}),
        ("SELECT $b AS b, $a AS a", {"a": 65, "b": "x"}),
    ],
)
def test_parameters_come_in_order_or_by_name(caller: Caller, query: str, parameters: Any) -> None:
    (row,) = answer(caller, query, parameters=parameters).to_pylist()
    assert row == {"a": 65, "b": "x"}


def test_parameters_of_every_type_of_json_are_bound(caller: Caller) -> None:
    values = [None, True, 2**62, -1, 1.5, 'Zürich\'s "best"']
    query = "SELECT ? IS NULL AS a, ? AS b, ? AS c, ? AS d, ? AS e, ? AS f"
    (row,) = answer(caller, query, parameters=values).to_pylist()
    assert list(row.values()) == [True, *values[1:]]


def test_parameters_of_other_types_come_as_an_arrow_stream(caller: Caller) -> None:
    batch = pa.record_batch({"day": [date(2026, 1, 15)], "sum": [Decimal("1.50")]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    encoded = base64.b64encode(sink.getvalue()).decode()
    (row,) = answer(caller, "SELECT $day + 1 AS day, $sum * 2 AS sum", parameters=encoded).to_pylist()
    assert row == {"day": date(2026, 1, 16), "sum": Decimal("3.00")}


@pytest.mark.parametrize(
    "more",
    [
        {"parameters": []},
        {"parameters": None},
        {"parameters": [1, 2]},
        {"parameters": {"other": 1}},
        {"parameters": {"x": 1, "y": 2}},
        {"parameters": [2**80]},
        {"parameters": ["\ud800"]},
        {"parameters": "not base64"},
        {"parameters": ["x" * 2_000_000]},
        {"pins": {}},
        {"as_of": "soon"},
        {"limit": 3},
    ],
    ids=str,
)
def test_a_query_in_json_that_is_malformed_is_refused(server: Server, caller: Caller, more: Any) -> None:
    command = asked("SELECT $x AS x", **{"parameters": [1], **more})
    for ask in (caller.info, caller.get):
        with pytest.raises(fl.FlightError) as caught:
            ask(command)
        assert refusal(server, caught) in ("invalid_argument", "too_large")


def test_pins_give_the_versions_that_a_query_leaves_open(caller: Caller) -> None:
    then = caller.info(asked("SELECT * FROM dm", as_of="2026-01-15"))
    (pin,) = told = json.loads(bytes(then.app_metadata))["pins"]
    assert answer(caller, "SELECT count(*) AS n FROM dm", pins=told).to_pydict() == {"n": [2]}
    short = {**pin, "version": pin["version"][:8]}
    assert answer(caller, "SELECT count(*) AS n FROM dm", pins=[short]).to_pydict() == {"n": [2]}
    beside = "SELECT (SELECT count(*) FROM dm) AS n, (SELECT count(*) FROM dm AT (TIMESTAMP => '2026-02-15')) AS later"
    table = answer(caller, beside, pins=told)
    assert table.to_pydict() == {"n": [2], "later": [3]}
    both = json.loads(caller.info(asked(beside, pins=told)).schema.metadata[b"datom.pins"])
    assert both[0] == pin
    assert answer(caller, beside, pins=both).to_pydict() == {"n": [2], "later": [3]}


def test_a_table_that_is_not_pinned_is_not_read(server: Server, caller: Caller) -> None:
    with pytest.raises(fl.FlightError, match=r"STUDY_001\.dm") as caught:
        caller.get(asked("SELECT * FROM dm", pins=[]))
    assert refusal(server, caught) == "version_not_found"


def test_a_pin_of_other_data_is_refused(server: Server, caller: Caller) -> None:
    (pin,) = json.loads(bytes(caller.info(asked("SELECT * FROM dm")).app_metadata))["pins"]
    for ask in (caller.info, caller.get):
        with pytest.raises(fl.FlightError) as caught:
            ask(asked("SELECT max(AGE) FROM dm", pins=[{**pin, "data_sha": "0" * 64}]))
        assert refusal(server, caught) == "integrity_mismatch"


def test_a_query_in_json_grants_nothing(server: Server) -> None:
    with Caller(server, server.token("reader", "STUDY_002")) as stranger:
        for query in ("SELECT * FROM dm", "SELECT 1"):
            with pytest.raises(fl.FlightError) as caught:
                stranger.get(asked(query))
            assert refusal(server, caught) == "not_found"
        with pytest.raises(fl.FlightError) as caught:
            stranger.get(asked("SELECT * FROM STUDY_001.dm", project="STUDY_002"))
        assert refusal(server, caught) == "not_found"


def test_nothing_is_written_by_a_query_in_json(server: Server, caller: Caller) -> None:
    with pytest.raises(fl.FlightError, match='"sql"') as caught:
        caller.put(asked("SELECT 1"), pa.record_batch({"0": [1]}))
    assert refusal(server, caught) == "invalid_argument"
    with pytest.raises(fl.FlightError) as caught:
        caller.get(asked("DROP TABLE dm"))
    assert refusal(server, caught) == "sql_error"


KINDS = [
    message
    for name, message in vars(sql).items()
    if name.startswith(("Command", "Action", "Ticket")) and isinstance(message, type)
]


@given(kind=st.sampled_from(KINDS), value=st.binary(max_size=60))
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_any_message_are_answered_or_refused_with_a_code(
    server: Server, caller: Caller, kind: type[Message], value: bytes
) -> None:
    name = kind.DESCRIPTOR.name
    data = Packed(type_url=f"x/arrow.flight.protocol.sql.{name}", value=value).SerializeToString()
    action = name.removeprefix("Action").removesuffix("Request")
    codes = set()
    for ask in (lambda: caller.info(data), lambda: caller.get(data), lambda: caller.action(action, data)):
        try:
            ask()
        except (fl.FlightError, pa.ArrowException) as error:
            assert_reveals_nothing(str(error), server)
            codes.add(code_of(error))
    assert "internal" not in codes


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["dm", "STUDY_001"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["project", "table", "version", "data_sha", "set", "a"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(
    body=st.fixed_dictionaries(
        {
            "sql": st.sampled_from(["SELECT ? AS x", "SELECT $a AS x, * FROM dm", "SELECT * FROM STUDY_001.dm"])
            | JSON_VALUES
        },
        optional=dict.fromkeys(("project", "as_of", "pins", "parameters"), JSON_VALUES),
    )
)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_query_in_json_is_answered_or_refused_with_a_code(server: Server, caller: Caller, body: Any) -> None:
    command = json.dumps(body).encode()
    codes = set()
    for ask in (caller.info, caller.get):
        try:
            ask(command)
        except (fl.FlightError, pa.ArrowException) as error:
            assert_reveals_nothing(str(error), server)
            codes.add(code_of(error))
    assert "internal" not in codes
