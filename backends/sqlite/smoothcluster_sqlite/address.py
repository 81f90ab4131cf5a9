"""The path of the sqlite file, from a URL or the default of a user, and whether processes can share a file there."""

import os
import re
from pathlib import Path

from smoothcluster.errors import UsageError

URL_PREFIX = "sqlite://"

_LOCKLESS_FILE_SYSTEMS = re.compile(
    "9p|afs|beegfs|ceph|cifs|coda|davfs|glusterfs|lustre|ncpfs|nfs4?|prl_fs|smb3|smbfs|vboxsf|"
    r"fuse\.(davfs|gcsfuse|glusterfs|goofys|gvfsd-fuse|rclone|s3fs|sshfs|vmhgfs-fuse)"
)
"""File systems shared over a network or with another kernel, where sqlite's locks and shared memory do not work."""


def parse_url(url: str) -> str | None:
    """Return the path in ``sqlite:///relative.db`` or ``sqlite:////absolute.db``; None for ``sqlite://``."""
    host, slash, path = url.removeprefix(URL_PREFIX).partition("/")
    if host or (slash and not path):
        raise UsageError("the URL names no file: use sqlite:///relative.db, sqlite:////absolute/path.db or sqlite://")
    if re.search(r"\?\w+=", path):
        raise UsageError(
            "sqlite: the URL of a file takes no options, such as ?name=...; an option would become part of the file's"
            " name"
        )
    return path or None


def default_path() -> Path:
    """Return the path of the default file of this user, below the user's state folder."""
    named = os.environ.get("XDG_STATE_HOME", "")
    try:
        state = Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state"
    except RuntimeError as error:
        raise UsageError(
            f"no default file for this user: {error}; name a file, as in sqlite:////path/cluster.db"
        ) from error
    return state / "smoothcluster" / "cluster.db"


def make_folder(folder: Path) -> None:
    """Create the folder of the default file, readable only by this user."""
    try:
        for each in (*reversed(folder.parents), folder):
            if not each.exists():
                each.mkdir(mode=0o700, exist_ok=True)  # As the XDG Base Directory Specification asks.
                each.chmod(each.stat().st_mode | 0o700)  # Whatever the umask of the process forbids to the owner.
    except OSError as error:
        raise UsageError(
            f"cannot create {folder}: {error.strerror}; name a file, as in sqlite:////path/cluster.db"
        ) from error


def check_shared_here(path: Path, mounts: Path = Path("/proc/self/mountinfo")) -> None:
    """Raise UsageError if *path* is on a file system where processes cannot share an sqlite file."""
    best, kind = "", ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return  # No list of mounts: the user has to know.
    for line in lines:
        before, _, after = line.partition(" - ")
        point = _unescaped(before.split(" ")[4])
        # The file system mounted last over a path is visible there.
        if len(point) >= len(best) and path.is_relative_to(point):
            best, kind = point, after.split(" ")[0]
    if _LOCKLESS_FILE_SYSTEMS.fullmatch(kind):
        raise UsageError(
            f"{path} is on a network file system ({kind}, mounted at {best}), where sqlite's locks are not reliable: "
            "name a file on a disk of this machine, as in sqlite:////var/tmp/cluster.db, or use a store with a server"
        )


def _unescaped(point: str) -> str:
    """Decode a mount point: the kernel writes blanks, tabs, newlines and backslashes in octal."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        point = point.replace(code, chr(int(code[1:], 8)))
    return point
