"""No backend is forgotten."""

from cluster.stores import KINDS, installed


def test_whole_groups_are_tried_on_every_backend() -> None:
    """Each registered backend that several processes can share has a kind of store here."""
    assert installed() <= {kind.scheme for kind in KINDS}
