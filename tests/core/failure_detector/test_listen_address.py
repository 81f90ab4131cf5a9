"""The option *listen*: what it means, and that a bad value is told with its form."""

import pytest

from smoothcluster.errors import UsageError
from smoothcluster.failure_detector import ListenAddress, listen_address


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.0.0.7", ListenAddress("10.0.0.7")),
        ("node-1.example", ListenAddress("node-1.example")),
        ("10.0.0.7:4000", ListenAddress("10.0.0.7", range(4000, 4001))),
        ("10.0.0.7:4000-4010", ListenAddress("10.0.0.7", range(4000, 4011))),
        ("h:1-65535", ListenAddress("h", range(1, 65536))),
        ("0.0.0.0@203.0.113.7", ListenAddress("0.0.0.0", None, "203.0.113.7")),
        ("0.0.0.0:4000@gate.example", ListenAddress("0.0.0.0", range(4000, 4001), "gate.example")),
        ("[::1]", ListenAddress("::1")),
        ("[::]:4000-4001@[2001:DB8::1]", ListenAddress("::", range(4000, 4002), "2001:db8::1")),
    ],
)
def test_what_is_meant(text: str, meant: ListenAddress) -> None:
    """Each part but the address may be left out."""
    assert ListenAddress.parse(text) == meant


@pytest.mark.parametrize(
    "text",
    [
        "", ":4000", "@h", "h:", "h@", "h:0", "h:65536", "h:4010-4000", "h:4000-", "h:-4000", "h:4000-4010-4020", "h:x",
        "h:+1", "h: 1", "h:\N{ARABIC-INDIC DIGIT ONE}", "::1", "::1:4000", "[::1", "[h]", "[10.0.0.7]", "[]",
        "h:1@", "h@h:1", "h@0.0.0.0", "h@[::]", "h@h@h", "h h", "h\n", " h", "http://h", "h/x@", "h:1,2",
        4000, b"h", ("h", 1), True,
    ],
)  # fmt: skip
def test_what_is_none(text: object) -> None:
    """The error shows the value and the form."""
    for one_machine in (False, True):
        with pytest.raises(UsageError) as caught:
            listen_address(text, one_machine=one_machine)
        assert f"{text!r}" in str(caught.value)
        assert "ADDRESS[:PORT[-PORT]][@ADVERTISED]" in str(caught.value)


def test_the_default() -> None:
    """Where all are on one machine nobody else can knock; elsewhere the listener finds an address that others reach."""
    assert listen_address(None, one_machine=True) == ListenAddress("127.0.0.1")
    assert listen_address(None, one_machine=False) is None


@pytest.mark.parametrize("text", ["127.0.0.1:4000-4010", "localhost", "[::1]", "127.3.4.5@127.0.0.1"])
def test_loopback_may_be_chosen_on_one_machine(text: str) -> None:
    """A range of ports makes sense there, too."""
    found = listen_address(text, one_machine=True)
    assert found is not None
    assert found.ports == ListenAddress.parse(text).ports


@pytest.mark.parametrize("text", ["0.0.0.0", "[::]", "10.0.0.7", "127.0.0.1@10.0.0.7", "0.0.0.0@127.0.0.1"])
def test_nothing_else_may_be_chosen_on_one_machine(text: str) -> None:
    """It would let others in for nothing."""
    with pytest.raises(UsageError, match="all members of this store are on this machine"):
        listen_address(text, one_machine=True)
    assert listen_address(text, one_machine=False) is not None
