"""smoothcluster on a folder shared by processes."""

from smoothcluster_files.adapter import FilesBackend

__all__ = ["FilesBackend"]
