"""Where members listen: where all are on one machine nobody else can reach them, elsewhere where they are told to."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
from neighbours import LOOPBACK, call, heard, own_place

from smoothcluster import ClusterCrawler, connect
from smoothcluster.errors import UsageError
from smoothcluster.failure_detector.sockets import outgoing_address
from smoothcluster.records.group import Member

ONE_MACHINE = {"memory", "sqlite"}
"""The stores whose members are on one machine by nature."""

Join = Callable[..., Member]


@pytest.fixture
def join(store: str) -> Iterator[Join]:
    """Have a member join; return its record."""
    with ExitStack() as stack:
        backend, group = stack.enter_context(closing(connect(store))), f"test-{secrets.token_hex(6)}"

        def join(**settings: object) -> Member:
            crawler = ClusterCrawler(backend=backend, runner=2, group=group, handler=print, **settings)  # type: ignore[arg-type]  # any
            stack.callback(crawler.stop)
            records = backend.for_group(group).list(f"{group}/members")
            members = [Member.from_json(entry.value) for entry in records]
            return next(member for member in members if member.name == crawler.name)

        yield join


def greets(member: Member, host: str) -> bool:
    """Whether *member* is reached at *host*."""
    try:
        with call((host, member.port)) as caller:
            return member.incarnation.encode() in heard(caller)
    except ConnectionRefusedError:
        return False


@pytest.mark.quick
def test_others_reach_a_member_only_where_they_may_need_to(join: Join, store: str) -> None:
    """Its port is on loopback, or on the one address by which this machine reaches others."""
    member = join()
    alone = store.partition("://")[0] in ONE_MACHINE
    assert member.address == (LOOPBACK if alone else outgoing_address())
    assert greets(member, member.address)
    other = outgoing_address() if alone else LOOPBACK
    assert other == member.address or not greets(member, other)


def test_a_member_listens_where_it_is_told(join: Join, store: str) -> None:
    """Each member of a machine takes the first free port of the range."""
    address, first = own_place()
    records = [join(listen=f"{address}:{first}-{first + 1}") for _ in range(2)]
    assert [(record.address, record.port) for record in records] == [(address, first), (address, first + 1)]
    with pytest.raises(UsageError, match=f"all ports from {first} to {first + 1} are in use"):
        join(listen=f"{address}:{first}-{first + 1}")


def test_a_wider_address_is_for_several_machines(join: Join, store: str) -> None:
    """On one machine it would let others in for nothing."""
    if store.partition("://")[0] in ONE_MACHINE:
        with pytest.raises(UsageError, match="all members of this store are on this machine"):
            join(listen="0.0.0.0@203.0.113.7")
    else:
        record = join(listen="0.0.0.0@203.0.113.7")
        assert record.address == "203.0.113.7"
        assert greets(record, LOOPBACK)


def test_a_bad_value_is_told_before_anything_is_joined(join: Join) -> None:
    """With the form, and nothing is left open."""
    with pytest.raises(UsageError, match=r"ADDRESS\[:PORT\[-PORT\]\]\[@ADVERTISED\]"):
        join(listen="127.0.0.1:x")
