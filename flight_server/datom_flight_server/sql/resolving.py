"""Which version of which table a query's names stand for: settled once, then carried in the plan."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import IntEnum

from datom_flight.protocol.errors import DatomError, InvalidRequestError, VersionError
from datom_flight.protocol.names import validate_name
from datom_flight.protocol.queries import TablePin

from ..auth.base import Policy, no_such_project
from ..model import Kind, Principal, Role, TableVersion
from ..versions.catalog import Catalog
from ..versions.projects import Projects
from .references import Reference

_DIGITS = re.compile(r"[0-9a-f]{1,64}")


@dataclass(frozen=True, slots=True)
class Pinned:
    """Exactly one version of one table.

    Attributes:
        version: a full id; None where the history has no name for the current document.
        data_sha: names the values.
        set: the set that the query names, and whose current version said which version this is.
    """

    project: str
    table: str
    version: str | None
    data_sha: str
    set: str | None = None

    def to_object(self) -> dict[str, str | None]:
        """The same as JSON has it."""
        return {key: value for key, value in asdict(self).items() if key != "set" or value is not None}


@dataclass(frozen=True, slots=True)
class Resolved:
    """A version, and the catalog of the project it is in."""

    catalog: Catalog
    found: TableVersion

    @property
    def pinned(self) -> Pinned:
        """The same as a value that travels."""
        return Pinned(self.found.project, self.found.table, self.found.version, self.found.data_sha)


def reference(name: str, version: str | None = None) -> Reference:
    """The table that a text in a query names, ``table``, ``PROJECT.table`` or ``set.table``.

    Args:
        version: a version's id or a prefix of it; anything else is taken for an instant.
    """
    schema, _, table = name.rpartition(".")
    if version is None or _DIGITS.fullmatch(version):
        return Reference(schema or None, table, version)
    return Reference(schema or None, table, as_of=version)


class Resolver:
    """Settles names for one principal and one query, authorising each project before anything is said of it.

    Args:
        project: where tables named alone are; None: nowhere.
        as_of: the instant for names without a version; None: now.
        pins: versions for such names, the first that fits; then every name needs one.
        known: what names were settled on when the query was planned; then nothing is settled anew.
    """

    def __init__(
        self,
        projects: Projects,
        policy: Policy,
        principal: Principal,
        *,
        project: str | None,
        as_of: str | None = None,
        pins: Sequence[TablePin] | None = None,
        known: Mapping[str, Pinned] | None = None,
    ) -> None:
        self._projects = projects
        self._policy = policy
        self.principal = principal
        self._project = project
        self._as_of = as_of
        self._pins = pins
        self._known = known
        self.settled: dict[str, Pinned] = {}

    @property
    def names(self) -> tuple[tuple[str, Pinned], ...]:
        """What was settled, as a plan keeps it: names whose version the query says come last, a set's before them."""
        return tuple(sorted(self.settled.items(), key=lambda named: _Named.of(*named)))

    @property
    def project(self) -> str:
        """Where tables named alone are.

        Raises:
            InvalidRequestError: ``invalid_argument`` when that is nowhere.
        """
        if self._project is None:
            raise InvalidRequestError(
                "no project is chosen", hint="write PROJECT.table, or choose the project (in SQL tools: the schema)"
            )
        return self._project

    def catalog(self, project: str) -> Catalog:
        """The catalog of a project, once the principal may read there.

        Raises:
            DatomError: ``not_found`` also when the principal may not know of it.
        """
        self._policy.authorise(self.principal, validate_name(project, "project"), Role.READER)
        return self._projects.catalog(project)

    def resolve(self, asked: Reference) -> Resolved:
        """The one version that a name stands for; the same name always the same one.

        Raises:
            DatomError: as `Catalog.resolve`; ``not_found`` or ``member_ambiguous`` for a set's members;
                ``invalid_argument`` without a project, or for a plan that was not made for this query.
        """
        key = _key(asked)
        pinned = self.settled.get(key) or (self._known or {}).get(key)
        if pinned is not None:
            catalog = self.catalog(pinned.project)
            found = catalog.resolve(
                pinned.table,
                Kind.TABLE,
                pinned.version,
                data_sha=None if pinned.version else pinned.data_sha,
            )
            resolved = Resolved(catalog, found)
        elif self._known is not None:
            raise InvalidRequestError(f'the plan says nothing of "{asked.table[:80]}"', hint="plan the query again")
        else:
            resolved = self._settle(asked)
        self.settled[key] = resolved.pinned
        return resolved

    def table(self, asked: Reference) -> tuple[Catalog, str]:
        """The catalog and the stored name of a table, whatever its version."""
        if asked.schema is None:
            catalog = self.catalog(self.project)
        else:
            catalog = self._visible(asked.schema) or self._absent(asked.schema)
        return catalog, _stored_name(catalog, asked.table)

    def _settle(self, asked: Reference) -> Resolved:
        if asked.schema is None:
            catalog = self.catalog(self.project)
            return self._version(catalog, _stored_name(catalog, asked.table), asked)
        for pin in self._pins or () if not asked.is_pinned else ():
            if pin.set == asked.schema and pin.table.lower() == asked.table.lower():
                catalog = self.catalog(pin.project)
                return Resolved(catalog, catalog.resolve(pin.table, Kind.TABLE, pin.version))
        found = self._visible(asked.schema)
        if found is not None:
            return self._version(found, _stored_name(found, asked.table), asked)
        return self._member(asked.schema, asked)

    def _version(self, catalog: Catalog, name: str, asked: Reference) -> Resolved:
        if asked.is_pinned:
            return Resolved(catalog, catalog.resolve(name, Kind.TABLE, asked.version, asked.as_of))
        if self._pins is not None:
            return Resolved(catalog, catalog.resolve(name, Kind.TABLE, self._pin(catalog.project.name, name)))
        return Resolved(catalog, catalog.resolve(name, Kind.TABLE, as_of=self._as_of))

    def _pin(self, project: str, table: str) -> str:
        fitting = [pin for pin in self._pins or () if (pin.project, pin.table) == (project, table)]
        if not fitting:
            raise VersionError(
                f'the pin holds no table "{project}.{table}"', hint="pin it too, or name its version in the query"
            )
        return min(fitting, key=lambda pin: pin.set is not None).version

    def _member(self, schema: str, asked: Reference) -> Resolved:
        """The version of a table that a set of the chosen project holds."""
        if self._project is None:
            self._absent(schema)
        name, _, version = schema.partition("@")
        home = self.catalog(self.project)
        try:
            as_of = None if version else self._as_of
            found = home.resolve(_stored_name(home, name), Kind.SET, version or None, as_of)
        except DatomError as error:
            if error.code in ("not_found", "invalid_name", "kind_mismatch"):
                self._absent(schema)
            raise
        if asked.is_pinned:
            raise InvalidRequestError(
                f'the set "{name}" says which version of "{asked.table[:80]}" it holds',
                hint=f"name the version of the table itself: {self.project}.{asked.table[:80]}",
            )
        members = [member["id"] for member in home.set_payload(found).members]
        tables = [member for member in members if member["kind"] == Kind.TABLE.value]
        matching = _spelled(asked.table, tables)
        if not matching:
            held = ", ".join(f'"{member["name"]}"' for member in tables[:20])
            raise DatomError.of(
                "member_not_found", f'the set "{name}" holds no table "{asked.table[:80]}"', hint=f"it holds {held}"
            )
        if len(matching) > 1:
            raise DatomError.of(
                "member_ambiguous",
                f'the set "{name}" holds {len(matching)} versions of "{asked.table[:80]}"',
                hint="name the version of the table itself",
            )
        member = matching[0]
        catalog = self.catalog(str(member["project"]))
        table = str(member["name"])
        settled = bool(version) or self._pins is None
        chosen = str(member["version"]) if settled else self._pin(catalog.project.name, table)
        return Resolved(catalog, catalog.resolve(table, Kind.TABLE, chosen))

    def _visible(self, project: str) -> Catalog | None:
        """The catalog of the project called so, or else of the one whose name differs in case alone."""
        try:
            return self.catalog(project)
        except DatomError as error:
            if error.code not in ("not_found", "invalid_name"):
                raise
        matching = [
            name
            for name in self._projects.names()
            if name.lower() == project.lower() and self._policy.visible(self.principal, name)
        ]
        return self._projects.catalog(matching[0]) if len(matching) == 1 else None

    def _absent(self, schema: str) -> Catalog:
        if self._project is None:
            raise no_such_project(schema[:80])
        raise DatomError.of("not_found", f'no project, and no set of "{self._project}", is called "{schema[:80]}"')


def _key(asked: Reference) -> str:
    return json.dumps([asked.schema, asked.table, asked.version, asked.as_of], ensure_ascii=False)


class _Named(IntEnum):
    """How a name comes by its version: by what is current, by a set, or by the query's own words."""

    ALONE = 0
    BY_SET = 1
    BY_QUERY = 2

    @classmethod
    def of(cls, key: str, pinned: Pinned) -> _Named:
        """How the name did that a plan has under `key`."""
        schema, _, version, as_of = json.loads(key)
        if version is not None or as_of is not None or "@" in (schema or ""):
            return cls.BY_QUERY
        return cls.ALONE if schema is None or schema.lower() == pinned.project.lower() else cls.BY_SET


def pins_of(names: Iterable[tuple[str, Pinned]]) -> tuple[Pinned, ...]:
    """The versions in a plan's names, each once; given back as pins, the same names get the same versions."""
    pins = [
        replace(pinned, set=json.loads(key)[0]) if _Named.of(key, pinned) is _Named.BY_SET else pinned
        for key, pinned in names
    ]
    return tuple(dict.fromkeys(pins))


def _stored_name(catalog: Catalog, name: str) -> str:
    """`name`, or the one stored name that differs from it in case alone: SQL does not mind case."""
    try:
        rows = catalog.manifest().rows
    except DatomError as error:
        if error.code in ("manifest_unreadable", "schema_invalid", "schema_unsupported"):
            return name
        raise
    if name in rows:
        return name
    matching = [stored for stored in rows if stored.lower() == name.lower()]
    return matching[0] if len(matching) == 1 else name


def _spelled(name: str, members: Iterable[Mapping[str, str]]) -> list[Mapping[str, str]]:
    listed = list(members)
    return [member for member in listed if member["name"] == name] or [
        member for member in listed if str(member["name"]).lower() == name.lower()
    ]
