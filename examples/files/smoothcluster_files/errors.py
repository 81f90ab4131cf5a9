"""Translate the system's errors into the errors of `smoothcluster.errors`: the only table for this."""

from smoothcluster.errors import AccessDeniedError, BackendError, UnavailableError


def translate(error: OSError, where: str, unknown: type[BackendError] = UnavailableError) -> BackendError:
    """Translate *error*, raised at *where*, for the caller: into *unknown*, unless the user lacks permission."""
    if isinstance(error, PermissionError):
        return AccessDeniedError(f"the folder {where} may not be written by this user: {error.strerror}")
    return unknown(f"the folder {where}: {error.strerror or error}")
