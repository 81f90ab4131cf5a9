"""Read options of the backend from a file: passwords belong neither in a command line nor in a URL."""

import json
import os
import shlex
import stat
from pathlib import Path
from typing import cast

from smoothcluster.cli import logs
from smoothcluster.errors import UsageError
from smoothcluster.server_options import OPTIONS_VARIABLE


def backend_options() -> dict[str, object]:
    """Return the options in the file named by the variable; no options if the variable is unset.

    Messages never show the passwords among the options.
    """
    path = os.environ.get(OPTIONS_VARIABLE)
    if not path:
        return {}
    try:
        with Path(path).open(encoding="utf-8") as file:
            _warn_of_readers(path, os.fstat(file.fileno()))
            options = json.load(file)
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


def _warn_of_readers(path: str, found: os.stat_result) -> None:
    """Warn if other users can read the file, which may hold passwords, or change the options.

    A group may read a file of root: so root gives a password to a service that runs as another user.
    """
    exposed = stat.S_IRWXG | stat.S_IRWXO
    if found.st_uid == 0 != os.geteuid():
        exposed &= ~stat.S_IRGRP
    if found.st_mode & exposed & ~(stat.S_IXGRP | stat.S_IXOTH):
        logs.log.warning(
            "other users can read or change %s, the options of the backend; run: chmod 600 %s", path, shlex.quote(path)
        )
