"""The documents that writing a set makes: its payload in the one form its contents have, and its metadata."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from datom_flight.protocol.errors import InvalidRequestError
from datom_flight.protocol.names import is_full_version, validate_name

from ..model import Kind
from . import jsonlite
from .current import Current
from .documents import Action, Change, Plan, new_document, plan_document
from .identity import SET_HASH_ALGORITHM, set_data_sha

_ID_FIELDS = ("kind", "name", "project", "version")


def set_path(name: str) -> str:
    """Where git has the current payload of the set `name`."""
    return f"{validate_name(name)}/set.json"


@dataclass(frozen=True, slots=True)
class SetPlan:
    """What writing a set comes to. `payload` is what its object holds, byte for byte."""

    plan: Plan
    payload: bytes


def plan_set(
    current: Current, members: Sequence[Mapping[str, Any]], tags: Mapping[str, Any] | None, change: Change
) -> SetPlan:
    """What writing the set of `members` over `current` comes to.

    Args:
        members: ``{"id": {"project", "name", "kind", "version"}, "tags"?}``, versions whole; order does not matter.

    Raises:
        DatomError: ``kind_mismatch``; ``invalid_argument`` or ``invalid_name`` when members or tags are not such.
    """
    current.refuse_kind_other_than(Kind.SET)
    content = canonical_set(current, members, tags)
    payload = jsonlite.pretty(content)
    data_sha = set_data_sha(content)
    document_sha = current.object_sha(Kind.SET, data_sha) or hashlib.sha256(payload).hexdigest()
    document = new_document(
        current.project,
        Kind.SET,
        {"data_sha": data_sha, "hash_algo": SET_HASH_ALGORITHM, "document_sha": document_sha},
        change.when,
    )
    extent = {"member_count": len(content["members"])}
    plan = plan_document(current, document, extent, change.message or f"Update {current.name}", change)
    if plan.action is Action.NONE:
        return SetPlan(plan, payload)
    files = {**plan.files, set_path(current.name): payload}
    return SetPlan(
        Plan(plan.action, plan.version, data_sha, document_sha, plan.reuses_object, plan.message, files), payload
    )


def canonical_set(
    current: Current, members: Sequence[Mapping[str, Any]], tags: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A set's payload in its one form: everything sorted, everything once, single tag values bare.

    Raises:
        InvalidRequestError: ``invalid_argument`` or ``invalid_name``.
    """
    if not members:
        raise InvalidRequestError("a set without members cannot be written", hint="name at least one member")
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    for position, member in enumerate(members, 1):
        what = f"member {position}"
        entry = _member(member, what)
        identity = entry["id"]
        if (identity["project"], identity["name"]) == (current.project, current.name):
            raise InvalidRequestError(f"{what} is the set itself", hint="leave it out")
        key = (identity["project"], identity["name"], identity["version"])
        if found.setdefault(key, entry) != entry:
            raise InvalidRequestError(
                f'{what} is "{identity["name"]}" version {identity["version"][:8]} again, with other tags',
                hint="name it once; a tag may have several values",
            )
    payload: dict[str, Any] = {"members": [found[key] for key in sorted(found)]}
    return {"tags": _tags(tags, "the set"), **payload} if tags else payload


def _member(member: Any, what: str) -> dict[str, Any]:
    if not isinstance(member, Mapping) or not {"id"} <= member.keys() <= {"id", "tags"}:
        raise InvalidRequestError(f'{what} is not of the form {{"id": {{…}}, "tags": {{…}}}}')
    identity = member["id"]
    if not isinstance(identity, Mapping) or set(identity) != set(_ID_FIELDS):
        raise InvalidRequestError(f"the id of {what} does not have exactly {', '.join(_ID_FIELDS)}")
    validate_name(identity["project"], "project")
    validate_name(identity["name"], "member")
    if identity["kind"] not in [kind.value for kind in Kind]:
        raise InvalidRequestError(f'the kind of {what} is "{str(identity["kind"])[:80]}", expected "table" or "set"')
    if not isinstance(identity["version"], str) or not is_full_version(identity["version"]):
        raise InvalidRequestError(f"the version of {what} is not a whole version id of 64 hex digits")
    entry: dict[str, Any] = {"id": {field: identity[field] for field in _ID_FIELDS}}
    return {**entry, "tags": _tags(member["tags"], what)} if member.get("tags") else entry


def _tags(tags: Any, what: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(tags, Mapping) or not all(isinstance(label, str) and label for label in tags):
        raise InvalidRequestError(f"the tags of {what} are not an object with names")
    return {label: _values(tags[label], f'tag "{label[:80]}" of {what}') for label in sorted(tags)}


def _values(value: Any, what: str) -> tuple[str, ...]:
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or not all(isinstance(text, str) and text for text in values):
        raise InvalidRequestError(f"{what} is neither a text nor a list of texts that are not empty")
    if not values:
        raise InvalidRequestError(f"{what} has no value", hint="leave the tag out")
    return tuple(sorted(set(values)))
