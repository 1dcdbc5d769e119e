"""Who may do what in the console: one table, the same as in docs/console.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType


class Role(StrEnum):
    """What an account, a claim or a proxy's header may name."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    ADMINISTRATOR = "administrator"


class Permission(StrEnum):
    """What a page asks for."""

    LOOK = "look"
    """Smears, cells, fields and pictures."""
    IDENTIFY = "identify"
    """Accession, patient and notes, on pages and in files; without it, pseudonyms."""
    TAKE_AWAY = "take_away"
    """Results as files."""
    UPLOAD = "upload"
    REVIEW = "review"
    """Correct and sign."""
    REFERENCES = "references"
    """Keep reference cells, and take them out again."""
    NETWORK = "network"
    """How good the network is."""
    WATCH = "watch"
    """Queues, parked work, destinations, disk and workers."""
    OPERATE = "operate"
    """Retry parked work, test destinations."""
    AUDIT = "audit"
    """Read, verify and export the audit trail."""


_P = Permission
_LOOKING = frozenset({_P.LOOK, _P.TAKE_AWAY, _P.NETWORK})

PERMISSIONS: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.VIEWER: _LOOKING | {_P.IDENTIFY},
        Role.REVIEWER: _LOOKING | {_P.IDENTIFY, _P.UPLOAD, _P.REVIEW, _P.REFERENCES},
        Role.OPERATOR: _LOOKING | {_P.UPLOAD, _P.WATCH, _P.OPERATE},
        Role.AUDITOR: frozenset({_P.NETWORK, _P.WATCH, _P.AUDIT}),
        Role.ADMINISTRATOR: frozenset(Permission) - {_P.REVIEW, _P.REFERENCES},
    }
)
"""An administrator sets the console up and sees everything, but signs no results."""

LOCAL_VISITOR: frozenset[Permission] = _LOOKING | {_P.WATCH, _P.AUDIT}
"""Whoever sits at the machine while no account exists: reads all but patients, changes nothing."""


def permissions_of(roles: Iterable[Role]) -> frozenset[Permission]:
    """Everything that any of the roles may do."""
    return frozenset().union(*(PERMISSIONS[role] for role in roles))
