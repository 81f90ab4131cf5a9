"""What the system's errors mean to a caller: the one table."""

from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError


def translate(error: OSError, where: str, unknown: type[BackendError] = UnavailableError) -> BackendError:
    """*error*, met at *where*, as what the caller can act on: *unknown* if what was asked for may have been done."""
    if isinstance(error, PermissionError):
        return AccessDeniedError(f"the folder {where} may not be written by this user: {error.strerror}")
    return unknown(f"the folder {where}: {error.strerror or error}")
