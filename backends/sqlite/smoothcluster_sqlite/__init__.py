"""smoothcluster on a single sqlite file, for the processes of a machine, with no dependency beyond Python."""

from smoothcluster_sqlite.adapter import SqliteBackend

__all__ = ["SqliteBackend"]
