"""Results sinks: places outside the coordination store where the outcomes of a job can lie for good.

A coordination store keeps all data in memory or in a small quota, so the store is the wrong place for the outcomes of a
large crawl. A sink is a folder, a bucket or a database, named by a URL::

    file:///data/out      s3://bucket/crawl        any file system of fsspec: blocks of JSON lines    (FileSink)
    sqlite:///items.db    postgresql+psycopg://h/db  a database of SQLAlchemy: a table of outcomes    (SqlSink)

`opening.open_sink` finds the class for a URL. Packages add sinks of their own by the entry-point group
``smoothcluster.sinks``: the name of an entry point is the scheme of the URL.

The coordination store remains the only truth. A sink holds outcomes by *part* (a job, a shard). The store names the
last write of each part that counts: the `Tail`::

    owner of the shard:   sink.write(part, batch, after=tail)  -->  new tail
                          fenced commit in the store: tail = new tail
    a reader:             tail = read from the store;  sink.read(part, tail)  -->  the outcomes

Invariants:

- A write is durable before the sink returns the tail.
- A reader with a tail sees exactly the outcomes up to the tail. The reader sees nothing of a write without a commit: of
  a killed writer, of a replaced owner (zombie), of a request that arrives late.
- A write may be repeated, by the same writer or by a successor, with the same or with more outcomes.
- The URL of a sink holds no credentials. Credentials are options, and no message shows the value of an option.

On failure: `smoothcluster.errors.SinkUnavailableError` means that the write may or may not have reached the sink, so
the writer repeats the write. `smoothcluster.errors.GarbageError` means that the sink lost or damaged data of a tail.

Begin reading with `protocol.ResultSink`, then `blocks` and `files`, then `sql`. `smoothcluster.testing.SinkConformance`
has each rule as a test.
"""

from smoothcluster.sinks.opening import open_sink
from smoothcluster.sinks.protocol import NumberedOutcome, Part, ResultSink, Tail

__all__ = ["NumberedOutcome", "Part", "ResultSink", "Tail", "open_sink"]
