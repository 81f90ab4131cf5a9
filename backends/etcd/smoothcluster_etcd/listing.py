"""Read a directory page by page, each page at a cost that the size of the directory does not change.

For each answer etcd counts all keys of the requested range, whatever the limit of the answer: pages of one range cost
quadratic time. So after a page from a range with many more keys, the next range is narrower: the keys that begin like
the keys of the page. After the last key of a range, the next range is wider::

    range: all      answer: 0000 to 0999, and 99,000 further keys    many: narrow down to "0"
    range: 0...     answer: 1000 to 1999, and 8,000 further keys     few: go on
    ...             answer: 9000 to 9999, no further keys            the end of "0": widen to all

A key present from the first page to the last is listed. A key that comes or goes meanwhile may or may not be.
"""

from collections.abc import Callable, Iterator
from os.path import commonprefix
from typing import Any, final

from smoothcluster_etcd.layout import below, range_end
from smoothcluster_etcd.transaction import Message

_FEWEST_KEYS, _MOST_KEYS = 100, 1000
"""Fewest and most keys in a page. An etcd page with values has the more keys, the shorter the values are."""

_PAGE_BYTES = 2**20
"""Bytes of an answer to aim at."""

_MOST_PAGES_PER_RANGE = 16
"""Pages of keys in a range above which the next range is narrower: etcd counts at most these for each page."""


@final
class Listing:
    """The names in the directory at *here*. *read* returns the page of a range."""

    def __init__(self, here: bytes, read: Callable[[Message], Any], *, keys_only: bool) -> None:
        self._here, self._read, self._keys_only = here, read, keys_only
        self._limit = _MOST_KEYS if keys_only else _FEWEST_KEYS
        self._start = here + b"\0"
        self._prefix = here
        self._widening = 1

    def names(self) -> Iterator[tuple[str, bool, Any]]:
        """Yield each name, whether the name is a key directly here, and the key; skip most deeper keys."""
        while True:
            page = self._page()
            for kv in page.kvs:
                found = below(self._here, kv.key)
                if found is not None:
                    yield (*found, kv)
            if not page.more and self._prefix == self._here:
                return
            if page.more:
                self._go_on(page)
            else:
                self._widen()

    def _page(self) -> Any:
        end = range_end(self._prefix)
        page = self._read({"key": self._start, "range_end": end, "limit": self._limit, "keys_only": self._keys_only})
        if page.kvs and not self._keys_only:
            fitting = len(page.kvs) * _PAGE_BYTES // page.ByteSize()
            self._limit = min(max(fitting, _FEWEST_KEYS), _MOST_KEYS)
        return page

    def _go_on(self, page: Any) -> None:
        """Continue after *page*, within the same range, or in a narrower range if many keys follow."""
        first, last = page.kvs[0].key, page.kvs[-1].key
        if page.count > _MOST_PAGES_PER_RANGE * len(page.kvs):
            self._prefix = first[: len(commonprefix([first, last]))]  # noqa: RUF071  # bytes, not path segments
        self._widening = 1
        # A name may lead to any number of deeper keys: step over them.
        found = below(self._here, last)
        self._start = last + b"\0" if found is None else range_end(self._here + found[0].encode() + b"/")
        while range_end(self._prefix) <= self._start:
            self._prefix = self._prefix[:-1]

    def _widen(self) -> None:
        """Continue after the end of the range, in a wider range; in ever wider ranges until a page is full."""
        self._start = range_end(self._prefix)
        self._prefix = self._prefix[: max(len(self._here), len(self._prefix) - self._widening)]
        self._widening *= 2
