"""Which members watch which: every Runner by two, and nobody watches a number that grows with the group."""

from smoothcluster.group.election import Order, candidates, join_order
from smoothcluster.group.view import View


def watched_by(view: View, me: str, order: Order = join_order, watchers: int = 2, ring: int = 7) -> set[str]:
    """The members whose death *me* must notice.

    Every Runner is watched by the first *watchers* candidates that run, and by the Runner that
    follows it; where there are fewer candidates, by more of these. Every other candidate watches
    the one ahead of it. The first *watchers* Runners watch those first candidates in return, and
    the last one: whom nobody else sees die. So nobody watches what grows with the group, and
    nobody dies unseen.

    Where all members are Runners, each is watched by the *ring* of those that joined next instead,
    a few of them, since several may die at once.
    """
    living, runners = view.living(), view.runners()
    queue = [m.incarnation for m in candidates(view, me, order) if m.running or m.incarnation == me]
    if me in queue:
        rank = queue.index(me)
        ahead = {queue[rank - 1]} if rank else set[str]()
        return ahead | (set(runners) if rank < watchers and not view.all_run else set())
    if me not in runners:
        return set()
    mine, back = runners.index(me), ring if view.all_run else max(1, watchers - len(queue))
    unseen = {*queue[:watchers], *queue[-1:]} if mine < watchers else set[str]()
    return unseen | ({runners[mine - step] for step in range(1, back + 1) if step < len(runners)} & set(living))
