"""A set of digests answers as a `set` does, in a sixth of the memory, and no step of it takes longer as it grows."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from unittest.mock import patch

import pytest
from core_kit import kept_memory, steps
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smoothcluster.jobs import digest_set
from smoothcluster.jobs.chunks import DIGEST_BYTES, digest, shard_of
from smoothcluster.jobs.digest_set import BUCKET_DIGESTS, DigestSet


def digests(count: int) -> Iterator[bytes]:
    """So many, all different."""
    return (digest(str(number)) for number in range(count))


@contextmanager
def small_buckets(size: int) -> Generator[None]:
    """Buckets of *size* digests on average, so that few digests make many buckets."""
    with patch.object(digest_set, "BUCKET_DIGESTS", size):
        yield


windows = st.integers(0, 48).map(lambda start: (b"\0\1\1\0\0" * 20)[start : start + DIGEST_BYTES])
"""Digests that overlap: many of them lie across the border of two others."""


@given(st.lists(st.integers(0, 300).map(lambda number: digest(str(number))) | windows, max_size=200), st.integers(1, 9))
@example([b"\0" * 8 + b"\1" * 8, b"\2" * 16, b"\1" * 8 + b"\2" * 8], 9)
@settings(deadline=None)
def test_it_answers_as_a_set_does(added: list[bytes], size: int) -> None:
    """In every state, for digests that are in and for digests that are not."""
    known, found = set[bytes](), DigestSet()
    with small_buckets(size):
        for each in added:
            assert (each in found) == (each in known)
            assert found.add(each) == (each not in known)
            known.add(each)
            assert each in found
            assert len(found) == len(known)
    assert all(each in found for each in known)
    assert not any(digest(f"never added {number}") in found for number in range(20))


def test_a_match_across_the_border_of_two_digests_is_none() -> None:
    """The 16 bytes are there, but no digest is; and a match behind such a match counts."""
    first, second = b"\0" * 8 + b"\1" * 8, b"\2" * 8 + b"\3" * 8
    across = first[8:] + second[:8]
    found = DigestSet()
    assert (found.add(first), found.add(second)) == (True, True)
    assert across not in found
    assert found.add(across)
    assert across in found
    assert not found.add(across)


def test_many_digests() -> None:
    """Through several rounds of splits nothing is lost, and nothing is found that was not added."""
    found = DigestSet()
    assert all(found.add(each) for each in digests(20_000))
    assert not any(found.add(each) for each in digests(20_000))
    assert len(found) == 20_000
    assert not any(each in found for each in islice(digests(40_000), 20_000, None))


@pytest.mark.parametrize("wrong", [b"", b"short", b"x" * 17])
def test_bytes_of_another_length_are_refused(wrong: bytes) -> None:
    """All digests behind them would lie across the borders."""
    found = DigestSet()
    with pytest.raises(ValueError, match="a digest has 16 bytes"):
        found.add(wrong)


def test_the_digests_of_one_shard_lie_in_all_buckets() -> None:
    """Their first bytes are alike, modulo the number of shards."""
    found = DigestSet()
    for each in digests(64_000):
        if shard_of(each, 32) == 5:
            found.add(each)
    buckets = found._buckets  # pyright: ignore[reportPrivateUsage]
    assert len(buckets) >= len(found) / BUCKET_DIGESTS > 20
    assert max(map(len, buckets)) < 5 * BUCKET_DIGESTS * DIGEST_BYTES
    assert min(map(len, buckets)) > 0


def test_no_step_takes_longer_as_the_set_grows() -> None:
    """Counted, not timed. One split is the longest step, and it moves one bucket."""
    found = DigestSet()
    most = [max(steps(partial(found.add, each)) for each in part) for part in _parts()]
    assert max(most) < 10 * BUCKET_DIGESTS
    assert most[-1] < 3 * most[0]


def _parts() -> Iterator[list[bytes]]:
    all_digests = digests(12_000)
    while part := list(islice(all_digests, 3000)):
        yield part


@pytest.mark.parametrize(("count", "most"), [(0, 400), (3, 500), (100, 3600), (50_000, 24 * 50_000)])
def test_its_memory(count: int, most: int) -> None:
    """Of a large set 24 bytes a digest; a set with few digests, of which a member may have thousands, is small, too."""
    given = list(digests(count))

    def build() -> DigestSet:
        found = DigestSet()
        for each in given:
            found.add(each)
        return found

    assert 0 < kept_memory(build, digest_set.__file__) <= most
