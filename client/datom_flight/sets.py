"""Sets: labelled pointers to tables and other sets, each pinned to a version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import text
from .protocol.errors import InternalError, InvalidRequestError, NotFoundError
from .results import Column, Listing, each, required

Tags = dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class MemberId:
    """The full citation of one member."""

    project: str
    name: str
    kind: str
    version: str


@dataclass(frozen=True, slots=True)
class Member:
    """One member of a set: a pointer and its labels, no data. `tags` is None when it has none."""

    id: MemberId
    tags: Tags | None = None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> Member:
        """The member in a ``datom.set`` answer."""
        ident = body.get("id")
        if not isinstance(ident, dict):
            raise InternalError("a set's member came without an id", hint="upgrade the client")
        return cls(
            MemberId(*(required(ident, key) for key in ("project", "name", "kind", "version"))),
            _tags(body.get("tags")),
        )

    def to_wire(self) -> dict[str, Any]:
        """The member as `from_wire` reads it."""
        return {"id": asdict(self.id), **({"tags": self.tags} if self.tags is not None else {})}


class Members(Listing[Member]):
    """A set's members, in the set's own order."""

    columns = (
        Column("project", each(text.clean)),
        Column("name", each(text.clean)),
        Column("kind", each(text.clean)),
        Column("version", text.short_ids),
        Column("tags", each(lambda tags: text.clipped(_describe_tags(tags)))),
    )
    empty = "no members"

    def records(self) -> list[dict[str, Any]]:
        """Each member as a flat dict: its id's fields, and its tags."""
        return [
            {
                "project": member.id.project,
                "name": member.id.name,
                "kind": member.id.kind,
                "version": member.id.version,
                "tags": member.tags,
            }
            for member in self
        ]


@dataclass(frozen=True, slots=True)
class DatomSet:
    """A version of a set: its labels, and its members as pointers.

    Attributes:
        version: full id; None where the history does not name the current document.
        tags: label to its values; None when the set has none.
        project: the project the set is in.
        data_sha: names the set's content.
    """

    name: str
    version: str | None
    tags: Tags | None
    members: Members
    project: str
    data_sha: str | None = None

    @classmethod
    def from_wire(cls, body: Mapping[str, Any]) -> DatomSet:
        """The answer of ``datom.set`` in `body`."""
        members = body.get("members")
        if not isinstance(members, list):
            raise InternalError("a set came without members", hint="upgrade the client")
        return cls(
            name=required(body, "name"),
            version=body.get("version"),
            tags=_tags(body.get("tags")),
            members=Members(Member.from_wire(member) for member in members),
            project=required(body, "project"),
            data_sha=body.get("data_sha"),
        )

    def member(
        self, name: str, *, tags: Mapping[str, str | Sequence[str]] | None = None, version: str | None = None
    ) -> Member:
        """The one member called `name` that carries all of `tags` and whose version begins with `version`.

        Raises:
            NotFoundError: ``member_not_found``, or ``member_ambiguous`` when several match.
            InvalidRequestError: ``invalid_argument``: `tags` is not labels with texts.
        """
        wanted = _wanted(tags)
        named = [member for member in self.members if member.id.name == name]
        if not named:
            known = ", ".join(sorted({member.id.name for member in self.members})) or "none"
            raise NotFoundError(
                f'set "{self.name}" has no member "{name}"', code="member_not_found", hint=f"its members: {known}"
            )
        found = [
            member
            for member in named
            if member.id.version.startswith(version or "") and _carries(member.tags or {}, wanted)
        ]
        if len(found) == 1:
            return found[0]
        candidates = "; ".join(f"{m.id.name} @ {m.id.version[:8]} {_describe_tags(m.tags)}" for m in found or named)
        if not found:
            raise NotFoundError(
                f'no member "{name}" of set "{self.name}" has the tags and version asked for',
                code="member_not_found",
                hint=f"members of that name: {candidates}",
            )
        raise NotFoundError(
            f'{len(found)} members of set "{self.name}" are called "{name}"',
            code="member_ambiguous",
            hint=f"narrow it by tags or version: {candidates}",
        )

    def __str__(self) -> str:
        head = text.card(
            "datom set",
            [
                ("Project", text.clean(self.project)),
                ("Set", text.clean(self.name)),
                ("Version", text.clean(self.version)),
                ("Tags", text.clean(_describe_tags(self.tags))),
                ("Members", text.count(len(self.members))),
            ],
        )
        return f"{head}\n{self.members}"


def _tags(value: object) -> Tags | None:
    if not isinstance(value, dict):
        return None
    return {str(key): [values] if isinstance(values, str) else list(values or []) for key, values in value.items()}


def _wanted(tags: Mapping[str, str | Sequence[str]] | None) -> Tags:
    wanted: Tags = {}
    for key, value in (tags or {}).items():
        values = [value] if isinstance(value, str) else list(value)
        if not values or not all(isinstance(each_value, str) and each_value for each_value in values):
            raise InvalidRequestError(f'tag "{key}" is not a text or a list of texts')
        wanted[key] = values
    return wanted


def _carries(tags: Tags, wanted: Tags) -> bool:
    return all(set(values) <= set(tags.get(key, ())) for key, values in wanted.items())


def _describe_tags(tags: Tags | None) -> str:
    return "; ".join(f"{key}={', '.join(map(str, values))}" for key, values in (tags or {}).items()) or "-"
