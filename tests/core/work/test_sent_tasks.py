"""What this process remembers as sent: exact, bounded, and no slower for having forgotten."""

from functools import partial
from itertools import islice

from core_kit import steps
from hypothesis import given
from hypothesis import strategies as st

from smoothcluster.jobs.chunks import digest
from smoothcluster.work import SentTasks
from smoothcluster.work.sent_tasks import Mark


def marks(count: int, job: str = "j") -> list[Mark]:
    """So many tasks of one job."""
    return [(job, digest(str(number))) for number in range(count)]


@given(st.lists(st.tuples(st.sampled_from("jk"), st.integers(0, 30).map(lambda number: digest(str(number))))))
def test_it_remembers_the_latest_and_nothing_else(added: list[Mark]) -> None:
    """The last ten that were added, whatever is forgotten; and never one that was not added."""
    sent = SentTasks(least=10)
    for number, mark in enumerate(added, start=1):
        sent.add([mark])
        latest = list(islice(dict.fromkeys(reversed(added[:number])), 10))
        assert all(each in sent for each in latest)
    assert not any((job, digest(str(number))) in sent for job in "jk" for number in range(31, 40))
    assert not any(("other", mark[1]) in sent for mark in added)


def test_the_oldest_are_forgotten() -> None:
    """At most twice the number are remembered."""
    sent = SentTasks(least=100)
    all_marks = marks(1000)
    sent.add(all_marks)
    remembered = [mark for mark in all_marks if mark in sent]
    assert remembered == all_marks[-len(remembered) :]
    assert 100 <= len(remembered) <= 200


def test_what_is_added_again_counts_once() -> None:
    """So repeats do not push out others."""
    sent = SentTasks(least=10)
    for _ in range(9):
        sent.add(marks(10))
    assert all(mark in sent for mark in marks(10))
    sent.add(marks(10, "k"))
    assert all(mark in sent for mark in marks(10) + marks(10, "k"))


def test_all_is_forgotten_at_once() -> None:
    """After a rollback of the store."""
    sent = SentTasks(least=10)
    sent.add(marks(15))
    sent.clear()
    assert not any(mark in sent for mark in marks(15))
    sent.add(marks(10))
    assert all(mark in sent for mark in marks(10))


def test_no_step_takes_longer_once_much_is_forgotten() -> None:
    """Counted, not timed: neither at the moment of forgetting, nor later."""
    sent = SentTasks(least=1000)
    all_marks = marks(10_000)
    taken = [steps(partial(sent.__contains__, mark)) + steps(partial(sent.add, [mark])) for mark in all_marks]
    assert max(taken[1000:]) <= 2 * max(taken[:1000])
    assert sum(taken[-1000:]) <= 2 * sum(taken[:1000])
