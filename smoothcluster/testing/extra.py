"""The packages of the extra ``smoothcluster[testing]``, which a plain installation lacks."""

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def needs_extra() -> Generator[None]:
    """Import modules that need the extra. If a package is missing, the ModuleNotFoundError says how to install it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "smoothcluster":
            raise
        raise ModuleNotFoundError(
            f"{error.name} is not installed: pip install 'smoothcluster[testing]'", name=error.name
        ) from None
