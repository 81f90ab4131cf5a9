"""Groups that meet in a folder."""

from smoothcluster_files.adapter import FilesBackend

__all__ = ["FilesBackend"]
