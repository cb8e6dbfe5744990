"""The commands that write."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Unpack

import click
import pyarrow as pa

from .. import output, text
from ..progress import RowProgress
from ..protocol.errors import DatomError, InvalidRequestError
from ..sources import RowSource
from .options import At, connected, fail, options, usage


@click.command()
@click.argument("name")
@click.argument("file", metavar="FILE")
@click.option("--message", metavar="M", help='What to say of the version [else "Update NAME"].')
@click.option(
    "--parent",
    "parents",
    metavar="TABLE@VERSION",
    multiple=True,
    help="A version that the rows were derived from, or PROJECT/TABLE@VERSION; may be given again.",
)
@click.option("--metadata", "metadata_file", metavar="FILE", help="JSON object to keep with the version.")
@click.option("--expected", metavar="V", help='Write only if this whole version id is current ("" for no table yet).')
@options()
def write(
    name: str,
    file: str,
    message: str | None,
    parents: tuple[str, ...],
    metadata_file: str | None,
    expected: str | None,
    how: str,
    **at: Unpack[At],
) -> None:
    """Write a file as the current version of the table NAME.

    FILE is .parquet .arrow .feather .csv or .tsv, or of the kinds that `sync` reads.
    """
    # Loaded here, because reading files takes longer to load than the other commands to run.
    from .. import extracts

    usage(extracts.extract_format, file)
    metadata = None if metadata_file is None else _json_object(metadata_file)
    source = extracts.open_extract(file)
    if extracts.FORMATS[extracts.extract_format(file)].inferred:
        _say_types(Path(file).name, source)
    with connected(**at) as conn, RowProgress(name) as progress:
        receipt = conn.write(
            name,
            _followed(source, progress),
            message=message,
            metadata=metadata,
            parents=parents or None,
            expected=expected,
        )
    output.print_answer(receipt, how)


@click.command("write-set")
@click.argument("name")
@click.argument("file", metavar="FILE")
@click.option("--message", metavar="M", help='What to say of the version [else "Update NAME"].')
@click.option("--expected", metavar="V", help='Write only if this whole version id is current ("" for no set yet).')
@options()
def write_set(name: str, file: str, message: str | None, expected: str | None, how: str, **at: Unpack[At]) -> None:
    """Write the members in a JSON file as the current version of the set NAME.

    FILE holds {"members": [{"id": {"project", "name", "kind", "version"}, "tags": {…}}], "tags": {…}}.
    """
    body = _json_object(file)
    unknown = sorted(set(body) - {"members", "tags"})
    if unknown or not isinstance(body.get("members"), list):
        why = f'has the unknown key "{unknown[0]}"' if unknown else 'has no list "members"'
        raise InvalidRequestError(f'"{file}" {why}', hint='write {"members": […], "tags": {…}}')
    with connected(**at) as conn:
        receipt = conn.write_set(name, body["members"], tags=body.get("tags"), message=message, expected=expected)
    output.print_answer(receipt, how)


@click.command()
@click.argument("folder", metavar="DIR")
@click.option("--yes", is_flag=True, help="Write without asking.")
@click.option("--pattern", metavar="GLOB", default="*", help='Only files whose names it fits, such as "*.xpt".')
@click.option("--message", metavar="M", help='What to say of each version [else "Sync NAME (new)" or "(changed)"].')
@options()
def sync(folder: str, yes: bool, pattern: str, message: str | None, how: str, **at: Unpack[At]) -> int:
    """Write the extracts in a folder as imported tables, those that are new or changed.

    Shows what it is going to do, and asks. A file's name without its ending is the table's name; files are .csv .tsv
    .parquet .arrow .feather .xpt .sas7bdat .sav .xlsx, the last four with the extra "files" installed.
    """
    from .. import syncing

    with connected(**at) as conn:
        found = syncing.survey(folder, pattern, conn.imports())
        pending = sum(extract.original is not None for extract in found)
        if pending:
            headers, rows = found.cells()
            click.echo(text.aligned(headers, rows, [False] * len(headers)), err=True)
            if not yes:
                _confirm(f'Write {text.plural(pending, "table")} to project "{conn.project}"?')
        done = syncing.Outcomes()
        for extract in found:
            with RowProgress(extract.file) as progress:
                done.append(syncing.carry_out(conn, extract, message, partial(_followed, progress=progress)))
    output.print_listing(done, how)
    failed = sum(each.failed for each in done)
    return fail(f"{failed} of {text.plural(len(done), 'file')} could not be written (see the listing)") if failed else 0


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise InvalidRequestError("nothing was written: there is no terminal to ask at", hint="pass --yes")
    if not click.confirm(question, err=True):
        raise DatomError.of("cancelled", "nothing was written")


def _followed(source: RowSource, progress: RowProgress) -> RowSource:
    """The same rows, shown as they pass; begun anew when they are sent again."""

    def batches() -> Iterator[pa.RecordBatch]:
        progress.expect(source.rows)
        for batch in source.batches():
            yield batch
            progress.advance(batch.num_rows)

    return RowSource(source.schema, batches, source.rows)


def _say_types(file: str, source: RowSource) -> None:
    types = ", ".join(f"{text.clean(field.name)} {field.type}" for field in source.schema)
    click.echo(f"types inferred from {file}: {types}", err=True)


def _json_object(path: str) -> Mapping[str, Any]:
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise InvalidRequestError(f'"{path}" is not a JSON object in UTF-8')
    return found


COMMANDS = (write, write_set, sync)
