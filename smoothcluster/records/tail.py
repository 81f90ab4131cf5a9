"""The record of a part's tail: the sink with the outcomes of a job in a shard, and the last write there that counts.

Only the shard's owner writes the record, in commits that set the shard's record, too (fencing).
"""

from dataclasses import asdict, dataclass

from smoothcluster.records.codec import GarbageError, dump, expect, expect_object, load
from smoothcluster.sinks import Part, Tail


@dataclass(frozen=True, slots=True)
class TailRecord:
    """The tail of a part, and the place of the part."""

    sink: str
    """The URL of the sink. A part stays in the sink in which it began."""
    part: Part
    tail: Tail

    def to_json(self) -> bytes:
        return dump({"sink": self.sink, "job": self.part.job, "shard": self.part.shard, "tail": asdict(self.tail)})

    @classmethod
    def from_json(cls, value: bytes) -> "TailRecord":
        data = load(value)
        try:
            part = Part(expect(str, data["job"]), expect(int, data["shard"]))
            return cls(expect(str, data["sink"]), part, Tail.from_object(expect_object(data["tail"])))
        except (KeyError, TypeError) as error:
            raise GarbageError(f"the record is not a tail: {error!r:.80}") from None
