"""Tasks that handlers add: packed into the chunks of one commit, each of them counted as an operation."""

from collections.abc import Iterator, Mapping
from typing import final

from smoothcluster.jobs.chunks import CHUNK_TASKS, Packet, is_full, shard_of
from smoothcluster.work.sent_tasks import Mark


@final
class AddedTasks:
    """The tasks that one commit adds, in chunks of at most *most_bytes* for the group's *shards*."""

    def __init__(self, shards: int, most_bytes: int) -> None:
        self.marks: dict[Mark, None] = {}
        """Every task that the commit adds, in the order of `add`."""
        self._shards, self._most_bytes = shards, most_bytes
        self._full: list[tuple[str, Packet]] = []
        self._open: dict[tuple[str, int], Packet] = {}
        """The chunk with room for more tasks, by job and shard."""

    def shard(self, mark: Mark) -> int:
        """Return the number of the task's shard."""
        return shard_of(mark[1], self._shards)

    def cost(self, texts: Mapping[Mark, str]) -> tuple[int, int]:
        """Return how many bytes, and how many chunks, the commit would have more with these tasks."""
        size = chunks = 0
        sizes: dict[tuple[str, int], tuple[int, int]] = {}
        for mark, text in texts.items():
            place = mark[0], self.shard(mark)
            tasks, filled = sizes.get(place) or self._filled(place)
            if is_full(tasks, filled, text, self._most_bytes):
                chunks, tasks, filled = chunks + 1, 0, 0
            sizes[place] = tasks + 1, filled + len(text) + 1
            size += len(text) + 1
        return size, chunks

    def add(self, texts: Mapping[Mark, str]) -> None:
        """Put tasks, given as text, into chunks."""
        for mark, text in texts.items():
            place = job, shard = mark[0], self.shard(mark)
            packet = self._open.get(place)
            if packet is None or is_full(*self._filled(place), text, self._most_bytes):
                if packet is not None:
                    self._full.append((job, packet))
                packet = self._open[place] = Packet(shard, [], 0)
            packet.texts.append(text)
            packet.size += len(text) + 1
        self.marks.update(dict.fromkeys(texts))

    def chunks(self) -> Iterator[tuple[str, Packet]]:
        """Return all chunks, each with the job."""
        yield from self._full
        for (job, _), packet in self._open.items():
            yield job, packet

    def _filled(self, place: tuple[str, int]) -> tuple[int, int]:
        """Return the tasks and the bytes in the open chunk; without an open chunk, the numbers of a full chunk."""
        packet = self._open.get(place)
        return (CHUNK_TASKS, self._most_bytes) if packet is None else (len(packet.texts), packet.size)
