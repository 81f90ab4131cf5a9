"""Groups of options: values that make no sense are refused when the group is made, by the option's name."""

from collections.abc import Callable
from math import inf, nan

import pytest

from smoothcluster.errors import UsageError
from smoothcluster.options import Isolation, Retries


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Retries(attempts=0), "retries: attempts must be a whole number of at least 1, not 0"),
        (lambda: Retries(attempts=True), "retries: attempts must be a whole number of at least 1, not True"),
        (lambda: Retries(attempts=2.0), "retries: attempts must be a whole number of at least 1, not 2.0"),  # type: ignore[arg-type]
        (lambda: Retries(delay=-1), "retries: delay must be 0 seconds or more, not -1"),
        (lambda: Retries(delay=nan), "retries: delay must be 0 seconds or more, not nan"),
        (lambda: Retries(most_delay=inf), "retries: most_delay must be 0 seconds or more, not inf"),
        (lambda: Retries(delay="1"), "retries: delay must be 0 seconds or more, not '1'"),  # type: ignore[arg-type]
        (lambda: Retries(delay=90), r"most_delay \(60 seconds\) must be at least delay \(90 seconds\)"),
        (lambda: Isolation(timeout=0), "isolation: timeout must be more than 0, not 0"),
        (lambda: Isolation(timeout=nan), "isolation: timeout must be more than 0, not nan"),
        (lambda: Isolation(memory=-1), "isolation: memory must be more than 0, not -1"),
        (lambda: Isolation(memory=512), "isolation: memory is in bytes: 512 are not enough"),
        (lambda: Isolation(memory="1G"), "isolation: memory must be more than 0, not '1G'"),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_option_is_named(make: Callable[[], object], words: str) -> None:
    """The error says which option and which value."""
    with pytest.raises(UsageError, match=words):
        make()


def test_pauses_double_up_to_the_longest() -> None:
    """Also after more failures than a float can double."""
    retries = Retries(attempts=10**6, delay=1.0, most_delay=10.0)
    assert [retries.pause(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_the_last_attempt_is_the_last() -> None:
    """One attempt by default."""
    assert [Retries(attempts=3).allow_another(failures) for failures in (1, 2, 3)] == [True, True, False]
    assert not Retries().allow_another(1)
