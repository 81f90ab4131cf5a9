"""Whose file it is: a store that other users may write is refused, with a word on what to do."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from smoothcluster_sqlite import SqliteBackend
from smoothcluster_sqlite import file as opening

from smoothcluster.backend import Create
from smoothcluster.errors import UnavailableError, UsageError
from smoothcluster.testing import eventually

STRANGER = 12345
"""A user who is somebody else."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with a key in it, closed. The folder is this user's alone."""
    tmp_path.chmod(0o700)
    path = tmp_path / "cluster.db"
    with closing(SqliteBackend(path)) as backend:
        backend.commit([], [Create("a", b"1")])
    return path


def refused(path: Path, *says: str) -> None:
    """It is refused by every first use, and nothing is written."""
    before = path.read_bytes() if path.is_file() else b""
    with closing(SqliteBackend(path)) as backend:
        for use in (lambda: backend.get("a"), lambda: backend.commit([], [Create("b", b"")]), lambda: backend.lease(9)):
            with pytest.raises(UsageError) as caught:
                use()
            assert all(word in str(caught.value) for word in says), str(caught.value)
    assert (path.read_bytes() if path.is_file() else b"") == before


def give_away(monkeypatch: pytest.MonkeyPatch, *paths: Path) -> None:
    """Have *paths* belong to a stranger, even where this user may not change that."""
    stat = os.stat

    def changed(path: str | Path, *args: object, **options: object) -> os.stat_result:
        found = stat(path, *args, **options)  # type: ignore[arg-type]  # as it was called
        if str(path) not in {str(each) for each in paths}:
            return found
        fields = list(found)
        fields[4] = STRANGER
        return os.stat_result(fields)

    monkeypatch.setattr(os, "stat", changed)


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
def test_a_strangers_file_is_refused(path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its owner could change it under us, and so could the owner of a log that sqlite reads with it."""
    theirs = path.with_name(path.name + suffix)
    theirs.touch()
    give_away(monkeypatch, theirs)
    refused(path, str(theirs), str(STRANGER), "chown")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_that_was_given_away_is_refused(path: Path) -> None:
    """Root, too, follows nobody: a user may have put the file there for root to find."""
    os.chown(path, STRANGER, STRANGER)
    refused(path, str(path), str(STRANGER))


@pytest.mark.parametrize("mode", [0o602, 0o666, 0o622])
def test_a_file_that_all_may_write_is_refused(path: Path, mode: int) -> None:
    """The message has the command that mends it."""
    path.chmod(mode)
    refused(path, f"chmod o-w {path}")


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o644, 0o660])
def test_a_file_that_others_may_read_is_not(path: Path, mode: int) -> None:
    """Who may read it is for its owner to say; so is a group that may write."""
    path.chmod(mode)
    with closing(SqliteBackend(path)) as backend:
        assert backend.get("a") is not None


@pytest.mark.parametrize("new", [True, False])
def test_a_folder_that_all_may_write_is_refused(path: Path, new: bool) -> None:
    """Anybody could put another file in the place of ours."""
    path.parent.chmod(0o777)
    if new:
        path.unlink()
    refused(path, f"chmod o-w {path.parent}")
    assert path.exists() == (not new)


def test_a_folder_with_the_sticky_bit_is_not(path: Path) -> None:
    """As /tmp is: nobody can replace the file of another."""
    path.parent.chmod(0o1777)
    with closing(SqliteBackend(path)) as backend:
        assert backend.get("a") is not None


@pytest.mark.parametrize("open_folder", ["of the link", "of the file"])
def test_both_folders_of_a_link_count(path: Path, tmp_path: Path, open_folder: str) -> None:
    """Whoever can change either decides which file is opened."""
    folder = tmp_path / "links"
    folder.mkdir(mode=0o700)
    (folder / "link.db").symlink_to(path)
    with closing(SqliteBackend(folder / "link.db")) as backend:
        assert backend.get("a") is not None
    wide = folder if open_folder == "of the link" else path.parent
    wide.chmod(0o777)
    refused(folder / "link.db", f"chmod o-w {wide}")


def test_a_file_that_is_replaced_by_an_open_one_is_away(path: Path) -> None:
    """Later it is no mistake of the call: the right file may come back, and members wait for it."""
    with closing(SqliteBackend(path)) as backend:
        assert backend.get("a") is not None
        aside = path.rename(path.with_name("aside.db"))
        path.write_bytes(aside.read_bytes())
        path.chmod(0o666)
        with pytest.raises(UnavailableError, match="chmod o-w"):
            backend.get("a")
        aside.replace(path)
        eventually(lambda: backend.get("a") is not None)


def test_a_log_planted_while_the_file_is_opened_is_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stranger may be quicker than sqlite itself: so there is another look when it has opened the log."""
    read: Callable[..., object] = vars(opening)["_single_value"]

    def plant(connection: object, statement: str) -> object:
        give_away(monkeypatch, path.with_name(f"{path.name}-wal"))
        return read(connection, statement)

    monkeypatch.setattr(opening, "_single_value", plant)
    with closing(SqliteBackend(path)) as backend, pytest.raises(UsageError, match=str(STRANGER)):
        backend.get("a")
