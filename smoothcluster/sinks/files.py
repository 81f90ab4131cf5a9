"""A results sink of files: a folder on a disk, or a bucket of an object store, by fsspec.

Each write is a new block, ``<job>/<shard>/<first>-<last>.<random>.jsonl`` (see `smoothcluster.sinks.blocks`). A file
or object is never changed. A killed writer leaves at most the block of its last write, and no reader sees that block.
"""

import re
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol, Self, cast

import fsspec.core
from fsspec.implementations.local import LocalFileSystem

from smoothcluster.arguments import check_name
from smoothcluster.errors import GarbageError, MissingDriverError, SmoothclusterError, UnknownSchemeError, UsageError
from smoothcluster.server_options import refuse_credentials
from smoothcluster.sinks.blocks import check_block_name, decode_block, encode_block
from smoothcluster.sinks.local_files import DurableFiles
from smoothcluster.sinks.options import CREDENTIALS_ADVICE, RESULTS_OPTIONS_VARIABLE, secrets_of, unavailable
from smoothcluster.sinks.protocol import NumberedOutcome, Part, Tail, check_batch, check_part

MARKS_FOLDER = ".smoothcluster"
"""The folder of marks, beside the folders of jobs."""


class FileSink:
    """Outcomes as blocks of JSON lines, in a folder or a bucket."""

    def __init__(self, url: str, **options: Any) -> None:
        check_files_url(url)
        self._secrets = secrets_of(options)
        self._files, root = _file_system(url, options)
        self._root = root.rstrip("/")
        scheme, _, rest = url.partition("://")
        self._url = f"{scheme}://{rest.rstrip('/')}"
        self._local: DurableFiles | None = None
        if isinstance(self._files, LocalFileSystem):
            self._url = f"file://{self._root}"
            self._local = DurableFiles()

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Self:
        """Make the sink for *url*; *options* are keywords of the fsspec class."""
        return cls(url, **options)

    @property
    def url(self) -> str:
        return self._url

    def __repr__(self) -> str:
        return f"<FileSink {self._url}>"

    def write(self, part: Part, batch: Sequence[NumberedOutcome], after: Tail | None) -> Tail:
        check_batch(batch, after)
        tail, content = encode_block(part, batch, after)
        with self._telling("write to"):
            self._put(f"{self._folder(part)}/{tail.name}", content)
        return tail

    def read(self, part: Part, tail: Tail) -> Iterator[NumberedOutcome]:
        left: Tail | None = tail
        while left is not None:
            block = decode_block(part, left, self._content(part, left))
            yield from block.outcomes
            left = block.previous

    def delete(self, part: Part) -> None:
        folder = self._folder(part)
        with self._telling("delete results from"):
            if self._local is not None:
                self._local.forget(Path(folder))
            with suppress(FileNotFoundError):
                self._files.rm(folder, recursive=True)

    def mark(self, name: str) -> None:
        if not self.has_mark(name):
            with self._telling("write to"):
                self._put(self._mark(name), b"A group of smoothcluster keeps results here.\n")

    def has_mark(self, name: str) -> bool:
        path = self._mark(name)
        with self._telling("read from"):
            try:
                return bool(self._files.cat_file(path))
            except FileNotFoundError:
                return False

    def close(self) -> None:
        """Do nothing: fsspec closes its connections when the file system is no longer used."""

    def _folder(self, part: Part) -> str:
        return f"{self._root}/{check_part(part).job}/{part.shard:d}"

    def _mark(self, name: str) -> str:
        return f"{self._root}/{MARKS_FOLDER}/{check_name('mark', name)}"

    def _put(self, path: str, content: bytes) -> None:
        if self._local is not None:
            self._local.write(Path(path), content)
        else:
            self._files.pipe_file(path, content)

    def _content(self, part: Part, tail: Tail) -> bytes:
        path = f"{self._folder(part)}/{check_block_name(tail.name)}"
        with self._telling("read from"):
            try:
                content = self._files.cat_file(path)
            except FileNotFoundError:
                raise GarbageError(f"block {tail.name} of job {part.job!r} is not in {self._url}") from None
        return content

    @contextmanager
    def _telling(self, deed: str) -> Generator[None]:
        try:
            yield
        except SmoothclusterError:
            raise
        except Exception as error:  # noqa: BLE001 - each file system has errors of its own
            raise unavailable(self._url, deed, error, self._secrets) from None  # The cause may show secrets.


def check_files_url(url: str) -> None:
    """Raise UsageError if *url* holds credentials or options, or chains file systems. The error shows no part."""
    rest = url.partition("://")[2]
    if not rest.startswith("/"):  # There is a host or a bucket.
        refuse_credentials("results sink", url, CREDENTIALS_ADVICE)
    if re.search(r"[?#]|::", rest):
        raise UsageError(
            "the URL of a folder or bucket for results has no query, no fragment and no '::';"
            f" put options into {RESULTS_OPTIONS_VARIABLE}"
        )
    if url.startswith(("file://", "local://")) and not rest.startswith("/"):
        raise UsageError("the folder of a results sink must be absolute, as in file:///data/out")


class _Files(Protocol):
    """The methods of a file system that the sink calls: fsspec has no types for them."""

    def cat_file(self, path: str) -> bytes: ...
    def pipe_file(self, path: str, value: bytes) -> object: ...
    def rm(self, path: str, recursive: bool) -> object: ...  # noqa: FBT001 - as in fsspec


def _file_system(url: str, options: dict[str, Any]) -> tuple[_Files, str]:
    scheme = url.partition("://")[0]
    library = cast("Any", fsspec.core)
    try:
        # No instance shared with the program, which may have other options; no listing from memory.
        files, root = library.url_to_fs(url, skip_instance_cache=True, use_listings_cache=False, **options)
    except ImportError as error:
        raise MissingDriverError(f"{scheme}:// needs a library that is not installed: {error!s:.100}") from None
    except ValueError:
        if scheme in cast("Any", fsspec).available_protocols():
            raise UsageError(f"{scheme}:// does not take this URL with these options") from None
        raise UnknownSchemeError(f"fsspec knows no file system for {scheme}://") from None
    except TypeError as error:
        raise UsageError(f"{scheme}:// does not take an option of {RESULTS_OPTIONS_VARIABLE}: {error!s:.100}") from None
    return files, root
