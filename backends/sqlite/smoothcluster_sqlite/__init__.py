"""smoothcluster on one sqlite file, for the processes of one machine: needs nothing but Python."""

from smoothcluster_sqlite.adapter import SqliteBackend

__all__ = ["SqliteBackend"]
