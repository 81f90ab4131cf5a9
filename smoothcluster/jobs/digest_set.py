"""A set of digests in little memory: exact, at some 20 bytes a digest, where a `set` takes 80 or more.

The digests lie one behind another in *buckets*, byte strings of some 64 digests each. A lookup searches one bucket for
the 16 bytes. A match across the border of two digests is no digest of the set: only matches at multiples of 16 count.

The number of buckets grows with the set (linear hashing): after each 64 new digests, one bucket is split in two. So a
small set has one bucket, and no step moves more than one bucket, however large the set is::

    buckets 0 .. split-1              split already: chosen by one more bit of the hash
    buckets split .. mask             not split yet in this round
    buckets mask+1 .. mask+split      the other halves of the buckets split in this round
"""

from typing import final

from smoothcluster.jobs.chunks import DIGEST_BYTES

BUCKET_DIGESTS = 64
"""Digests for each bucket, on average. Larger buckets save little memory, and a lookup searches half of a bucket."""


@final
class DigestSet:
    """A set of digests of `DIGEST_BYTES` bytes each."""

    __slots__ = ("_buckets", "_count", "_mask", "_split")

    def __init__(self) -> None:
        self._buckets = [bytearray()]
        self._count = 0
        self._mask = 0
        """The bits of a hash that choose a bucket not split in this round; always one less than a power of two."""
        self._split = 0
        """The next bucket to split."""

    def __len__(self) -> int:
        return self._count

    def __contains__(self, digest: bytes) -> bool:
        return _place(self._bucket(digest), digest) >= 0

    def add(self, digest: bytes) -> bool:
        """Add *digest*. Return whether the digest is new. Raise ValueError for bytes of another length."""
        if len(digest) != DIGEST_BYTES:  # All digests behind it would lie across the borders.
            raise ValueError(f"a digest has {DIGEST_BYTES} bytes, not {len(digest)}")
        bucket = self._bucket(digest)
        if _place(bucket, digest) >= 0:
            return False
        bucket += digest
        self._count += 1
        if self._count > BUCKET_DIGESTS * len(self._buckets):
            self._split_next()
        return True

    def discard(self, digest: bytes) -> None:
        """Remove *digest* if the set has it."""
        bucket = self._bucket(digest)
        at = _place(bucket, digest)
        if at >= 0:
            del bucket[at : at + DIGEST_BYTES]
            self._count -= 1

    def _bucket(self, digest: bytes) -> bytearray:
        # Not by bytes of the digest: the first bytes choose the shard, so they are alike in all digests of a shard.
        # Python's hash depends on a secret of the process, so nobody can choose ids that fill one bucket.
        bits = hash(digest)
        number = bits & self._mask
        return self._buckets[number if number >= self._split else bits & (2 * self._mask + 1)]

    def _split_next(self) -> None:
        """Split the next bucket in two, by one more bit of each hash."""
        bit = self._mask + 1
        old = bytes(self._buckets[self._split])
        halves: tuple[list[bytes], list[bytes]] = ([], [])
        for start in range(0, len(old), DIGEST_BYTES):
            digest = old[start : start + DIGEST_BYTES]
            halves[hash(digest) & bit != 0].append(digest)
        self._buckets[self._split] = bytearray(b"".join(halves[0]))
        self._buckets.append(bytearray(b"".join(halves[1])))
        self._split += 1
        if self._split == bit:  # All buckets of this round are split: the next round begins.
            self._mask, self._split = 2 * self._mask + 1, 0


def _place(bucket: bytearray, digest: bytes) -> int:
    """Return the position of *digest* in the bucket; -1 if the bucket does not have the digest."""
    at = bucket.find(digest)
    while at % DIGEST_BYTES and at >= 0:  # Across the border of two digests.
        at = bucket.find(digest, at + 1)
    return at
