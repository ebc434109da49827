"""As whom the embedded servers run, and which folders that user can reach.

Postgres refuses to run as root. When the supervisor is root, its servers run as the unprivileged user `nobody`, who
must be able to walk to the programs and to the data. Decided here, used by `programs`, `state`, `postgres`, `valkey`.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

NOBODY = 65534
"""The unprivileged user and group of Debian and its kin."""


class PopenUser(TypedDict, total=False):
    """The part of `subprocess.Popen`'s arguments that changes the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class ServerUser:
    """The user the servers run as: a user and group id to change to, or none for "as we are"."""

    uid: int | None
    gid: int | None

    @property
    def popen(self) -> PopenUser:
        """Give the arguments for `subprocess.Popen` that make a child this user."""
        if self.uid is None or self.gid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Hand a file or folder that we made to this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def can_traverse(self, folder: Path) -> bool:
        """Say whether this user can walk to `folder`, which need not exist yet: every existing part lets it pass.

        Access lists are not looked at, so a folder opened only by one counts as closed; that errs on the safe side.
        """
        if self.uid is None:
            return True
        here = folder.absolute().resolve()
        return all(self._may_enter(part) for part in (here, *here.parents) if part.exists())

    def _may_enter(self, folder: Path) -> bool:
        found = folder.stat()
        if found.st_uid == self.uid:
            return bool(found.st_mode & stat.S_IXUSR)
        if found.st_gid == self.gid:
            return bool(found.st_mode & stat.S_IXGRP)
        return bool(found.st_mode & stat.S_IXOTH)


def server_user() -> ServerUser:
    """Choose the user for the servers: `nobody` when we are root, else ourselves."""
    return ServerUser(NOBODY, NOBODY) if os.geteuid() == 0 else ServerUser(None, None)
