"""Members that start together all join, whatever their number."""

import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from smoothcluster import Cluster, ClusterCrawler, connect

SIZE = 24


@pytest.mark.quick
def test_members_that_start_together_have_the_first_indices(store: str) -> None:
    """None fails, none waits for another, and no index is left out."""
    group = f"test-{secrets.token_hex(6)}"
    with ExitStack() as stack:
        backends = [connect(store) for _ in range(SIZE)]
        for backend in backends:
            stack.callback(backend.close)

        def join(number: int) -> ClusterCrawler:
            crawler = ClusterCrawler(
                backend=backends[number], group=group, handler=print, runner=3, backup=SIZE - 3,
                name="m_<index>", lease_ttl=30.0,
            )  # fmt: skip
            stack.callback(crawler.stop)
            return crawler

        with ThreadPoolExecutor(SIZE) as pool:
            names = {crawler.name for crawler in pool.map(join, range(SIZE))}
        assert names == {f"m_{index}" for index in range(SIZE)}
        members = Cluster(backends[0], group=group).status()["members"]
        assert len(members) == SIZE
