"""Read options of the backend from a file: passwords belong neither in a command line nor in a URL."""

import json
import os
from pathlib import Path
from typing import cast

from smoothcluster.cli import logs
from smoothcluster.errors import OPTIONS_VARIABLE, UsageError


def backend_options() -> dict[str, object]:
    """Return the options in the file named by the variable; no options if the variable is unset.

    Messages never show the passwords among the options.
    """
    path = os.environ.get(OPTIONS_VARIABLE)
    if not path:
        return {}
    try:
        options = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{OPTIONS_VARIABLE} names {path}, and the file cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{OPTIONS_VARIABLE} names {path}, and the file is not JSON") from None
    if not isinstance(options, dict):
        raise UsageError(
            f'{OPTIONS_VARIABLE} names {path}, and the file must hold a JSON object, such as {{"username": "crawler"}}'
        )
    for name, value in cast("dict[str, object]", options).items():
        if "password" in name:
            logs.hide_word(str(value))
    return cast("dict[str, object]", options)
