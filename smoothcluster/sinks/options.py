"""Options of results sinks: credentials and settings, from a variable; and messages without credentials."""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast

from smoothcluster.errors import SinkUnavailableError, UsageError

RESULTS_OPTIONS_VARIABLE = "SMOOTHCLUSTER_RESULTS_OPTIONS"
"""The environment variable with the options of the sink: a JSON object, or the path of a file with a JSON object."""

CREDENTIALS_ADVICE = f"put username, password and keys into {RESULTS_OPTIONS_VARIABLE} or the library's own place"

LONGEST_REASON = 200
"""Most characters of a library's message in an error of ours."""

SHORTEST_SECRET = 4
"""Characters of the shortest option that messages hide. Shorter ones are words such as ``yes``."""


def sink_options() -> dict[str, object]:
    """Return the options in the variable; no options if the variable is unset. No message shows an option."""
    text = os.environ.get(RESULTS_OPTIONS_VARIABLE, "").strip()
    if not text:
        return {}
    place = RESULTS_OPTIONS_VARIABLE
    if not text.startswith("{"):
        place = f"the file named by {RESULTS_OPTIONS_VARIABLE}"
        try:
            text = Path(text).read_text(encoding="utf-8")
        except (OSError, ValueError):  # The variable may hold a password by mistake: show no part.
            raise UsageError(
                f"{RESULTS_OPTIONS_VARIABLE} holds neither a JSON object nor the path of a readable file"
            ) from None
    try:
        options = json.loads(text)
    except (ValueError, RecursionError):
        raise UsageError(f"{place} does not hold JSON") from None
    if not isinstance(options, dict):
        raise UsageError(f'{place} must hold a JSON object, such as {{"username": "crawler"}}')
    return cast("dict[str, object]", options)


def secrets_of(options: Mapping[str, object]) -> frozenset[str]:
    """Return every text among the options, at any depth: any of the texts may be a secret."""
    found: set[str] = set()
    waiting: list[object] = [options]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            found.add(value)
        elif isinstance(value, Mapping):
            waiting += cast("Mapping[object, object]", value).values()
        elif isinstance(value, list | tuple):
            waiting += cast("Iterable[object]", value)
    return frozenset(text for text in found if len(text) >= SHORTEST_SECRET)


def unavailable(url: str, deed: str, error: BaseException, secrets: Iterable[str]) -> SinkUnavailableError:
    """Return the error for a failed *deed*: with the first line of the reason, and without any secret."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [""]
    reason = lines[0]
    for secret in sorted(secrets, key=len, reverse=True):
        reason = reason.replace(secret, "***")
    kind = type(getattr(error, "orig", None) or error).__name__
    return SinkUnavailableError(f"cannot {deed} {url}: {kind}: {reason:.{LONGEST_REASON}}")
