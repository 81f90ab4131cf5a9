"""The work on one shard: what waits, what runs, what is to be recorded, in one commit at a time.

Every commit compares and sets the shard's record, so whoever has been replaced records nothing.
It carries all that happened since the last one: outcomes, tasks added by handlers, finished
chunks to delete, new chunks admitted, and the marks of tasks that are about to start. A task is
marked in the store before it starts, never in the process that may die of it.

Once built, a commit is settled before the next one is built: if its outcome is unknown, the very
same bytes are sent again with the version first expected. A late original and a fatter retry
would else lose what was added in between.
"""

import heapq
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from json.encoder import encode_basestring_ascii as quote
from typing import cast

from smoothcluster.backend import Change, Create, Delete, Guarantees, Update
from smoothcluster.backlog import Backlog, Place
from smoothcluster.chunks import CHUNK_BYTES, digest, job_of, pack
from smoothcluster.draft import Draft, Mark, Pending
from smoothcluster.model import State, Stopping, TaskContext
from smoothcluster.pool import Apart, NoChildren, Run, RunState
from smoothcluster.quarantine import Condemned
from smoothcluster.records import Keys, Shard, bits
from smoothcluster.suspicion import ALONE, DISTURBED, KILLED, RAISED, Stage, read, stage, ways, write
from smoothcluster.view import Read, Report

CONFIRM = 1.0
"""Seconds that a member must outlive a child before that death counts: who kills both proves nothing."""

SPILL = 500
"""Tasks added at once by a handler that adds too many for one commit."""

RESERVE = 16 * 1024
"""Bytes of a commit kept free for the shard's own record to grow into."""


def _forget(kind: str, **details: object) -> None:
    """Note nothing."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What all shards of one incarnation have in common."""

    keys: Keys
    shards: int
    member: str
    incarnation: str
    limits: Guarantees
    max_attempts: int
    retry_delay: float
    stopping: Stopping
    new_id: Callable[[], str]
    report: Report
    sent: "Sent"
    apart: Apart = NoChildren()  # noqa: RUF009  # it has no state
    note: Callable[..., object] = _forget
    """Note an event."""
    wall: Callable[[], float] = lambda: 0.0
    """The time, for people."""


class Sent:
    """Digests of tasks this process has already added, so that a link met often is sent once.

    Only what was acknowledged is remembered: a repeat left out on the strength of a commit that
    never happened would be a task lost.
    """

    LIMIT = 100_000

    def __init__(self) -> None:
        self._marks: dict[Mark, None] = {}

    def __contains__(self, mark: Mark) -> bool:
        return mark in self._marks

    def clear(self) -> None:
        """Nothing is certain any more: the store may have lost what it had acknowledged."""
        self._marks.clear()

    def add(self, marks: list[Mark]) -> None:
        self._marks.update(dict.fromkeys(marks))
        while len(self._marks) > self.LIMIT:
            del self._marks[next(iter(self._marks))]


class ShardWork:
    """One owned shard, as this process works on it."""

    def __init__(self, number: int, read: Read[Shard], terms: Terms) -> None:
        self.number = number
        self.record = read.record
        self.version = read.version
        self.lost = False
        self.moving = False
        """To be given away: start nothing more."""
        suspicious = Stage.ACCUSED if terms.apart.every else Stage.SUSPECT
        self.backlog = Backlog(number, self.record, terms.keys, terms.report, suspicious)
        self.finished: deque[Run] = deque()
        self.oldest: float | None = None
        """When the first of `finished` came."""
        self.outstanding = 0
        """Runs that the pool has."""
        self.in_children = 0
        """Those of them that are suspects' in children."""
        self.told = False
        """Whether it was noted that there are suspects."""
        self.pending: Pending | None = None
        self.marked = [(name, index) for name, chunk in self.record.open.items() for index in bits(chunk.run)]
        """Tasks that the claim itself has marked as running: to be started once they are read."""
        self._kept = read.record.id
        """The id of the record that the store acknowledged last."""
        self._handed_back: list[Place] = []
        self._died: deque[tuple[float, Run]] = deque()
        """Runs whose child is gone, and when that counts."""
        self._delayed: list[tuple[float, Place]] = []
        self._forgotten: dict[str, list[str]] = {}
        self._terms = terms

    # What happened

    def finish(self, run: Run, now: float) -> None:
        """Take a run back from the pool: finished, or not started after all."""
        self.outstanding -= 1
        self.in_children -= _suspected(run, self._terms)
        if run.state is RunState.DIED:
            self._died.append((now + CONFIRM, run))
            return
        if run.state in (RunState.NOT_STARTED, RunState.INTERRUPTED):
            self._handed_back.append(place_of(run))
            return
        self.finished.append(run)
        if self.oldest is None:
            self.oldest = now

    def resume(self) -> list[Run]:
        """What the claim has marked, of the chunks that could be read."""
        runs = [self._run(place) for place in self.marked if place[0] in self.backlog.tasks]
        self.marked.clear()
        self.outstanding += len(runs)
        return runs

    def unmark(self) -> None:
        """Leave to be started later, or by others, what the claim has marked and was not begun."""
        for name, index in self.marked:
            self.record.open[name].run &= ~(1 << index)
        self.marked.clear()

    def forget(self, job: str, seen: list[str]) -> None:
        """Drop what is kept for a job that has finished: its counts, and the keys of its ids."""
        self._forgotten[job] = seen

    # What to do

    def free(self) -> bool:
        """Whether anything may be started."""
        return not self.moving and self.pending is None

    def startable(self, now: float) -> bool:
        """Whether there may be tasks to start; the store may have to be asked."""
        if not self.free():
            return False
        return self.backlog.promising() or bool(self._delayed and self._delayed[0][0] <= now)

    def unsaid(self) -> bool:
        """Whether there is something the store does not know yet."""
        return bool(self.pending or self.finished or self._handed_back or self._forgotten or self.backlog.guilty)

    def quiet(self) -> bool:
        """Whether nothing runs, nothing waits to be recorded and nothing is unsettled."""
        return not (self.unsaid() or self.outstanding or self.marked)

    def drained(self) -> bool:
        """Whether it has no task left, as far as is known."""
        return self.quiet() and not self.record.open and not self.backlog.promising()

    def next_retry(self) -> float | None:
        """When a task that failed is to be tried again."""
        return self._delayed[0][0] if self._delayed else None

    def next_verdict(self) -> float | None:
        """When the death of a child will count."""
        return self._died[0][0] if self._died else None

    def prepare(self, want: int, now: float, apart: int = 0, *, alone: bool = False) -> Pending | None:
        """Build the next commit, starting up to *want* tasks; None if there is nothing to say.

        Start up to *apart* suspects in children; or, *alone*, one in this process.
        """
        assert self.pending is None, "settle it first"
        draft = Draft(self._terms.limits, len(self.record.to_json()) + RESERVE)
        spoke = self._judge(now) or self.unsaid()
        for place in self._handed_back:
            self._take_back(place)
        self._handed_back.clear()
        self._condemn(draft)
        self._record_outcomes(draft, now)
        if not self.moving:
            self._start_suspects(apart, draft, alone=alone)
            self._start(want, draft, now)
        self._tidy(draft)
        if not (spoke or draft.changes or draft.starts):
            return None
        self._write_results(draft)
        self.record.seq += 1
        self.record.id = self._terms.new_id()
        fence = Update(self._terms.keys.shard(self.number), self.record.to_json(), self.version)
        self.pending = Pending(self.record.id, [fence, *draft.changes], draft.sent, draft.starts, draft.condemned)
        return self.pending

    def applied(self, version: str) -> list[Run]:
        """The pending commit is in the store: forget it, and return what may run now."""
        assert self.pending is not None
        pending, self.pending = self.pending, None
        self.version, self._kept = version, pending.id
        self._terms.sent.add(pending.sent)
        self.outstanding += len(pending.starts)
        self.in_children += sum(_suspected(run, self._terms) for run in pending.starts)
        for each in pending.condemned:
            each.tell(self._terms.note)
        self.oldest = self.oldest if self.finished else None
        return pending.starts

    def carry_on(self, read: Read[Shard]) -> bool:
        """The store has given our shard another version: go on with that if the record is our last; whether it is.

        Then every commit of ours is there. What others wrote may be gone all the same, so what was
        read of it and led to no commit yet is read again.
        """
        if self.pending is not None or read.record.id != self._kept:
            return False
        self.version = read.version
        self._forgotten.clear()
        self.backlog.relist()
        return True

    def mend(self, key: str) -> None:
        """The pending commit was refused for *key* though the shard is ours: step over the garbage.

        Its own names are never used twice, so a key that is in the way, or a chunk that is not
        there any more, is not this group's doing.
        """
        assert self.pending is not None
        self._terms.report(key, "in the way of, or missing from, a commit of its shard's owner")
        mended: list[Change] = []
        for change in self.pending.changes:
            if change.key != key:
                mended.append(change)
            elif isinstance(change, Create):
                mended.append(Update(key, change.value))
        self.pending = replace(self.pending, changes=mended)

    # How a commit is built

    def _record_outcomes(self, draft: Draft, now: float) -> None:
        """Record finished runs, and the tasks they add, while they fit."""
        added: dict[Mark, str] = {}
        while self.finished:
            run = self.finished[0]
            fresh = self._fresh(run, slice(None), added) if run.added else {}
            size = sum(map(len, fresh.values())) + len(fresh)
            if size > draft.limits.largest_commit // 4:
                if not self._spill(run, draft):
                    break
                fresh, size = {}, 0
            job, chunk = run.context.job, self.record.open[place_of(run)[0]]
            value = len(run.encoded) + 6 * (len(run.error or "") + len(run.task.id)) + 64
            # Each added task may need a chunk of its own; a new result, or a finished chunk to delete, is one more.
            operations = min(len(fresh), self._terms.shards) + (job not in draft.results)
            operations += chunk.closed.bit_count() + 1 >= chunk.size
            so_far = draft.sizes.get(job, 256)
            if not draft.room(value + size, operations) or so_far + value > draft.limits.largest_value:
                break
            draft.book(value + size, operations)
            draft.sizes[job] = so_far + value
            added.update(fresh)
            self._close(self.finished.popleft(), draft, now)
        if added:
            self._place(added, draft)

    def _fresh(self, run: Run, part: slice, others: Container[Mark]) -> dict[Mark, str]:
        """Those of the tasks that *run* adds that are not known to be there, as text."""
        fresh: dict[Mark, str] = {}
        for task, text in zip(run.added[part], run.added_encoded[part], strict=True):
            mark = (run.context.job, digest(task.id))
            if mark not in self._terms.sent and mark not in others and mark not in fresh:
                fresh[mark] = text
        return fresh

    def _spill(self, run: Run, draft: Draft) -> bool:
        """Add what fits of the tasks of a run that adds many, before its outcome; whether that was all.

        If we die in between, the task runs again and adds them again; repeats are skipped.
        """
        while run.added:
            texts: dict[Mark, str] = {}
            size = taken = 0
            while taken < len(run.added) and taken < SPILL and size <= draft.limits.largest_commit // 8:
                fresh = self._fresh(run, slice(taken, taken + 1), texts)
                texts.update(fresh)
                size += sum(map(len, fresh.values())) + 1
                taken += 1
            operations = min(len(texts), self._terms.shards + size // CHUNK_BYTES)
            if not draft.room(size, operations):
                return False
            draft.book(size, operations)
            self._place(texts, draft)
            del run.added[:taken], run.added_encoded[:taken]
        return True

    def _place(self, texts: dict[Mark, str], draft: Draft) -> None:
        """Put tasks into chunks of their shards."""
        jobs: dict[str, list[tuple[bytes, str]]] = {}
        for (job, mark), text in texts.items():
            jobs.setdefault(job, []).append((mark, text))
        for job, tasks in jobs.items():
            for packet in pack(tasks, self._terms.shards):
                # Shard, epoch and progress: no other commit that is applied has the same three.
                unique = f"{self.number:x}.{self.record.epoch:x}.{self.record.seq:x}.{len(draft.changes):x}"
                draft.changes.append(Create(self._terms.keys.chunk(packet.shard, f"{job}-{unique}"), packet.value()))
                self.record.count(job, "added", len(packet.texts))
        draft.sent.extend(texts)

    def _close(self, run: Run, draft: Draft, now: float) -> None:
        """Record one outcome, or put the task back for another try."""
        name, index = place_of(run)
        chunk = self.record.open[name]
        chunk.run &= ~(1 << index)
        if self._doubtful(run):
            self._blame((name, index), RAISED)
            self.backlog.put_back((name, index))
            return
        fails = chunk.fails.get(index, 0) + 1
        if run.error is not None and fails < self._terms.max_attempts:
            chunk.fails[index] = fails
            heapq.heappush(self._delayed, (now + self._terms.retry_delay * 2.0 ** (fails - 1), (name, index)))
            return
        state = State.DONE if run.error is None else State.FAILED
        error = "null" if run.error is None else quote(run.error)
        text = f'[{quote(run.task.id)},"{state}",{run.encoded},{error},{run.context.attempt}]'
        self._end((name, index), state, text, draft)

    def _end(self, place: Place, state: State, text: str, draft: Draft) -> None:
        """The one outcome of a task."""
        job = job_of(place[0])
        draft.results.setdefault(job, []).append(text)
        self.record.count(job, state)
        self._shut(*place, draft)

    def _shut(self, name: str, index: int, draft: Draft) -> None:
        """The task needs nothing more; if none of its chunk does, the chunk goes."""
        chunk = self.record.open[name]
        chunk.closed |= 1 << index
        chunk.fails.pop(index, None)
        chunk.blame.pop(index, None)
        self._drop_if_finished(name, draft)

    def _drop_if_finished(self, name: str, draft: Draft) -> None:
        chunk = self.record.open[name]
        if chunk.closed.bit_count() == chunk.size:
            draft.changes.append(Delete(self._terms.keys.chunk(self.number, name)))
            del self.record.open[name]
            self.backlog.forget(name)

    def _write_results(self, draft: Draft) -> None:
        """One key for each job: who recorded, under which epoch, and the outcomes."""
        for job, outcomes in draft.results.items():
            head = f'{{"runner":{quote(self._terms.member)},"epoch":{self.record.epoch},"outcomes":['
            key = f"{self._terms.keys.results(job, self.number)}/{self.record.seq:010d}"
            draft.changes.append(Create(key, (head + ",".join(outcomes) + "]}").encode()))

    def _tidy(self, draft: Draft) -> None:
        """Drop what finished jobs left, as much as fits; the counts go with the last of it."""
        for job, keys in list(self._forgotten.items()):
            while keys and draft.room(0, 1):
                draft.book(0, 1)
                draft.changes.append(Delete(keys.pop()))
            if not keys:
                del self._forgotten[job]
                self.record.counts.pop(job, None)
                self.backlog.forget_job(job)

    def _start(self, want: int, draft: Draft, now: float) -> None:
        """Mark up to *want* tasks as running, admitting chunks as needed."""
        while self._delayed and self._delayed[0][0] <= now:
            self.backlog.put_back(heapq.heappop(self._delayed)[1], first=False)
        while len(draft.starts) < want and (self.backlog.queue or self._admit(draft)):
            if self.backlog.queue:
                name, index = place = self.backlog.queue.popleft()
                self.record.open[name].run |= 1 << index
                draft.starts.append(self._run(place))

    def _admit(self, draft: Draft) -> bool:
        """Open one more chunk, if there is one and it fits; its skipped repeats need nothing more."""
        tasks = self.backlog.ready()
        if not draft.room(16 * tasks + 512, 2):
            return False
        admitted = self.backlog.admit()
        if admitted is None:
            return False
        name, marks = admitted
        if marks:
            key = f"{self._terms.keys.seen(job_of(name), self.number)}/{self.record.seq:010d}.{len(draft.changes)}"
            draft.changes.append(Create(key, b"".join(marks)))
        draft.book(16 * tasks + 512, 2)
        self._drop_if_finished(name, draft)
        return True

    def _run(self, place: Place) -> Run:
        """One start of a task that is marked as running."""
        terms = self._terms
        name, index = place
        attempt = self.record.open[name].attempts(index) + 1
        context = TaskContext(terms.member, job_of(name), self.number, self.record.epoch, attempt, terms.stopping)
        run = Run(self.backlog.tasks[name][index], context, (self, place))
        run.apart = terms.apart.every
        return run

    # Suspects

    def _stage(self, place: Place) -> Stage:
        return stage(self.record.open[place[0]].blame.get(place[1], ()))

    def _blame(self, place: Place, evidence: str) -> None:
        """One more start came to nothing, or is about to be made alone."""
        entry = write(self._terms.incarnation, self.record.epoch, evidence, self._terms.wall())
        self.record.open[place[0]].blame.setdefault(place[1], []).append(entry)

    def _start_suspects(self, most: int, draft: Draft, *, alone: bool) -> None:
        for _ in range(min(1 if alone else most, len(self.backlog.suspects))):
            name, index = place = self.backlog.suspects.popleft()
            self.record.open[name].run |= 1 << index
            if alone:
                self._blame(place, ALONE)
            run = self._run(place)
            run.apart, run.alone = not alone, self._stage(place) is Stage.ACCUSED
            draft.starts.append(run)

    def _take_back(self, place: Place) -> None:
        """A task was marked, and not started after all."""
        chunk = self.record.open[place[0]]
        chunk.run &= ~(1 << place[1])
        blame = chunk.blame.get(place[1], [])
        last = next(read(blame[-1:]), None)
        if last is not None and (last.incarnation, last.evidence) == (self._terms.incarnation, ALONE):
            blame.pop()
        self.backlog.put_back(place)

    def _judge(self, now: float) -> bool:
        """Put down what children have died of and we have not; whether there was anything."""
        due = False
        while self._died and self._died[0][0] <= now and not self._terms.stopping.is_set():
            run, due = self._died.popleft()[1], True
            place = place_of(run)
            disturbed = run.death == KILLED and self._terms.apart.disturbed(run.began)
            self._blame(place, DISTURBED if disturbed else run.death)
            self.record.open[place[0]].run &= ~(1 << place[1])
            self.backlog.put_back(place)
        return due

    def _condemn(self, draft: Draft) -> None:
        """Put the guilty into quarantine, while they fit: the outcome, and a record of its own."""
        while self.backlog.guilty:
            name, index = place = self.backlog.guilty[0]
            chunk, task = self.record.open[name], self.backlog.tasks[name][index]
            unique = f"{self.number}.{self.record.epoch}.{self.record.seq}.{len(draft.condemned)}"
            verdict = Condemned.of(
                unique, job_of(name), task, chunk.blame[index], chunk.attempts(index),
                self._terms.member, self.number, self.record.epoch, self._terms.wall(),
            )  # fmt: skip
            value = verdict.to_json()
            if not draft.room(len(value) + 4096, 3):
                break
            draft.book(len(value) + 4096, 3)
            self.backlog.guilty.popleft()
            draft.changes.append(Create(self._terms.keys.quarantined(unique), value))
            draft.condemned.append(verdict)
            error = quote(verdict.error)
            text = f'[{quote(task.id)},"{State.QUARANTINED}",null,{error},{verdict.attempts}]'
            self._end(place, State.QUARANTINED, text, draft)

    def _doubtful(self, run: Run) -> bool:
        """Whether a suspect has failed in a child, which may lack what the handler finds in the member.

        It did not kill, so it is given to the member once. Should it kill there, the next such error stands.
        """
        name, index = place_of(run)
        if run.error is None or not run.apart or self._terms.apart.every:
            return False
        return not ways(self.record.open[name].blame.get(index, ()), RAISED)


def _suspected(run: Run, terms: Terms) -> bool:
    """Whether it is a suspect's, in a child."""
    return run.apart and (run.alone or not terms.apart.every)


def shard_of(run: Run) -> ShardWork:
    """The work that the run is part of."""
    return cast("tuple[ShardWork, Place]", run.key)[0]


def place_of(run: Run) -> Place:
    """Where the run's task stands in its shard."""
    return cast("tuple[ShardWork, Place]", run.key)[1]
