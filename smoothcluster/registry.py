"""`connect`: find the backend for a URL, through the entry points of the group ``smoothcluster.backends``.

The name of an entry point is the URL's scheme. The entry point leads to an object, usually the adapter's
class, with ``from_url(url, **options)``. Every failure here has a message of its own, because a failed
connection is the first message that a user sees. No message shows the parts of a URL that may be secret.
"""

import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from math import isfinite
from types import UnionType
from typing import get_args, get_type_hints

from smoothcluster.arguments import check_text
from smoothcluster.backend import CoordinationBackend
from smoothcluster.errors import MissingDriverError, UnknownSchemeError, UsageError

ENTRY_POINT_GROUP = "smoothcluster.backends"
BACKEND_VARIABLE = "SMOOTHCLUSTER_BACKEND"
DEFAULT_URL = "sqlite://"
"""The URL without any setting: needs no server, and is the same for all processes of a user."""

_EXAMPLE_URL = "zookeeper://127.0.0.1:2181"
_SCHEME_PATTERN = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_REQUIREMENT_PATTERN = re.compile(r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)[^;]*(;(?P<marker>.*))?")
_NO_PORT_PATTERN = re.compile(r":(?![0-9]{1,5}(?:[,/]|$)).*", re.DOTALL)
"""A colon without a port, and all text from there on, which may be a password."""
_EXTRA_PATTERN = re.compile(r"""extra\s*==\s*['"](?P<extra>[^'"]+)['"]""")


def connect(url: str | None = None, **options: object) -> CoordinationBackend:
    """Return the backend at *url*; if *url* is None, at ``SMOOTHCLUSTER_BACKEND``, else in this user's own file.

    *options* belong to the adapter: see the adapter's README. Raise UsageError if the URL is not usable or
    an option is unknown, UnknownSchemeError if no installed backend is registered for the scheme,
    MissingDriverError if the driver is not installed. Errors of the adapter escape unchanged.
    """
    if url is None:
        url = os.environ.get(BACKEND_VARIABLE) or DEFAULT_URL
    check_text("the URL of a backend", url)
    scheme, url = _normal(url)
    from_url = _from_url(_find(scheme))
    _check_options(scheme, from_url, url, options)
    return from_url(url, **options)


def schemes() -> list[str]:
    """The URL schemes of all installed backends, sorted."""
    return sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)})


def masked(url: str) -> str:
    """*url* without its possible secrets: all text before the last ``@`` (or ``%40``), and the query or fragment.

    A password may contain any character by mistake, so the function masks too much rather than too little.
    """
    scheme, rest = _split(url)
    *before, rest = re.split("@|%40", rest)
    rest, *after = re.split("[?#]", rest)
    return f"{scheme}{'://' if scheme else ''}{'***@' if before else ''}{rest}{'?***' if after else ''}"


def _split(url: str) -> tuple[str, str]:
    """Split *url* into the scheme and the rest; the scheme is empty if *url* does not begin with a scheme."""
    scheme, separator, rest = url.partition("://")
    return (scheme.lower(), rest) if separator and _SCHEME_PATTERN.fullmatch(scheme) else ("", url)


def _normal(url: str) -> tuple[str, str]:
    """The scheme in small letters, and the URL with this scheme, so that adapters need not handle capitals."""
    scheme, rest = _split(url)
    if not scheme:
        shown = _NO_PORT_PATTERN.sub(":***", masked(url))
        raise UsageError(f"{shown!r} is not a backend's URL: it must begin with a scheme, as in {_EXAMPLE_URL}")
    return scheme, f"{scheme}://{rest}"


def _find(scheme: str) -> EntryPoint:
    """The entry point for *scheme*; raise an error if there are none or several."""
    found = {point.value: point for point in entry_points(group=ENTRY_POINT_GROUP, name=scheme)}
    if not found:
        raise UnknownSchemeError(_unknown(scheme, schemes()))
    if len(found) > 1:
        owners = " and ".join(sorted(f"{point.value} ({_owner(point)})" for point in found.values()))
        raise UsageError(f"more than one backend is registered for {scheme}://: {owners}; uninstall all but one")
    return next(iter(found.values()))


def _unknown(scheme: str, known: list[str]) -> str:
    if not known:
        return (
            f"no backend is registered for {scheme}://, nor for any other scheme: "
            "smoothcluster must be installed (pip install); a checkout on the path is not enough"
        )
    near = difflib.get_close_matches(scheme, known, n=1)
    hint = f"; did you mean {near[0]}://?" if near else "; install the package of the backend first"
    names = ", ".join(f"{name}://" for name in known)
    return f"no backend is registered for {scheme}://: the known schemes are {names}{hint}"


def _from_url(point: EntryPoint) -> Callable[..., CoordinationBackend]:
    """Load the object of *point*, and tell a missing driver from a fault in the adapter."""
    try:
        target: object = point.load()
    except ModuleNotFoundError as error:
        hint = _driver_hint(point, error.name or "")
        if hint is None:
            raise
        raise MissingDriverError(
            f"{point.name}:// needs a driver that is not installed ({error.name}): pip install '{hint}'"
        ) from error
    from_url: Callable[..., CoordinationBackend] | None = getattr(target, "from_url", None)
    if from_url is None:
        raise TypeError(f"{point.value}, registered for {point.name}:// by {_owner(point)}, has no from_url")
    return from_url


def _driver_hint(point: EntryPoint, module: str) -> str | None:
    """The package to install if *module* is missing because of a driver; None if the adapter is at fault.

    The driver is missing if a requirement of the adapter's distribution is not installed: a general requirement,
    or a requirement of the extra with the name of the adapter's package (smoothcluster_etcd: etcd). If all
    these are installed, a missing module is a mistake in the adapter, and the original error explains more.
    """
    package = point.module.partition(".")[0]
    if point.dist is None or module.partition(".")[0] in ("smoothcluster", package):
        return None
    own = package.removeprefix("smoothcluster_")
    for name, extra in _requirements(point.dist.requires or ()):
        if extra in (None, own) and not _installed(name):
            return f"{point.dist.name}[{extra}]" if extra else name
    return None


def _requirements(lines: Iterable[str]) -> Iterable[tuple[str, str | None]]:
    """Name and extra of each requirement, without requirements with other markers, which may not apply here."""
    for line in lines:
        match = _REQUIREMENT_PATTERN.match(line)
        if match is None:
            continue
        marker = match["marker"]
        extra = _EXTRA_PATTERN.fullmatch(marker.strip()) if marker else None
        if extra or not marker:
            yield match["name"], extra["extra"] if extra else None


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _check_options(
    scheme: str, from_url: Callable[..., CoordinationBackend], url: str, options: dict[str, object]
) -> None:
    signature = inspect.signature(from_url)
    try:
        signature.bind(url, **options)
    except TypeError as error:
        takes = [
            parameter.name
            for parameter in list(signature.parameters.values())[1:]
            if parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        raise UsageError(
            f"{scheme}://: {error}; the options of the backend are: {', '.join(takes) or 'none'}"
        ) from None
    try:
        hints = get_type_hints(from_url)
    except NameError:  # Annotations may name types that the module imports for type checkers only.
        return
    for name, value in options.items():
        _check_type(f"{scheme}://: the option {name}", value, hints.get(name))


def _check_type(option: str, value: object, hint: object) -> None:
    """Raise UsageError for a value that does not fit the annotation. A value may be secret, so no message shows it."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if float in kinds and isinstance(value, int | float) and not isinstance(value, bool):
        if not isfinite(value):
            raise UsageError(f"{option} must be a finite number, not {value}")
        return
    if str in kinds and isinstance(value, os.PathLike):
        return
    plain = [kind for kind in kinds if isinstance(kind, type)]
    if len(plain) == len(kinds) and not isinstance(value, tuple(plain)):
        names = " or ".join(kind.__name__ for kind in plain).replace("NoneType", "None")
        raise UsageError(f"{option} must be {names}, not {type(value).__name__}")


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown distribution"
