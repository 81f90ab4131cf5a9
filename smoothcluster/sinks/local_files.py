"""Durable files on a local disk: whole under their name, or not there."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


class DurableFiles:
    """Writes files that survive a loss of power once `write` has returned."""

    def __init__(self) -> None:
        self._synced: set[Path] = set()
        """Folders whose entry in the folder above is on the disk."""

    def write(self, path: Path, content: bytes) -> None:
        """Write a new file. A file of this name is whole: another name is used until the content is on the disk."""
        self._make_folder(path.parent)
        unfinished = path.with_name(f".{path.name}.part")
        try:
            with unfinished.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        except BaseException:
            with suppress(OSError):
                unfinished.unlink()  # On a full disk, every byte counts.
            raise
        _sync_folder(path.parent)

    def _make_folder(self, folder: Path) -> None:
        """Make *folder*, and put its entry, and those of the folders above, on the disk.

        A folder that exists may still lack this: its maker may have died in between.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for each in (folder, *_own_parents(folder)):
            if each not in self._synced:
                with suppress(PermissionError):  # Somebody else made the folders above such a folder.
                    _sync_folder(each.parent)
                self._synced.add(each)

    def forget(self, folder: Path) -> None:
        """Forget what is known of a deleted folder."""
        self._synced = {each for each in self._synced if each != folder and folder not in each.parents}


def _own_parents(folder: Path) -> Iterator[Path]:
    """The folders above *folder*, without the root of the file system."""
    return (each for each in folder.parents if each != each.parent)


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)
