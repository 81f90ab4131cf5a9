"""Failure monitoring: two members watch each Runner, and the load of a member does not grow with the group."""

from smoothcluster.group.election import Order, candidates, join_order
from smoothcluster.group.view import View


def watched_by(view: View, me: str, order: Order = join_order, watchers: int = 2, ring: int = 7) -> set[str]:
    """The members whose death *me* must notice.

    The first *watchers* running candidates watch every Runner, and so does the next Runner in order; where
    there are fewer candidates, more of the next Runners do. Each candidate but the first watches the candidate
    ahead. In return, the first *watchers* Runners watch the first candidates, and also the last candidate,
    because no other member would see the last candidate die. So no member's load grows with the
    group, and no death goes unseen.

    Where all members are Runners, the *ring* Runners that joined next watch each Runner instead. There are
    several of them, because several members may die at once.
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
