"""Everything that runs while something is measured, each part started when it is first asked for."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import ExitStack
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import adbc_driver_flightsql.dbapi as dbapi
import boto3
import datom
import duckdb
import pyarrow.flight as fl
import pyarrow.fs as fs
from adbc_driver_flightsql import DatabaseOptions

from .data import ARCHIVE, STUDY, Data, bucket_name
from .processes import Process, command
from .server import CACHE_BYTES, Server

SMALL_CACHE_BYTES = 256 * 10**6

FOLDER = "STUDY_001_FOLDER"
"""`STUDY` again, from the folder itself instead of from S3."""

WRITTEN = {"folder": "WRITTEN", "S3": "WRITTEN_S3"}
"""Projects that are written to, by where their data is."""

PEERS = ("roapi", "pysail")
"""Distributions that a machine may be without."""

COLUMNS = ["LBTESTCD", "LBSTRESN"]
"""Two of ten, with a fifth of the bytes."""

_ACCESS_KEY, _SECRET_KEY = "AKIAMADEUPFORBENCH01", "made-up-for-bench-and-of-ordinary-length"
_REGION = "eu-central-1"
_SERVES = re.compile(r"listening on (\S+)")


class Stage:
    """What is compared, on this machine. A context manager; at its end all that was started is ended.

    Args:
        data: what everything serves or reads.
        folder: for what the servers keep; emptied.
    """

    def __init__(self, data: Data, folder: Path) -> None:
        self.data = data
        self.folder = folder
        self._ending = ExitStack()
        self._cursors: dict[str, Any] = {}
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "access_key").write_text(_ACCESS_KEY)
        (folder / "secret_key").write_text(_SECRET_KEY)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    # Ours.

    @cached_property
    def server(self) -> Server:
        """Our server, its caches warm once something was read."""
        return self._server("server", self._projects)

    @cached_property
    def cold_server(self) -> Server:
        """Our server, to be stopped before each read."""
        return self._server("cold", self._projects)

    @cached_property
    def small_server(self) -> Server:
        """Our server, with little memory for its caches."""
        return self._server("small", self._projects, SMALL_CACHE_BYTES)

    @cached_property
    def written_server(self) -> Server:
        """Our server, with the projects of `WRITTEN`, begun here; each has a repository of its own."""
        bucket = self.data.buckets / "written"
        shutil.rmtree(bucket, ignore_errors=True)
        bucket.mkdir()
        self._ending.callback(shutil.rmtree, bucket, ignore_errors=True)
        places = {"folder": {"data": f"file://{self.folder.resolve() / 'written'}"}, "S3": self._on_s3("written")}
        projects = {}
        for where, name in WRITTEN.items():
            remote = self.folder.resolve() / f"{name}.git"
            subprocess.run(["git", "init", "--quiet", "--bare", "--initial-branch=main", str(remote)], check=True)
            projects[name] = {**places[where], "repo": str(remote)}
        server = self._server("writing", projects)
        for name in projects:
            server.run("init", name)
        return server

    def replicas(self, count: int, memory_bytes: int) -> list[Server]:
        """So many of our servers, on the same S3, each with an empty cache, that tell their metrics."""
        urls = [f"grpc://127.0.0.1:{_free_port()}" for _ in range(count)]
        return [
            self._server(
                f"replica-{count}-{number}",
                self._projects,
                memory_bytes,
                listen=url,
                management=f"127.0.0.1:{_free_port()}",
                replicas=urls,
            )
            for number, url in enumerate(urls)
        ]

    def _server(
        self, name: str, projects: dict[str, dict[str, str]], memory_bytes: int = CACHE_BYTES, **keys: Any
    ) -> Server:
        server = Server(self.folder / name, projects, memory_bytes, **keys)
        self._ending.callback(server.stop)
        return server

    @property
    def _projects(self) -> dict[str, dict[str, str]]:
        return {
            STUDY: self._on_s3(bucket_name(STUDY)),
            FOLDER: {"data": f"file://{self.data.bucket(STUDY).resolve()}"},
            ARCHIVE: self._on_s3(bucket_name(ARCHIVE)),
        }

    def _on_s3(self, bucket: str) -> dict[str, str]:
        return {
            "data": f"s3://{bucket}",
            "region": _REGION,
            "endpoint": self.s3,
            "access_key": f"file:{self.folder.resolve() / 'access_key'}",
            "secret_key": f"file:{self.folder.resolve() / 'secret_key'}",
        }

    # What lies below, and beside.

    @cached_property
    def s3(self) -> str:
        """The endpoint of a real S3 server over the data."""
        line = [command("rclone"), "serve", "s3", str(self.data.buckets.resolve()), "--addr", "127.0.0.1:0"]
        line += ["--auth-key", f"{_ACCESS_KEY},{_SECRET_KEY}", "--dir-cache-time", "1ms", "--config", os.devnull]
        line += ["--cache-dir", str(self.folder / "rclone")]
        return self._process("rclone", line, re.compile(r"Starting s3 server on \[(https?://[^/\]]+)")).said

    @cached_property
    def s3_files(self) -> fs.S3FileSystem:
        """The same S3, for pyarrow."""
        return fs.S3FileSystem(
            access_key=_ACCESS_KEY, secret_key=_SECRET_KEY, region=_REGION, endpoint_override=self.s3
        )

    def s3_path(self, table: str) -> str:
        """Where `s3_files` finds the parquet of a table of `STUDY`."""
        return str(self.data.parquet(table).relative_to(self.data.buckets))

    @cached_property
    def bare(self) -> Process:
        """The bare Flight server, which holds what our server sends."""
        lab = {"project": STUDY, "table": "lb"}
        requests = {
            "lb": lab,
            "columns": {**lab, "columns": COLUMNS},
            "dm": {**lab, "table": "dm"},
            "wide": {**lab, "table": "wide"},
        }
        line = [sys.executable, "-m", "bench.bare", self.server.url, self.server.token, json.dumps(requests)]
        return self._process("bare", line, _SERVES)

    @cached_property
    def bare_client(self) -> fl.FlightClient:
        """A plain client of `bare`."""
        return self._ending.enter_context(fl.connect(self.bare.said))

    def official(self, project: str) -> Any:
        """The official Python reader's connection, on the same S3.

        Its own stores reach AWS alone: the address of its client is all that differs here.
        """
        store = datom.store_s3(
            bucket_name(project),
            region=_REGION,
            credentials=lambda: {"access_key": _ACCESS_KEY, "secret_key": _SECRET_KEY},
        )
        store._client = boto3.client(
            "s3",
            endpoint_url=self.s3,
            region_name=_REGION,
            aws_access_key_id=_ACCESS_KEY,
            aws_secret_access_key=_SECRET_KEY,
        )
        return datom.get_conn(store, project)

    @cached_property
    def duckdb(self) -> duckdb.DuckDBPyConnection:
        """DuckDB in this process, with the local file as the table ``lb``."""
        connection = duckdb.connect()
        self._ending.callback(connection.close)
        connection.execute(f"CREATE VIEW lb AS FROM '{self.data.parquet('lb')}'")
        return connection

    @cached_property
    def roapi(self) -> Process:
        """ROAPI, serving the local parquet as ``lb``."""
        http, postgres, flight = (_free_port() for _ in range(3))
        line = [command("roapi"), "-t", f"lb={self.data.parquet('lb').resolve()}", "--addr-http", f"127.0.0.1:{http}"]
        line += ["--addr-postgres", f"127.0.0.1:{postgres}", "--addr-flight-sql", f"127.0.0.1:{flight}"]
        process = self._process("roapi", line, lambda: _listens(flight))
        process.said = f"grpc://127.0.0.1:{flight}"
        return process

    @cached_property
    def sail(self) -> Process:
        """Sail, serving the local parquet as ``lb``."""
        port = _free_port()
        line = [command("sail"), "flight", "server", "--port", str(port)]
        process = self._process("sail", line, lambda: _listens(port))
        process.said = f"grpc://127.0.0.1:{port}"
        path = self.data.parquet("lb").resolve()
        cursor = self.cursor(process.said)
        cursor.execute(f"CREATE TEMPORARY VIEW lb USING parquet OPTIONS (path '{path}')")
        cursor.fetchall()
        return process

    @staticmethod
    def has(peer: str) -> bool:
        """Whether the distribution `peer` is installed."""
        try:
            return bool(version(peer))
        except PackageNotFoundError:
            return False

    def cursor(self, url: str, token: str | None = None) -> Any:
        """An open cursor of the stock ADBC driver, the same for each server."""
        if url not in self._cursors:
            options = {}
            if token is not None:
                options[DatabaseOptions.AUTHORIZATION_HEADER.value] = f"Bearer {token}"
                options[DatabaseOptions.RPC_CALL_HEADER_PREFIX.value + "x-datom-project"] = STUDY
            connection = self._ending.enter_context(dbapi.connect(url, db_kwargs=options, autocommit=True))
            self._cursors[url] = self._ending.enter_context(connection.cursor())
        return self._cursors[url]

    def _process(self, name: str, line: list[str], ready: Any) -> Process:
        process = Process(line, self.folder / f"{name}.log", ready)
        self._ending.callback(process.stop)
        return process


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
