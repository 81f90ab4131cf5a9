"""Results as files: in a folder, in memory, and in an object store that a server from PyPI plays."""

import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast, final

import fsspec
import pytest
from servers import Server

from smoothcluster.errors import GarbageError, MissingDriverError, SinkUnavailableError, UnknownSchemeError, UsageError
from smoothcluster.sinks import Part, open_sink
from smoothcluster.sinks.files import FileSink
from smoothcluster.testing import SinkAbility, SinkConformance
from smoothcluster.testing.sink_conformance.kit import numbered, read_all

PART = Part("j", 3)


class TestFolder(SinkConformance):
    """A folder on a local disk."""

    abilities = frozenset({SinkAbility.AWAY, SinkAbility.KILL})
    kill_points = frozenset({"mkdir", "write", "fsync", "rename"})
    least_kills = 10  # As many folders as there are lie above.
    folder: Path

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "results" / "out"

    @property
    def url(self) -> str:
        return f"file://{self.folder}"

    def take_away(self) -> None:
        self.folder.rename(self.folder.with_name("away"))
        self.folder.write_text("no folder")

    def bring_back(self) -> None:
        self.folder.unlink()
        self.folder.with_name("away").rename(self.folder)


class TestMemory(SinkConformance):
    """The file system of fsspec in memory stands for all those that are neither local nor S3."""

    @property
    def url(self) -> str:
        return "memory://conformance/out"


@final
class MotoServer(Server):
    """An S3-speaking server. It proves that the protocol is spoken, and nothing about a real S3."""

    scheme = "s3"

    def command(self) -> Sequence[str]:
        """Itself."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def answers(self) -> bool:
        """Whether it accepts connections."""
        try:
            socket.create_connection(("127.0.0.1", self.port), 1.0).close()
        except OSError:
            return False
        return True

    @property
    def options(self) -> dict[str, Any]:
        """What a sink needs to reach it."""
        return {"endpoint_url": f"http://127.0.0.1:{self.port}", "key": "crawler-key", "secret": "crawler-secret"}


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    """A server with the bucket ``crawl``."""
    with MotoServer() as server:
        cast("Any", fsspec).filesystem("s3", **server.options, skip_instance_cache=True).mkdir("crawl")
        yield server


class TestS3(SinkConformance):
    """A bucket."""

    abilities = frozenset({SinkAbility.KILL})
    kill_points = frozenset({"_call_s3"})  # Each time that the coroutine goes on.
    most_kills = 10
    server: MotoServer

    @pytest.fixture(autouse=True)
    def _server(self, moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.server = moto
        monkeypatch.setattr(type(self), "options", moto.options)

    @property
    def url(self) -> str:
        return "s3://crawl/out"


def test_a_server_of_objects_that_is_gone() -> None:
    """Nobody listens any more: the error tells where, and not with which secret."""
    with MotoServer() as server:
        options = server.options | {"config_kwargs": {"retries": {"max_attempts": 0}}}
    sink = open_sink("s3://crawl/out", options)
    with pytest.raises(SinkUnavailableError, match="cannot write to s3://crawl/out: ") as caught:
        sink.write(PART, numbered(1), None)
    assert "crawler-secret" not in str(caught.value)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of `sink`."""
    return tmp_path / "out"


@pytest.fixture
def sink(folder: Path) -> FileSink:
    """A sink in `folder`."""
    return FileSink(f"file://{folder}")


def blocks(folder: Path) -> list[Path]:
    """All files but the marks."""
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.parent.name != ".smoothcluster")


def test_a_block_is_lines_of_json(sink: FileSink, folder: Path) -> None:
    """Every tool reads them, without smoothcluster: a header, and a line for each outcome."""
    sink.write(PART, numbered(1, 2), None)
    (path,) = blocks(folder)
    assert path.parent == folder / "j" / "3"
    command = [
        sys.executable,
        "-c",
        "import json, sys; print(*[json.loads(line).get('task_id') for line in sys.stdin])",
    ]
    out = subprocess.run(command, input=path.read_bytes(), capture_output=True, check=True).stdout
    assert out.split() == [b"None", b"task1", b"task2"]


def test_no_name_gets_two_contents(sink: FileSink, folder: Path) -> None:
    """A repeat is a new file: a request that timed out may arrive later, and then changes nothing."""
    sink.write(PART, numbered(1), None)
    before = {path: path.read_bytes() for path in blocks(folder)}
    sink.write(PART, numbered(1), None)
    assert len(blocks(folder)) == 2
    assert {path: path.read_bytes() for path in before} == before


def test_a_block_is_whole_under_its_name_and_on_the_disk(
    sink: FileSink, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the calls: all bytes, to the disk, the name, and the folder to the disk; new folders likewise."""
    calls: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def record_fsync(number: int) -> None:
        calls.append(f"fsync {Path(f'/proc/self/fd/{number}').readlink().relative_to(folder.parent)}")
        fsync(number)

    def record_rename(self: Path, target: Path) -> Path:
        assert self.stat().st_size > 0
        calls.append("rename")
        return rename(self, target)

    def two_parents(each: Path) -> list[Path]:
        return [*each.parents][:2]

    folder.parent.mkdir(exist_ok=True)
    monkeypatch.setattr("smoothcluster.sinks.local_files._own_parents", two_parents)
    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "rename", record_rename)
    tail = sink.write(PART, numbered(1), None)
    assert calls == [
        "fsync out/j",
        "fsync out",
        "fsync .",
        f"fsync out/j/3/.{tail.name}.part",
        "rename",
        "fsync out/j/3",
    ]
    calls.clear()
    tail = sink.write(PART, numbered(2), tail)
    assert calls == [f"fsync out/j/3/.{tail.name}.part", "rename", "fsync out/j/3"]
    sink.delete(PART)
    calls.clear()
    sink.write(PART, numbered(1), None)
    assert calls[0] == "fsync out/j", "the folder is new again"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk(sink: FileSink, folder: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """The writer is told, nothing half is left to fill the disk further, and the next try succeeds."""
    begin = sink.write(PART, numbered(1), None)

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", fail)
        with pytest.raises(SinkUnavailableError, match=f"cannot write to file://{folder}: OSError"):
            sink.write(PART, numbered(2), begin)
    assert len(blocks(folder)) == 1
    assert read_all(sink, PART, sink.write(PART, numbered(2), begin)) == numbered(1, 2)


@pytest.mark.parametrize("damage", ["cut", "changed", "swapped", "gone", "empty"])
def test_a_damaged_block_is_found(sink: FileSink, folder: Path, damage: str) -> None:
    """Whatever happens to a file, the chain of digests from the tail on notices."""
    begin = sink.write(PART, numbered(1), None)
    tail = sink.write(PART, numbered(2), begin)
    path = folder / "j" / "3" / begin.name
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        other = sink.write(PART, numbered(1), None)
        changed = {
            "cut": content[:-1],
            "changed": content.replace(b"task1", b"task9"),
            "swapped": (path.parent / other.name).read_bytes().replace(b'"attempts":1', b'"attempts":2'),
            "empty": b"",
        }
        path.write_bytes(changed[damage])
    with pytest.raises(GarbageError, match=begin.name):
        read_all(sink, PART, tail)


def test_a_name_from_the_store_never_leads_out_of_the_folder(sink: FileSink) -> None:
    """A tail is data from the store, and may be anybody's."""
    from dataclasses import replace

    tail = sink.write(PART, numbered(1), None)
    with pytest.raises(GarbageError, match="not the name of a block"):
        read_all(sink, PART, replace(tail, name=f"../3/{tail.name}"))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://key:secret-word@crawl/out", "must not contain a username or password"),
        ("s3://key:secret-word/out", "is no port"),
        ("s3://crawl/out?secret-word", "no query"),
        ("simplecache::s3://crawl/out", "needs a URL"),
        ("file://out", "absolute"),
        ("secret-word", "needs a URL"),
    ],
)
def test_wrong_urls(url: str, message: str) -> None:
    """The message says what to write, and shows no part: a password may be anywhere."""
    with pytest.raises(UsageError, match=message) as caught:
        open_sink(url, {})
    assert "secret-word" not in str(caught.value)


def test_wrong_schemes() -> None:
    """A file system that nobody knows, and one without its library."""
    with pytest.raises(UnknownSchemeError, match="nonsense://"):
        open_sink("nonsense://x/y", {})
    with pytest.raises(MissingDriverError, match="gcsfs"):
        open_sink("gs://crawl/out", {})


def test_one_form_of_a_url(tmp_path: Path) -> None:
    """Members that write it differently mean the same folder."""
    forms = [f"file://{tmp_path}/out", f"file://{tmp_path}/out/", f"FILE://{tmp_path}/out", f"local://{tmp_path}/out"]
    assert {open_sink(form, {}).url for form in forms} == {f"file://{tmp_path}/out"}


def test_options_come_from_the_variable(monkeypatch: pytest.MonkeyPatch, moto: MotoServer, tmp_path: Path) -> None:
    """As JSON, or as the path of a file with JSON."""
    import json

    text, file = json.dumps(moto.options), tmp_path / "options.json"
    file.write_text(text)
    for value in (text, str(file)):
        monkeypatch.setenv("SMOOTHCLUSTER_RESULTS_OPTIONS", value)
        found = open_sink("s3://crawl/variable")
        assert read_all(found, PART, found.write(PART, numbered(1), None)) == numbered(1)
