"""``smoothcluster demo``: see a Runner die and nothing be lost."""

from smoothcluster.cli.demo.command import demo

__all__ = ["demo"]
