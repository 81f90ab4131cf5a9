"""``smoothcluster demo``: crawl a small site, kill a Runner, and prove the takeover."""

from smoothcluster.cli.demo.command import demo

__all__ = ["demo"]
