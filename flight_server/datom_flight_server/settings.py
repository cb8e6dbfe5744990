"""The settings file: TOML, checked key by key, with all that is wrong said at once.

Every key is described in ``docs/settings.md``.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import platformdirs
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from datom_flight.protocol.errors import DatomError, InvalidRequestError
from datom_flight.protocol.names import validate_name

from . import addresses
from .model import DataLocation, RepositoryAccess, S3Access
from .secrets import FORMS, SecretSources, is_reference

_LEAST_QUERY_BYTES = 64 * 10**6
"""Below it hardly any query can run."""


class SettingsError(InvalidRequestError):
    """The settings cannot be used; ``problems`` says why, one line a key, each with the key's full name."""

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        self.path = path
        self.problems = tuple(problems)
        super().__init__(
            f'settings "{path}": ' + "; ".join(self.problems),
            hint="every key is described in docs/settings.md",
            fields={"problems": list(self.problems)},
        )


class _Context(NamedTuple):
    """What reading one value may need to know."""

    sources: SecretSources
    governed: bool

    def path(self, text: str) -> Path:
        return addresses.absolute_path(text, self.sources.directory)


def _context(info: ValidationInfo) -> _Context:
    assert isinstance(info.context, _Context)
    return info.context


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"expected a text, got {_type_name(value)}")
    return value


def _secret(value: object, info: ValidationInfo) -> SecretStr | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"expected a reference to a secret, {FORMS}, got {_type_name(value)}")
    try:
        return SecretStr(_context(info).sources.resolve(value))
    except DatomError as error:
        raise ValueError(_sentence(error)) from None


def _private_key(value: object, info: ValidationInfo) -> SecretStr | None:
    if value is None:
        return None
    text = _text(value)
    secret = _secret(text if is_reference(text) else f"file:{text}", info)
    if secret is not None and "PRIVATE KEY-----" not in secret.get_secret_value():
        raise ValueError("expected a private key in PEM form")
    return secret


def _certificate(value: object, info: ValidationInfo) -> str | None:
    if value is None:
        return None
    path = _context(info).path(_text(value))
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ValueError(f'"{path}" cannot be read: {error.strerror}') from None
    except UnicodeDecodeError:
        text = ""
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise ValueError(f'expected a certificate in PEM form, "{path}" is something else')
    return text


def _path(value: object, info: ValidationInfo) -> Path:
    return value if isinstance(value, Path) else _context(info).path(_text(value))


def _location(value: object, info: ValidationInfo) -> DataLocation | None:
    return None if value is None else addresses.data_location(_text(value), _context(info).sources.directory)


def _repository(value: object, info: ValidationInfo) -> str | None:
    return None if value is None else addresses.repository(_text(value), _context(info).sources.directory)


def _project_name(name: str) -> str:
    try:
        return validate_name(name, "project")
    except DatomError as error:
        raise ValueError(_sentence(error)) from None


def _in_utc(instant: datetime) -> datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


def _positive(size: ByteSize) -> ByteSize:
    if size <= 0:
        raise ValueError('expected a size above zero, like "20GB"')
    return size


def _room_for_a_query(size: ByteSize) -> ByteSize:
    if size < _LEAST_QUERY_BYTES:
        raise ValueError(f'expected at least "{_LEAST_QUERY_BYTES // 10**6}MB"')
    return size


Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Repository = Annotated[str, BeforeValidator(_repository)]
HostPort = Annotated[str, AfterValidator(addresses.host_port)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Size = Annotated[ByteSize, AfterValidator(_positive)]


class Table(BaseModel):
    """One table of the file. Keys it does not know are refused, and so are values of another type."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, validate_default=True
    )


class ServerSettings(Table):
    """``[server]``: where the server listens, and how it stops."""

    listen: Annotated[str, AfterValidator(addresses.listen_url)] = "grpc://127.0.0.1:8815"
    certificate: Annotated[str | None, BeforeValidator(_certificate)] = None
    key: Annotated[SecretStr | None, BeforeValidator(_private_key)] = None
    management: HostPort | None = None
    health: HostPort | None = None
    replicas: list[Annotated[str, AfterValidator(addresses.replica)]] = []
    shutdown_grace_seconds: Seconds = 30
    metadata_max_age_seconds: Seconds = 1

    @field_validator("certificate", "key")
    @classmethod
    def _goes_with_tls(cls, value: object, info: ValidationInfo) -> object:
        listen = info.data.get("listen")
        if listen is not None and listen.startswith("grpc+tls://") and value is None:
            raise ValueError(f'missing: listening on "{listen}" takes the path of a PEM file here')
        if listen is not None and not listen.startswith("grpc+tls://") and value is not None:
            raise ValueError(f'only for grpc+tls://, and server.listen is "{listen}": write grpc+tls:// there')
        return value

    @property
    def tls(self) -> tuple[bytes, bytes] | None:
        """Certificate chain and private key, both PEM; None without TLS."""
        if self.certificate is None or self.key is None:
            return None
        return self.certificate.encode(), self.key.get_secret_value().encode()


class AuthSettings(Table):
    """``[auth]``: how tokens are signed, and who may come without one."""

    secret: Secret
    anonymous: Literal["none", "reader"] = "none"
    revoked: list[str] = []
    revoked_before: dict[str, Annotated[datetime, AfterValidator(_in_utc)]] = {}


class GovernanceSettings(Table):
    """``[governance]``: the repository that says which projects there are and where their data is."""

    repo: Repository
    token: Secret | None = None


class ProjectSettings(Table):
    """``[projects.NAME]``: a project's data, or only how to reach it when a governance repository says where it is."""

    data: Annotated[DataLocation | None, BeforeValidator(_location)] = None
    region: str | None = None
    endpoint: Annotated[str, AfterValidator(addresses.http_url)] | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    repo: Repository | None = None
    repo_token: Secret | None = None
    branch: str = "main"

    @field_validator("data")
    @classmethod
    def _said_by_someone(cls, value: DataLocation | None, info: ValidationInfo) -> DataLocation | None:
        if value is None and not _context(info).governed:
            raise ValueError('missing: say where the data is, "s3://bucket/prefix" or "file:///path"')
        return value

    @field_validator("secret_key")
    @classmethod
    def _both_keys_or_none(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "access_key" in info.data and (value is None) != (info.data["access_key"] is None):
            raise ValueError("access_key and secret_key go together: give both, or leave both out")
        return value

    @property
    def access(self) -> S3Access:
        """How to reach the bucket."""
        return S3Access(
            region=self.region,
            endpoint=self.endpoint,
            access_key=self.access_key.get_secret_value() if self.access_key else None,
            secret_key=self.secret_key.get_secret_value() if self.secret_key else None,
        )

    @property
    def repository(self) -> RepositoryAccess | None:
        """The data repository; None where the project is not written to."""
        if self.repo is None:
            return None
        return RepositoryAccess(self.repo, self.branch, self.repo_token.get_secret_value() if self.repo_token else None)


class CacheSettings(Table):
    """``[cache]``: what may be kept, and where."""

    directory: Annotated[Path, BeforeValidator(_path)] = Field(
        default_factory=lambda: platformdirs.user_cache_path("datom-flight")
    )
    disk_bytes: Size = ByteSize(20 * 10**9)
    memory_bytes: Size = ByteSize(2 * 10**9)


class LimitsSettings(Table):
    """``[limits]``: how much one caller, and all at once, may ask for."""

    max_streams: Annotated[int, Field(gt=0)] = 512
    max_streams_each: Annotated[int, Field(gt=0)] = 256
    max_queued: Annotated[int, Field(ge=0)] = 256
    queue_seconds: Seconds = 30
    requests_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1000
    max_rows: Annotated[int, Field(gt=0)] = 1_000_000_000
    max_bytes: Size = ByteSize(50 * 10**9)
    idle_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 21600


class WritesSettings(Table):
    """``[writes]``: how much one write, and all at once, may take."""

    max_bytes: Size = ByteSize(50 * 10**9)
    max_rows: Annotated[int, Field(gt=0)] = 1_000_000_000
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 3600
    max_concurrent: Annotated[int, Field(gt=0)] = 4


class SqlSettings(Table):
    """``[sql]``: how much one query, and all at once, may take."""

    memory_bytes: Annotated[Size, AfterValidator(_room_for_a_query)] = ByteSize(2 * 10**9)
    spill_bytes: Size = ByteSize(10 * 10**9)
    threads: Annotated[int, Field(gt=0)] = 2
    max_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 300
    max_rows: Annotated[int, Field(gt=0)] = 1_000_000_000
    max_bytes: Size = ByteSize(50 * 10**9)
    max_concurrent: Annotated[int, Field(gt=0)] = 4
    max_concurrent_each: Annotated[int | None, Field(gt=0)] = None
    queue_seconds: Seconds = 30
    stalled_seconds: Seconds = 60

    @field_validator("max_concurrent_each")
    @classmethod
    def _of_all_queries(cls, value: int | None, info: ValidationInfo) -> int | None:
        most = info.data.get("max_concurrent")
        if value is not None and most is not None and value > most:
            raise ValueError(f"expected at most sql.max_concurrent, which is {most}, got {value}")
        return value

    @property
    def concurrent_each(self) -> int:
        """Queries of one caller at a time: unless the file says it, one fewer than there may be."""
        return self.max_concurrent_each or max(1, self.max_concurrent - 1)


class LogSettings(Table):
    """``[log]``: how the server tells what it does."""

    format: Literal["human", "json"] = "human"
    level: Literal["info", "debug"] = "info"


class TracingSettings(Table):
    """``[tracing]``: where spans go."""

    endpoint: Annotated[str, AfterValidator(addresses.http_url)] | None = None


class Settings(Table):
    """The whole file, with its secrets looked up and its paths made absolute."""

    server: ServerSettings
    auth: AuthSettings
    governance: GovernanceSettings | None = None
    projects: dict[Annotated[str, AfterValidator(_project_name)], ProjectSettings] = Field(default_factory=dict)
    cache: CacheSettings
    limits: LimitsSettings
    writes: WritesSettings
    sql: SqlSettings
    log: LogSettings
    tracing: TracingSettings

    @classmethod
    def load(cls, path: Path, environment: Mapping[str, str]) -> Settings:
        """The settings in the file at `path`.

        Args:
            environment: what ``env:`` references are looked up in.

        Raises:
            SettingsError: ``invalid_argument`` with every problem there is. No secret is in it.
        """
        return cls.parse(_read(path), path, environment)

    @classmethod
    def parse(cls, tables: Mapping[str, Any], path: Path, environment: Mapping[str, str]) -> Settings:
        """As `load`, of what the file at `path` would hold; relative paths are relative to its folder."""
        context = _Context(_sources(path, environment), governed="governance" in tables)
        sections = ("server", "auth", "cache", "limits", "writes", "sql", "log", "tracing")
        whole = {**{name: {} for name in sections}, **tables}
        try:
            return cls.model_validate(whole, context=context)
        except ValidationError as error:
            raise SettingsError(path, _problems(error)) from None


def load_auth(path: Path, environment: Mapping[str, str]) -> AuthSettings:
    """``[auth]`` alone of the file at `path`: nothing else of it is looked at, and no other secret is needed.

    Raises:
        SettingsError: as `Settings.load`.
    """
    context = _Context(_sources(path, environment), governed=False)
    try:
        return AuthSettings.model_validate(_read(path).get("auth", {}), context=context)
    except ValidationError as error:
        raise SettingsError(path, _problems(error, within=("auth",))) from None


def known_keys() -> dict[str, type[Table]]:
    """Every table of the file by its name, ``projects.NAME`` standing for all projects."""
    tables: dict[str, type[Table]] = {}
    for name, field in Settings.model_fields.items():
        table = next(kind for kind in _types(field.annotation) if issubclass(kind, Table))
        tables["projects.NAME" if name == "projects" else name] = table
    return tables


def _types(annotation: Any) -> Iterable[type]:
    if isinstance(annotation, type):
        yield annotation
    for argument in get_args(annotation):
        yield from _types(argument)


def _sources(path: Path, environment: Mapping[str, str]) -> SecretSources:
    return SecretSources(path.absolute().parent, environment)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(path, [f"cannot be read: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise SettingsError(path, ["is not text in UTF-8"]) from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise SettingsError(path, [f"is not TOML: {error}"]) from None


def _problems(error: ValidationError, within: tuple[str, ...] = ()) -> Iterable[str]:
    for problem in error.errors(include_url=False):
        place = (*within, *(str(part) for part in problem["loc"] if part != "[key]"))
        yield f"{_dotted(place)}: {_explanation(place, problem)}"


def _explanation(place: tuple[str, ...], problem: Mapping[str, Any]) -> str:
    match problem["type"]:
        case "extra_forbidden":
            return _unknown_key(place)
        case "missing":
            return f"missing: expected {FORMS}" if place == ("auth", "secret") else "missing"
        case "value_error":
            return str(problem["ctx"]["error"])
        case "model_type" | "dict_type":
            expected = "a table"
        case "byte_size" | "byte_size_unit":
            expected = 'a size, like "20GB"'
        case "string_type":
            expected = "a text"
        case "float_type":
            expected = "a number"
        case "literal_error":
            expected = problem["ctx"]["expected"].replace("'", '"')
        case _:
            expected = str(problem["msg"]).removeprefix("Input should be ")
    return f"expected {expected}, got {_type_name(problem['input'])}"


def _unknown_key(place: tuple[str, ...]) -> str:
    tables = known_keys()
    if len(place) == 1:
        known = list(Settings.model_fields)
    else:
        known = list(tables["projects.NAME" if place[0] == "projects" else place[0]].model_fields)
    near = difflib.get_close_matches(place[-1], known, n=1)
    advice = f'did you mean "{near[0]}"?' if near else "remove it"
    return f"unknown key, {advice} (keys here: {', '.join(known)})"


def _dotted(place: tuple[str, ...]) -> str:
    bare = re.compile(r"[A-Za-z0-9_-]+")
    return ".".join(part if bare.fullmatch(part) else f'"{part}"' for part in place)


def _sentence(error: DatomError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _type_name(value: object) -> str:
    names: list[tuple[type | tuple[type, ...], str]] = [
        (bool, "true or false"),
        (int, "a whole number"),
        (float, "a number"),
        ((date, datetime, time), "a date or time"),
        (list, "an array"),
        (dict, "a table"),
    ]
    if value == "" or value is None:
        return "nothing"
    return next((name for kind, name in names if isinstance(value, kind)), "a text")
