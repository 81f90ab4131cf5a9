"""The rules that adapters of servers share: no secret in an error, no TLS option without TLS, no silent plain TCP."""

import logging
import traceback
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from smoothcluster.backend import CoordinationBackend
from smoothcluster.errors import MissingDriverError, UsageError
from smoothcluster.registry import connect, masked, schemes

SECRET = "open-sesame"

SERVERS = {"etcd": "etcd://{}", "redis": "redis://{}", "zookeeper": "zookeeper://{}"}
"""A URL of each adapter that talks to servers, without the hosts."""

SEPARATORS = [
    "",
    "?",
    "#",
    "/",
    "\\",
    "[",
    "]",
    ":",
    "%",
    "&",
    "=",
    " ",
    ",",
    "@",
    "//",
    "://",
    "?namespace=",
    "\n",
    "℀",
]
"""Characters at which a parser of URLs may cut a password in two."""


def opened(url: str, **options: Any) -> CoordinationBackend:
    """The backend at *url*, which need not exist; the test is skipped without the driver."""
    try:
        return connect(url, **options)
    except MissingDriverError as error:
        pytest.skip(str(error))


def constructor(scheme: str) -> Callable[..., Any]:
    """The class behind *scheme*."""
    return type(opened(SERVERS[scheme].format("h")))


def all_of(error: BaseException) -> str:
    """All that a log, or a trace of the stack, would show of *error*."""
    return "".join(traceback.format_exception(error)) + repr(error)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("scheme", [*sorted(set(schemes()) - {"sqlite", "memory"}), "unknown", ""])
def test_no_part_of_a_password_is_in_an_error(scheme: str, separator: str) -> None:
    """Wherever a parser would cut it, and whether the @ is written as it is or in its other form."""
    for at in ("@", "%40"):
        for end in ("h", "h:1/0", "h?namespace=x"):
            url = f"{scheme}{'://' if scheme else ''}user:{SECRET}{separator}{SECRET}{at}{end}"
            with pytest.raises(UsageError) as caught:
                opened(url)
            assert SECRET not in str(caught.value)
            assert SECRET not in "".join(map(str, caught.value.args))
            context = caught.value.__context__
            assert context is None or SECRET not in all_of(context)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("scheme", ["sqlite", "memory"])
def test_stores_without_servers_show_no_password_either(scheme: str, separator: str) -> None:
    """They have none, but a URL may have been meant for another store."""
    with pytest.raises(UsageError) as caught:
        connect(f"{scheme}://user:{SECRET}{separator}{SECRET}@h")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("scheme", SERVERS)
def test_hosts_show_no_password(scheme: str, separator: str) -> None:
    """The constructors are called without `connect`, too."""
    with pytest.raises(UsageError) as caught:
        constructor(scheme)(f"user:{SECRET}{separator}{SECRET}@h:1")
    assert SECRET not in all_of(caught.value).replace(f"{SECRET}{separator}{SECRET}@h", "")


@pytest.mark.parametrize("end", [f"h#{SECRET}", f"h?{SECRET}", f"user:{SECRET}", f"h/?{SECRET}=1"])
@pytest.mark.parametrize("scheme", SERVERS)
def test_what_may_be_a_password_is_not_repeated(scheme: str, end: str) -> None:
    """The host may have been forgotten, or stand in another place."""
    with pytest.raises(UsageError) as caught:
        opened(SERVERS[scheme].format(end))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("end", ["", "/0", "?namespace=x", ",h2:1", "#x", "/sl/ash", ":1"])
@pytest.mark.parametrize("scheme", [*SERVERS, "rediss", "redis+sentinel"])
def test_a_password_without_its_host_is_told_from_a_port(scheme: str, end: str) -> None:
    """Whoever forgets the @ and the host reads so, and where the password belongs."""
    for form in ("user:{}", "h1,user:{}", ":{}", "h1:1,user:{}"):
        with pytest.raises(UsageError, match=r"the @ and the host are missing.*SMOOTHCLUSTER_OPTIONS") as caught:
            opened(f"{scheme}://{form.format(SECRET)}{end}")
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize("hosts", [f"user:{SECRET}", f"h1:1,user:{SECRET}"])
@pytest.mark.parametrize("scheme", SERVERS)
def test_a_password_without_its_host_in_hosts(scheme: str, hosts: str) -> None:
    """The constructors tell the same."""
    with pytest.raises(UsageError, match="the @ and the host are missing") as caught:
        constructor(scheme)(hosts)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("text", ["user:{}", "user:{}/0", "redis:user:{}", "user:{},h:1", "redis:/user:{}", ":{}"])
def test_a_url_without_a_scheme_shows_no_password(text: str) -> None:
    """The text after a colon may be one, unless it is a port."""
    with pytest.raises(UsageError, match="must begin with a scheme") as caught:
        connect(text.format(SECRET))
    assert SECRET not in str(caught.value)
    with pytest.raises(UsageError, match=r"'127\.0\.0\.1:2181,h2:2181/root' is not a backend's URL"):
        connect("127.0.0.1:2181,h2:2181/root")


@pytest.mark.parametrize(
    "url", [f"h#{SECRET}", f"user:{SECRET}%40h", f"x://user:{SECRET}%40h?a#b", f"x://h#{SECRET}?b"]
)
def test_masked_hides_it(url: str) -> None:
    """A fragment is as little of the address as a query, and an @ may be written as %40."""
    assert SECRET not in masked(url)


@pytest.mark.parametrize("namespace", ["a@b", "a+b", "a=b", "a:b.c-d_e"])
@pytest.mark.parametrize("scheme", SERVERS)
def test_a_namespace_of_any_characters_is_in_the_url(scheme: str, namespace: str) -> None:
    """And comes back from it, whatever a parser makes of an @ or a plus."""
    with (
        closing(opened(SERVERS[scheme].format("h"), namespace=namespace)) as backend,
        closing(connect(backend.url)) as again,
    ):
        assert again.url == backend.url
        assert "@" not in backend.url


@pytest.mark.parametrize(
    "hosts",
    ["h:0", "h:65536", "h:x", "::1", "[::1", "[h]:1", "h:1,", "h:\N{FULLWIDTH DIGIT ONE}", "h h", "h:1:2", "h:-1"],
)
@pytest.mark.parametrize("scheme", SERVERS)
def test_hosts_that_are_none(scheme: str, hosts: str) -> None:
    """The error shows how they are written."""
    with pytest.raises(UsageError, match=r"host:port"):
        opened(SERVERS[scheme].format(hosts))


@pytest.mark.parametrize(("hosts", "shown"), [("[::1]", "[::1]:"), ("H1:1, h2:2", "h1:1,h2:2"), ("h", "h:")])
@pytest.mark.parametrize("scheme", SERVERS)
def test_hosts_that_are_some(scheme: str, hosts: str, shown: str) -> None:
    """With or without ports, in brackets where a colon is in the address."""
    with closing(opened(SERVERS[scheme].format(hosts))) as backend:
        assert backend.url.startswith(SERVERS[scheme].format(shown))


# TLS


@pytest.mark.parametrize(
    "options",
    [
        {"keyfile": "client.key"},
        {"keyfile_password": "x"},
        {"verify_certs": False},
        {"verify_certs": True},
        {"check_hostname": False},
        {"check_hostname": True},
        {"ca": ""},
        {"certfile": ""},
        {"certfile": "", "keyfile": ""},
    ],
)
@pytest.mark.parametrize("scheme", SERVERS)
def test_an_option_of_tls_is_never_passed_over(scheme: str, options: dict[str, object]) -> None:
    """Whoever gives one takes the connection for encrypted."""
    with pytest.raises(UsageError, match=r"TLS|the options of the backend are"):
        opened(SERVERS[scheme].format("h"), **options)


@pytest.mark.parametrize("options", [{"keyfile": "client.key"}, {"keyfile_password": "x"}])
@pytest.mark.parametrize("scheme", ["etcd", "zookeeper"])
def test_a_key_without_a_certificate_is_refused_with_tls_too(scheme: str, options: dict[str, object]) -> None:
    """It would not be used."""
    with pytest.raises(UsageError, match=r"certfile|the options of the backend are"):
        opened(SERVERS[scheme].format("h"), use_ssl=True, **options)


# Passwords over plain TCP


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was warned of."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


CREDENTIALS = {"username": "me", "password": SECRET}


@pytest.mark.parametrize(
    "hosts", ["203.0.113.7", "127.0.0.1,store.example:1", "[2001:db8::1]:1", "10.0.0.1", "[::ffff:10.0.0.1]:1"]
)
@pytest.mark.parametrize("scheme", SERVERS)
def test_a_password_over_plain_tcp_is_warned_of_once(scheme: str, hosts: str, caplog: pytest.LogCaptureFixture) -> None:
    """Everybody on the way could read it."""
    with closing(opened(SERVERS[scheme].format(hosts), timeout=0.2, **CREDENTIALS)) as backend:
        backend.for_group("a")
        backend.for_group("b")
        (said,) = warnings(caplog)
    assert "password" in said
    assert "TLS" in said
    assert SECRET not in said


@pytest.mark.parametrize(
    ("hosts", "options"),
    [
        ("127.0.0.1", CREDENTIALS),
        ("127.8.9.10:1,[::1]:1,localhost", CREDENTIALS),
        ("[::ffff:127.0.0.1]:1", CREDENTIALS),
        ("203.0.113.7", {}),
    ],
)
@pytest.mark.parametrize("scheme", SERVERS)
def test_nothing_is_warned_of_without_need(
    scheme: str, hosts: str, options: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    """Loopback leaves no machine, and without a password there is nothing to read."""
    opened(SERVERS[scheme].format(hosts), timeout=0.2, **options).close()
    assert warnings(caplog) == []


@pytest.mark.parametrize("url", ["rediss://203.0.113.7", "etcd://203.0.113.7", "zookeeper://203.0.113.7"])
def test_a_password_over_tls_is_not_warned_of(url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nobody on the way can read it."""
    options = {} if url.startswith("rediss") else {"use_ssl": True}
    opened(url, timeout=0.2, **CREDENTIALS, **options).close()
    assert warnings(caplog) == []


def test_a_password_for_sentinels_counts_too(caplog: pytest.LogCaptureFixture) -> None:
    """Either of the two may be read."""
    opened("redis+sentinel://203.0.113.7/service/0", sentinel_password=SECRET).close()
    assert len(warnings(caplog)) == 1


def test_a_password_for_a_server_named_by_another_counts_too(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sentinels and nodes of a cluster may name a server that is far away; the client warns before it connects."""
    backend = opened("redis://127.0.0.1:1", timeout=0.2, **CREDENTIALS)

    def refuse(*args: object, **options: object) -> None:
        raise ConnectionRefusedError(len(warnings(caplog)))

    monkeypatch.setattr("smoothcluster_redis.servers.StoreConnection", refuse)
    for host, warned in (("127.0.0.1", 0), ("203.0.113.7", 1), ("203.0.113.8", 1)):
        with pytest.raises(ConnectionRefusedError, match=str(warned)):
            vars(backend)["servers"]._open(host, 1, 0.2)


@pytest.mark.parametrize("url", ["{}://me:x@h", "{}://me:p?x@h", "{}://me:p#x%40h", "{}://me:p/x@h?namespace=n"])
@pytest.mark.parametrize("scheme", SERVERS)
def test_credentials_are_told_where_they_belong(scheme: str, url: str) -> None:
    """The error has the options that take them."""
    with pytest.raises(
        UsageError,
        match=r"programs pass username= and password= .* SMOOTHCLUSTER_OPTIONS",
    ):
        opened(url.format(scheme))
