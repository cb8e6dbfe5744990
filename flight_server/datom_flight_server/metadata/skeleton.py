"""What a new project's data repository and storage begin with."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from datom_flight.protocol.names import validate_name

from ..model import DataLocation
from . import jsonlite
from .documents import DATOM_VERSION, utc_text
from .manifest import MANIFEST_PATH, new_manifest

PROJECT_PATH = ".datom/project.yaml"
"""Where git says what project it is of, and where its data is."""

INITIAL_MESSAGE = "Initialize datom repository"
"""Of the first commit."""

ABOUT = "Tables and their versions: who wrote what when is here, the data itself in the storage."

_PROJECT = """\
project_name: {project}
project_description: ''
created_at: '{day}'
datom_version: {datom_version}
schema_version: 1
storage:
  data:
    type: {backend}
    root: {root}
    prefix: {prefix}
{region}  max_file_size_gb: 1000.0
repos:
  data:
    remote_url: {remote_url}
sync:
  continue_on_error: yes
  parallel_uploads: 4
renv: no
"""

_GITIGNORE = """\
.Rprofile
.Renviron
.Rhistory
.Rapp.history
.Rproj.user/
.DS_Store
*.csv
*.tsv
*.rds
*.txt
*.parquet
*.sas7bdat
.RData
.RDataTmp
*.html
*.png
*.pdf
.vscode/
rsconnect/
input_files/
"""

# Text that YAML reads back as that text without quotes, the words it takes for something else left out.
_PLAIN = re.compile(r"[A-Za-z/](?:[\w./()@+-]|:(?=[^\s])| (?=[\w./(]))*", re.ASCII)
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def project_files(
    project: str,
    location: DataLocation,
    remote_url: str,
    when: datetime,
    *,
    region: str | None = None,
    product_set: str | None = None,
    about: str = ABOUT,
) -> dict[str, bytes]:
    """The files of the first commit, by path, as R datom 0.2.0 makes them.

    The manifest among them is the one document that the storage begins with too.

    Args:
        location: where the data will be.
        remote_url: the data repository's own address, as others reach it.
        when: bears a zone.
        region: of an S3 bucket.
        product_set: the one set that the project is for; R datom writes a set nowhere else.
        about: a sentence for the README.

    Raises:
        InvalidRequestError: ``invalid_name`` when `project` or `product_set` is no name.
    """
    validate_name(project, "project")
    settings = _PROJECT.format(
        project=yaml_text(project),
        day=when.astimezone(UTC).date(),
        datom_version=DATOM_VERSION,
        backend=location.backend,
        root=yaml_text(location.root),
        prefix=yaml_text(location.prefix or None),
        region=f"    region: {yaml_text(region)}\n" if location.backend == "s3" else "",
        remote_url=yaml_text(remote_url),
    )
    if product_set is not None:
        settings += f"mode: product\nset: {yaml_text(validate_name(product_set, 'set'))}\n"
    prefix = f"`{location.prefix}`" if location.prefix else "*(none)*"
    readme = f"# {project}\n\n{about} Storage: {location.backend} {location.root} {prefix}\n"
    return {
        MANIFEST_PATH: jsonlite.pretty(new_manifest(project, utc_text(when))),
        PROJECT_PATH: settings.encode(),
        ".gitignore": _GITIGNORE.encode(),
        "README.md": readme.encode(),
    }


def yaml_text(text: str | None) -> str:
    """`text` as a YAML scalar on one line: bare where that is safe, else in quotes; None is ``~``."""
    if text is None:
        return "~"
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
