"""The settings file: what is accepted, and how what is not is named."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from datom_flight_server.model import DataLocation
from datom_flight_server.settings import Settings, SettingsError, Table, known_keys, load_auth

ENVIRONMENT = {"SECRET": "a signing secret of thirty-two bytes or more", "KEY": "AKIAEXAMPLE", "EMPTY": ""}
SMALLEST = '[auth]\nsecret = "env:SECRET"\n[projects.STUDY_001]\ndata = "file:///data/study-001"\n'
Load = Callable[[str], Settings]
Problems = Callable[[str], tuple[str, ...]]
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "settings.md"


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Settings:
        path = tmp_path / "server.toml"
        path.write_text(text)
        return Settings.load(path, ENVIRONMENT)

    return load


@pytest.fixture
def problems(load: Load) -> Problems:
    def problems(text: str) -> tuple[str, ...]:
        with pytest.raises(SettingsError) as caught:
            load(text)
        assert caught.value.code == "invalid_argument"
        assert "\n" not in str(caught.value)
        return caught.value.problems

    return problems


class MemoryKeyring(KeyringBackend):
    """A keyring that holds what a test puts there."""

    priority = 1

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.entries: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.entries.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.entries[service, username] = password


@pytest.fixture
def memory_keyring() -> Iterator[MemoryKeyring]:
    before, mine = keyring.get_keyring(), MemoryKeyring()
    keyring.set_keyring(mine)
    yield mine
    keyring.set_keyring(before)


def test_a_secret_and_one_project_are_enough(load: Load) -> None:
    settings = load(SMALLEST)
    assert settings.server.listen == "grpc://127.0.0.1:8815"
    assert settings.server.management is None
    assert settings.server.health is None
    assert settings.server.tls is None
    assert settings.server.shutdown_grace_seconds == 30
    assert settings.server.metadata_max_age_seconds == 1
    assert settings.auth.anonymous == "none"
    assert settings.governance is None
    assert settings.projects["STUDY_001"].data == DataLocation("local", "/data/study-001")
    assert settings.projects["STUDY_001"].branch == "main"
    assert settings.cache.directory.is_absolute()
    assert settings.cache.disk_bytes == 20_000_000_000
    assert settings.cache.memory_bytes == 2_000_000_000


def test_queries_have_limits_unless_the_file_says_others(load: Load) -> None:
    sql = load(SMALLEST).sql
    assert (sql.memory_bytes, sql.spill_bytes, sql.threads) == (2_000_000_000, 10_000_000_000, 2)
    assert (sql.max_seconds, sql.max_rows, sql.max_bytes) == (300, 1_000_000_000, 50_000_000_000)
    assert (sql.max_concurrent, sql.concurrent_each) == (4, 3)
    assert (sql.queue_seconds, sql.stalled_seconds) == (30, 60)
    sql = load(SMALLEST + '[sql]\nmemory_bytes = "512MiB"\nthreads = 8\nmax_seconds = 0.5\nqueue_seconds = 0\n').sql
    assert (sql.memory_bytes, sql.threads, sql.max_seconds, sql.queue_seconds) == (512 * 2**20, 8, 0.5, 0)


def test_callers_have_limits_unless_the_file_says_others(load: Load) -> None:
    limits = load(SMALLEST).limits
    assert (limits.max_streams, limits.max_streams_each, limits.max_queued) == (512, 256, 256)
    assert (limits.max_rows, limits.max_bytes) == (1_000_000_000, 50_000_000_000)
    assert load(SMALLEST + "[limits]\nmax_queued = 0\nidle_seconds = 0.5\n").limits.idle_seconds == 0.5


def test_an_instant_before_which_tokens_do_not_count_is_in_utc_unless_it_says_otherwise(load: Load) -> None:
    settings = load(SMALLEST + "[auth.revoked_before]\nann = 2026-11-23T14:00:00\nbob = 2026-11-23T14:00:00+02:00\n")
    hours = {name: instant.astimezone(UTC).hour for name, instant in settings.auth.revoked_before.items()}
    assert hours == {"ann": 14, "bob": 12}
    with pytest.raises(SettingsError, match=r"auth.revoked_before.ann: expected a valid datetime"):
        load(SMALLEST + "[auth.revoked_before]\nann = true\n")


@pytest.mark.parametrize(
    ("keys", "each"),
    [("max_concurrent = 1", 1), ("max_concurrent = 9", 8), ("max_concurrent = 2\nmax_concurrent_each = 2", 2)],
)
def test_one_caller_leaves_a_turn_to_others_unless_the_file_says_otherwise(load: Load, keys: str, each: int) -> None:
    assert load(f"{SMALLEST}[sql]\n{keys}\n").sql.concurrent_each == each


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('memory_bytes = "10MB"', 'sql.memory_bytes: expected at least "64MB"'),
        ("threads = 0", "sql.threads: expected greater than 0, got a whole number"),
        ("max_seconds = 0", "sql.max_seconds: expected greater than 0, got a whole number"),
        ("max_concurrent_each = 5", "sql.max_concurrent_each: expected at most sql.max_concurrent, which is 4, got 5"),
        ("seconds = 5", 'sql.seconds: unknown key, did you mean "max_seconds"?'),
    ],
)
def test_a_limit_that_no_query_could_keep_to_is_refused(problems: Problems, line: str, problem: str) -> None:
    (told,) = problems(f"{SMALLEST}[sql]\n{line}\n")
    assert told.startswith(problem)


def test_the_contracts_example_is_accepted(load: Load, memory_keyring: MemoryKeyring, tmp_path: Path) -> None:
    memory_keyring.entries["GITHUB_PAT", ""] = "ghp"
    memory_keyring.entries["AWS_SECRET_ACCESS_KEY", ""] = "aws"
    settings = load("""
        [server]
        listen = "grpc://127.0.0.1:8815"
        management = "127.0.0.1:8816"
        health = "127.0.0.1:8817"
        shutdown_grace_seconds = 30
        metadata_max_age_seconds = 1
        [auth]
        secret = "env:SECRET"
        anonymous = "none"
        [governance]
        repo = "https://github.com/acme/datom-governance.git"
        token = "keyring:GITHUB_PAT"
        [projects.STUDY_001]
        data = "s3://study-001-datom/optional/prefix"
        region = "us-east-1"
        endpoint = "http://127.0.0.1:9000"
        access_key = "env:KEY"
        secret_key = "keyring:AWS_SECRET_ACCESS_KEY"
        repo = "https://github.com/acme/study-001-data.git"
        repo_token = "keyring:GITHUB_PAT"
        branch = "main"
        [cache]
        directory = "/var/cache/datom-flight"
        disk_bytes = "20GB"
        memory_bytes = "2GB"
        """)
    project = settings.projects["STUDY_001"]
    assert project.data == DataLocation("s3", "study-001-datom", "optional/prefix")
    assert (project.access.access_key, project.access.secret_key) == ("AKIAEXAMPLE", "aws")
    assert settings.governance is not None
    assert settings.governance.token is not None
    assert settings.governance.token.get_secret_value() == "ghp"


def test_no_secret_is_printed(load: Load, memory_keyring: MemoryKeyring) -> None:
    settings = load(SMALLEST + 'access_key = "env:KEY"\nsecret_key = "env:KEY"\n')
    for text in (
        repr(settings),
        str(settings),
        settings.model_dump_json(),
        repr(settings.projects["STUDY_001"].access),
    ):
        assert ENVIRONMENT["SECRET"] not in text
        assert ENVIRONMENT["KEY"] not in text


def test_every_problem_is_said_at_once_with_its_full_name(problems: Problems) -> None:
    found = problems("""
        unknown = 1
        [server]
        listen = 8815
        management = "nowhere"
        [auth]
        secret = "env:NOT_SET"
        anonymous = "admin"
        [projects.STUDY_001]
        data = "s3://bucket"
        regoin = "us-east-1"
        [projects."STUDY 002"]
        data = true
        [cache]
        disk_bytes = "20XB"
        """)
    assert {problem.partition(": ")[0] for problem in found} == {
        "unknown",
        "server.listen",
        "server.management",
        "auth.secret",
        "auth.anonymous",
        "projects.STUDY_001.regoin",
        'projects."STUDY 002".data',
        "cache.disk_bytes",
    }


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ('regoin = "x"', 'projects.STUDY_001.regoin: unknown key, did you mean "region"?'),
        ("[sevrer]", 'sevrer: unknown key, did you mean "server"?'),
        ('region = ["x"]', "projects.STUDY_001.region: expected a text, got an array"),
        ("[cache]\ndisk_bytes = true", 'cache.disk_bytes: expected a size, like "20GB", got true or false'),
        ('[cache]\ndisk_bytes = "0GB"', "cache.disk_bytes: expected a size above zero"),
        ("[cache]\ndirectory = 3", "cache.directory: expected a text, got a whole number"),
        ("[server]\nshutdown_grace_seconds = -1", "server.shutdown_grace_seconds: expected greater than or equal to 0"),
        ('[server]\nshutdown_grace_seconds = "30"', "server.shutdown_grace_seconds: expected a number, got a text"),
        ("[server]\nshutdown_grace_seconds = inf", "server.shutdown_grace_seconds: expected a finite number"),
        ('endpoint = "127.0.0.1:9000"', 'projects.STUDY_001.endpoint: expected "http://HOST:PORT"'),
        ('access_key = "env:KEY"', "projects.STUDY_001.secret_key: access_key and secret_key go together"),
        ('access_key = "env:EMPTY"\nsecret_key="env:KEY"', 'projects.STUDY_001.access_key: "env:EMPTY" is empty'),
        ('repo = "ftp://host/x"', 'projects.STUDY_001.repo: expected an "https://" or "ssh://" URL'),
        ("[governance]", "governance.repo: missing"),
        ('[projects."../x"]\ndata = "file:///x"', 'projects."../x": project name "../x" holds a character'),
        ("[projects]\nX = 1", "projects.X: expected a table, got a whole number"),
        ("[projects.X]", 'projects.X.data: missing: say where the data is, "s3://bucket/prefix" or "file:///path"'),
    ],
)
def test_a_problem_names_the_key_and_what_was_expected(problems: Problems, more: str, expected: str) -> None:
    (problem,) = problems(SMALLEST + more + "\n")
    assert problem.startswith(expected)


def test_a_missing_table_names_the_key_that_matters(problems: Problems) -> None:
    (problem,) = problems('[projects.X]\ndata = "file:///x"')
    assert problem.startswith("auth.secret: missing")


@pytest.mark.parametrize("secret", ["hunter2", "vault:x/y", "env:", "", "postgres://u:hunter2@h"])
def test_a_literal_secret_is_refused_and_not_repeated(problems: Problems, secret: str) -> None:
    (problem,) = problems(f'[auth]\nsecret = "{secret}"\n[projects.X]\ndata = "file:///x"')
    assert problem.startswith("auth.secret: is not a reference to a secret")
    assert '"env:NAME", "file:PATH" or "keyring:SERVICE[/USERNAME]"' in problem
    assert "hunter2" not in problem


def test_a_password_in_a_url_is_refused_and_not_repeated(problems: Problems) -> None:
    found = problems(
        SMALLEST
        + 'repo = "https://ann:hunter2@host/x.git"\nendpoint = "http://ann:hunter2@host"\n'
        + '[projects.Y]\ndata = "s3://ann:hunter2@bucket"\n'
    )
    assert len(found) == 3
    assert not any("hunter2" in problem for problem in found)


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("grpc://127.0.0.1:8815", True),
        ("grpc://[::1]:0", True),
        ("grpc://[::]:8815", True),
        ("grpc://localhost:65535", True),
        ("grpc://127.0.0.1", False),
        ("grpc://:8815", False),
        ("grpc://::1:8815", False),
        ("grpc://[::1:8815", False),
        ("grpc://127.0.0.1:65536", False),
        ("grpc://127.0.0.1:x", False),
        ("grpc://127.0.0.1:8815/x", False),
        ("http://127.0.0.1:8815", False),
        ("127.0.0.1:8815", False),
    ],
)
def test_where_to_listen_is_a_scheme_a_host_and_a_port(load: Load, problems: Problems, url: str, good: bool) -> None:
    text = SMALLEST + f'[server]\nlisten = "{url}"\n'
    if good:
        assert load(text).server.listen == url
    else:
        assert problems(text)[0].startswith('server.listen: expected "grpc://HOST:PORT"')


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("grpc://a.example.org:8815", True),
        ("grpc+tls://10.0.0.1:443", True),
        ("grpc://[fd00::1]:8815", True),
        ("dns:///datom.example.org:8815", True),
        ("grpc://a", False),
        ("grpc://a:0", False),
        ("grpc://0.0.0.0:8815", False),
        ("grpc://[::]:8815", False),
        ("http://a:8815", False),
        ("dns://8.8.8.8/datom:8815", False),
        ("dns:///datom", False),
        ("dns:///", False),
        ("grpc://a:8815/x", False),
    ],
)
def test_replicas_are_where_clients_reach_them(load: Load, problems: Problems, url: str, good: bool) -> None:
    text = SMALLEST + f'[server]\nreplicas = ["grpc://A:1", "{url}"]\n'
    if good:
        assert load(text).server.replicas == ["grpc://a:1", url]
    else:
        assert problems(text)[0].startswith('server.replicas.1: expected "grpc://HOST:PORT"')


@pytest.mark.parametrize(
    ("url", "location"),
    [
        ("s3://bucket", DataLocation("s3", "bucket")),
        ("s3://bucket/a/b/", DataLocation("s3", "bucket", "a/b")),
        ("file:///data/my%20study/", DataLocation("local", "/data/my study")),
        ("file://localhost/data", DataLocation("local", "/data")),
        ("file:data", DataLocation("local", "{here}/data")),
        ("file://./data", DataLocation("local", "{here}/data")),
        ("file:../data", DataLocation("local", "{above}/data")),
    ],
)
def test_data_is_in_a_bucket_or_a_folder(load: Load, tmp_path: Path, url: str, location: DataLocation) -> None:
    found = load(f'[auth]\nsecret = "env:SECRET"\n[projects.X]\ndata = "{url}"\n').projects["X"].data
    root = location.root.format(here=tmp_path, above=tmp_path.parent)
    assert found == DataLocation(location.backend, root, location.prefix)


@pytest.mark.parametrize(
    "url", ["/data/x", "data", "http://host/x", "s3:bucket", "s3://", "s3:///x", "file:", "file://"]
)
def test_data_that_is_no_such_url_is_refused(problems: Problems, url: str) -> None:
    (problem,) = problems(f'[auth]\nsecret = "env:SECRET"\n[projects.X]\ndata = "{url}"\n')
    assert problem.startswith('projects.X.data: expected "s3://BUCKET/PREFIX"')


@pytest.mark.parametrize(
    ("repo", "expected"),
    [
        ("https://github.com/acme/gov.git", "https://github.com/acme/gov.git"),
        ("ssh://git@host:2222/gov.git", "ssh://git@host:2222/gov.git"),
        ("git@github.com:acme/gov.git", "git@github.com:acme/gov.git"),
        ("/srv/gov.git", "/srv/gov.git"),
        ("file:///srv/gov.git", "/srv/gov.git"),
        ("gov.git", "{here}/gov.git"),
        ("../gov", "{above}/gov"),
    ],
)
def test_a_repository_is_a_url_or_a_path(load: Load, tmp_path: Path, repo: str, expected: str) -> None:
    settings = load(f'[auth]\nsecret = "env:SECRET"\n[governance]\nrepo = "{repo}"\n')
    assert settings.governance is not None
    assert settings.governance.repo == expected.format(here=tmp_path, above=tmp_path.parent)


def test_with_governance_a_project_may_leave_its_data_out(load: Load) -> None:
    settings = load('[auth]\nsecret = "env:SECRET"\n[governance]\nrepo = "gov"\n[projects.X]\nregion = "eu-west-1"\n')
    assert settings.projects["X"].data is None
    assert settings.projects["X"].access.region == "eu-west-1"


def test_relative_paths_are_relative_to_the_file(load: Load, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file, and long enough to sign with\n")
    settings = load('[auth]\nsecret = "file:secret"\n[cache]\ndirectory = "cache"\n')
    assert settings.auth.secret.get_secret_value() == "from a file, and long enough to sign with"
    assert settings.cache.directory == tmp_path / "cache"


def test_a_secret_file_that_cannot_be_read_is_named(problems: Problems, tmp_path: Path) -> None:
    (problem,) = problems('[auth]\nsecret = "file:nowhere"\n')
    assert problem.startswith(f'auth.secret: secret file "{tmp_path}/nowhere" cannot be read')


def test_keyring_secrets_are_found_with_and_without_a_user(load: Load, memory_keyring: MemoryKeyring) -> None:
    memory_keyring.set_password("DATOM", "ann", "the secret of ann, longer than thirty-two")
    # as R stores it; keyring itself warns of an empty user name
    memory_keyring.entries["DATOM", ""] = "the secret of R, longer than thirty-two"
    assert load('[auth]\nsecret = "keyring:DATOM/ann"').auth.secret.get_secret_value().startswith("the secret of ann")
    assert load('[auth]\nsecret = "keyring:DATOM"').auth.secret.get_secret_value().startswith("the secret of R")


def test_a_missing_keyring_entry_says_how_to_store_it(problems: Problems, memory_keyring: MemoryKeyring) -> None:
    (problem,) = problems('[auth]\nsecret = "keyring:DATOM/bob"')
    assert 'the keyring has no entry "DATOM/bob" (store it with `keyring set DATOM bob`)' in problem


def test_without_a_keyring_the_other_forms_are_offered(problems: Problems, memory_keyring: MemoryKeyring) -> None:
    from keyring.backends.fail import Keyring

    keyring.set_keyring(Keyring())  # type: ignore[no-untyped-call]
    (problem,) = problems('[auth]\nsecret = "keyring:DATOM"')
    assert "this machine has no keyring" in problem
    assert '"env:NAME" or "file:PATH"' in problem


CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMA==\n-----END CERTIFICATE-----\n"
PRIVATE_KEY = "-----BEGIN PRIVATE KEY-----\nMA==\n-----END PRIVATE KEY-----\n"
TLS = '[server]\nlisten = "grpc+tls://127.0.0.1:0"\n'


def test_tls_takes_a_certificate_and_a_key(load: Load, tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text(CERTIFICATE)
    (tmp_path / "key.pem").write_text(PRIVATE_KEY)
    for key in ("key.pem", "file:key.pem"):
        settings = load(SMALLEST + TLS + f'certificate = "chain.pem"\nkey = "{key}"\n')
        assert settings.server.tls is not None
        assert settings.server.tls[0] == CERTIFICATE.encode()
        assert settings.server.tls[1].startswith(b"-----BEGIN PRIVATE KEY-----")
        assert "PRIVATE" not in repr(settings)


def test_tls_without_its_files_is_refused(problems: Problems) -> None:
    assert [problem.partition(": ")[0] for problem in problems(SMALLEST + TLS)] == ["server.certificate", "server.key"]


def test_tls_files_that_are_something_else_are_refused(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text("no")
    (tmp_path / "key.pem").write_text(CERTIFICATE)
    found = problems(SMALLEST + TLS + 'certificate = "chain.pem"\nkey = "key.pem"\n')
    assert found[0].startswith("server.certificate: expected a certificate in PEM form")
    assert found[1] == "server.key: expected a private key in PEM form"


def test_a_certificate_without_tls_is_refused(problems: Problems, tmp_path: Path) -> None:
    (tmp_path / "chain.pem").write_text(CERTIFICATE)
    (problem,) = problems(SMALLEST + '[server]\ncertificate = "chain.pem"\n')
    assert problem.startswith("server.certificate: only for grpc+tls://")


@pytest.mark.parametrize("data", [b"[auth\n", b"\xff\xfe", b"a = " + b"[" * 5000], ids=["syntax", "encoding", "depth"])
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "server.toml"
    path.write_bytes(data)
    with pytest.raises(SettingsError, match=r"is not (TOML|text)"):
        Settings.load(path, {})


def test_a_file_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        Settings.load(tmp_path / "nowhere.toml", {})
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        Settings.load(tmp_path, {})


def test_making_tokens_needs_no_other_secret(tmp_path: Path) -> None:
    path = tmp_path / "server.toml"
    path.write_text('[auth]\nsecret = "env:SECRET"\n[governance]\nrepo = "x"\ntoken = "env:NOT_SET"\n')
    assert load_auth(path, ENVIRONMENT).secret.get_secret_value() == ENVIRONMENT["SECRET"]
    path.write_text("auth = 1\n")
    with pytest.raises(SettingsError, match="auth: expected a table, got a whole number"):
        load_auth(path, ENVIRONMENT)


def _rows() -> dict[str, str]:
    """Each documented key and the text of its default."""
    return dict(re.findall(r"^\| `([a-zA-Z_.]+)` \|[^|]+\| ([^|]+?) \|", DOCUMENTATION.read_text(), re.MULTILINE))


def test_every_key_is_documented_and_no_other() -> None:
    tables: dict[str, type[Table]] = known_keys()
    keys = {f"{name}.{key}" for name, table in tables.items() for key in table.model_fields}
    assert set(_rows()) == keys


def test_documented_defaults_are_the_real_ones(load: Load) -> None:
    settings = load(SMALLEST)
    rows = _rows()
    assert rows["server.listen"] == f'`"{settings.server.listen}"`'
    assert rows["server.shutdown_grace_seconds"] == f"`{settings.server.shutdown_grace_seconds:g}`"
    assert rows["server.metadata_max_age_seconds"] == f"`{settings.server.metadata_max_age_seconds:g}`"
    assert rows["auth.anonymous"] == f'`"{settings.auth.anonymous}"`'
    assert rows["projects.NAME.branch"] == f'`"{settings.projects["STUDY_001"].branch}"`'
    assert (rows["cache.disk_bytes"], rows["cache.memory_bytes"]) == ('`"20GB"`', '`"2GB"`')
    for key in ("threads", "max_seconds", "max_rows", "max_concurrent", "queue_seconds", "stalled_seconds"):
        assert float(rows[f"sql.{key}"].strip("`")) == getattr(settings.sql, key)
    for key, value in settings.limits:
        if key == "max_bytes":
            assert rows["limits.max_bytes"] == f'`"{value // 10**9}GB"`'
        else:
            assert float(rows[f"limits.{key}"].strip("`")) == value
    for key in ("memory_bytes", "spill_bytes", "max_bytes"):
        assert rows[f"sql.{key}"] == f'`"{getattr(settings.sql, key) // 10**9}GB"`'
