"""What a backend takes beside its URL, from a file: passwords belong neither into a command line nor into a URL."""

import json
import os
from pathlib import Path
from typing import cast

from smoothcluster.cli import logs
from smoothcluster.errors import UsageError

OPTIONS_VARIABLE = "SMOOTHCLUSTER_OPTIONS"
"""Names a file with a JSON object: options of the backend, as its README lists them."""


def backend_options() -> dict[str, object]:
    """What the file holds that the variable names; nothing if none is named. Its passwords are never shown."""
    path = os.environ.get(OPTIONS_VARIABLE)
    if not path:
        return {}
    try:
        options = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{OPTIONS_VARIABLE}: {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{OPTIONS_VARIABLE}: {path} is not JSON") from None
    if not isinstance(options, dict):
        raise UsageError(f'{OPTIONS_VARIABLE}: {path} must hold a JSON object, such as {{"username": "crawler"}}')
    for name, value in cast("dict[str, object]", options).items():
        if "password" in name:
            logs.hide_word(str(value))
    return cast("dict[str, object]", options)
