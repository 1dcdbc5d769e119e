"""Opens this machine's chain of the audit trail, for the service and for the command line."""

from __future__ import annotations

import os
import platform
import pwd
import re
from importlib.metadata import version

from config.model import Settings
from reporting.audit.trail import Actor, AuditTrail, TrailPolicy, load_or_make_key

_USER = re.compile(r"[A-Za-z0-9_.\-@$]{1,64}")


def open_trail(
    settings: Settings,
    *,
    model_sha256: str | None = None,
    finder_sha256: str | None = None,
    calibration_sha256: str | None = None,
) -> AuditTrail:
    """The chain of `service.worker_id`; processes of one machine share it.

    Its events name the networks, and the calibration of the site, that are given.
    """
    audit = settings.audit
    return AuditTrail.open(
        settings.audit_dir,
        chain=settings.worker_id,
        key=load_or_make_key(settings.audit_key_file),
        software_version=version("smearlink"),
        model_sha256=model_sha256,
        finder_sha256=finder_sha256,
        calibration_sha256=calibration_sha256,
        actor=Actor(ae_title=settings.dicom.ae_title, host=platform.node() or None),
        policy=TrailPolicy(
            fsync=audit.fsync,
            fsync_every_s=audit.fsync_every_s,
            checkpoint_every_events=audit.checkpoint_every_events,
            checkpoint_every_s=audit.checkpoint_every_s,
        ),
    )


def person_at_terminal() -> Actor:
    """Who runs this command: the person behind sudo, else the user of the process."""
    names = (os.environ.get("SUDO_USER", ""), _user_name())
    user = next((name for name in names if _USER.fullmatch(name)), str(os.getuid()))
    return Actor(user=user, host=platform.node() or None)


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as a user without a name
        return ""
