"""`connect`: from a URL to a backend, by the entry points of the group ``smoothcluster.backends``.

An entry point's name is the URL's scheme; it names an object, usually the adapter's class, with
``from_url(url, **options)``. Every way this can fail has its own message, because it is the first
thing a user sees; none shows what a URL may hold of secrets.
"""

import difflib
import inspect
import os
import re
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points

from smoothcluster.backend import CoordinationBackend
from smoothcluster.errors import MissingDriverError, UnknownSchemeError, UsageError

GROUP = "smoothcluster.backends"
VARIABLE = "SMOOTHCLUSTER_BACKEND"
DEFAULT = "sqlite://"
"""Where nothing else is said: needs no server, and is the same for all processes of a user."""

_EXAMPLE = "zookeeper://127.0.0.1:2181"
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*", re.IGNORECASE)
_REQUIREMENT = re.compile(r"\s*(?P<name>[A-Za-z0-9][A-Za-z0-9._-]*)[^;]*(;(?P<marker>.*))?")
_EXTRA = re.compile(r"""extra\s*==\s*['"](?P<extra>[^'"]+)['"]""")


def connect(url: str | None = None, **options: object) -> CoordinationBackend:
    """Return the backend at *url*; if that is None, at ``SMOOTHCLUSTER_BACKEND``, else this user's own file.

    *options* are the adapter's own: see its README. Raise UsageError if the URL is not usable or
    an option is unknown, UnknownSchemeError if no installed backend is registered for the scheme,
    MissingDriverError if its driver is not installed; and what the adapter raises.
    """
    if url is None:
        url = os.environ.get(VARIABLE) or DEFAULT
    scheme, url = _normal(url)
    from_url = _from_url(_find(scheme))
    _check_options(scheme, from_url, url, options)
    return from_url(url, **options)


def schemes() -> list[str]:
    """The URL schemes that installed backends are registered for, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def masked(url: str) -> str:
    """*url* with what may be secret replaced: all before the last ``@``, and the query.

    A password may hold any character by mistake, so too much is masked rather than too little.
    """
    scheme, rest = _split(url)
    _, at, rest = rest.rpartition("@")
    rest, query, _ = rest.partition("?")
    return f"{scheme}{'://' if scheme else ''}{'***@' if at else ''}{rest}{'?***' if query else ''}"


def _split(url: str) -> tuple[str, str]:
    """The scheme and what follows it; the scheme is empty if *url* does not begin with one."""
    scheme, separator, rest = url.partition("://")
    return (scheme.lower(), rest) if separator and _SCHEME.fullmatch(scheme) else ("", url)


def _normal(url: str) -> tuple[str, str]:
    """The scheme, and the URL with it in small letters, so that adapters need not care."""
    scheme, rest = _split(url)
    if not scheme:
        raise UsageError(f"{masked(url)!r} is not a backend's URL: it must begin with a scheme, as in {_EXAMPLE}")
    return scheme, f"{scheme}://{rest}"


def _find(scheme: str) -> EntryPoint:
    """The one entry point for *scheme*."""
    found = {point.value: point for point in entry_points(group=GROUP, name=scheme)}
    if not found:
        raise UnknownSchemeError(_unknown(scheme, schemes()))
    if len(found) > 1:
        owners = " and ".join(sorted(f"{point.value} ({_owner(point)})" for point in found.values()))
        raise UsageError(f"more than one backend is registered for {scheme}://: {owners}; uninstall all but one")
    return next(iter(found.values()))


def _unknown(scheme: str, known: list[str]) -> str:
    if not known:
        return (
            f"no backend is registered for {scheme}://, nor for anything else: "
            "smoothcluster must be installed (pip install); a checkout on the path is not enough"
        )
    near = difflib.get_close_matches(scheme, known, n=1)
    hint = f"; did you mean {near[0]}://?" if near else "; a package that provides it must be installed first"
    return f"no backend is registered for {scheme}://: known are {', '.join(f'{name}://' for name in known)}{hint}"


def _from_url(point: EntryPoint) -> Callable[..., CoordinationBackend]:
    """Load what *point* names, telling a missing driver from an adapter's own fault."""
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
    """What to install if *module* is missing because a driver is; None if the adapter is at fault.

    It is the driver if something that the adapter's distribution asks for is not installed, in
    general or in the extra named as the adapter's package is (smoothcluster_etcd: etcd). Where all
    of that is there, a module that cannot be found is a mistake in the adapter, and says so best itself.
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
    """Name and extra of each requirement; one with any other marker may not apply here and is left out."""
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match is None:
            continue
        marker = match["marker"]
        extra = _EXTRA.fullmatch(marker.strip()) if marker else None
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
        raise UsageError(f"{scheme}://: {error}; its options are: {', '.join(takes) or 'none'}") from None


def _owner(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "an unknown distribution"
