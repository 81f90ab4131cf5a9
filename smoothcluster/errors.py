"""Every error of this library, sorted by the caller's next step.

Losing a race is never an error: `commit` returns `Refused`. ::

    SmoothclusterError
    +-- BackendError                a failure between this process and the store
    |   +-- UnavailableError        nothing was sent: retrying is safe
    |   |   +-- BackendClosedError  this client was closed: make a new backend
    |   |   +-- StoreLimitError     a directory or the number of watches exceeds the store's limits
    |   +-- OutcomeUnknownError     something was sent and no answer came: read before retrying
    |   +-- LeaseLostError          the lease is gone for good: begin again with a new lease
    |   +-- CommitTooLargeError     nothing was changed: make the commit smaller
    |   +-- AccessDeniedError       the store refused our credentials or permissions
    |   +-- MisplacedKeyError       a key lies where a directory is to be, or a directory where a key is
    +-- SinkError                   a failure between this process and the results sink
    |   +-- SinkUnavailableError    the sink is away, full or refuses: nothing is lost, and a retry is safe
    |   +-- PartDeletedError        the results of the job were deleted from the sink
    +-- TasksLostError              the store has lost tasks of a job, so the job cannot finish
    +-- GarbageError                a record in the store has a form that this version does not write
    +-- UsageError                  the call itself is wrong; the message tells the correction
        +-- MissingDriverError      an adapter's driver is not installed
        +-- UnknownSchemeError      no backend is registered for this URL
        +-- GuaranteeError          the store promises less than is required
        +-- SpecMismatchError       the living group was set up with other numbers
        +-- NameInUseError          a living member already has this name
        +-- DuplicateTaskError      one submit call names the same task twice
        +-- JobClosedError          the job has finished or was deleted
"""

from smoothcluster.loggers import keep_loggers

keep_loggers()  # Here, because every module with a logger imports this module, adapters included.


class SmoothclusterError(Exception):
    """Base of every error raised by this library."""

    hint: str = ""
    """The effect of an interrupted call, and the way to continue; part of the text of the error. Mostly empty."""

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text}; {self.hint}" if self.hint else text


def add_hint(error: BaseException, hint: str) -> None:
    """Tell the reader of *error* how to continue after an interrupted call.

    A foreign error keeps its text, and gets *hint* as a note, which Python prints below the stack trace.
    """
    if isinstance(error, SmoothclusterError):
        error.hint = hint
    else:
        error.add_note(hint)


class BackendError(SmoothclusterError):
    """A call from this process to the store failed."""


class UnavailableError(BackendError):
    """Nothing was sent. Retrying is safe."""


class BackendClosedError(UnavailableError):
    """This client was closed, so a retry is of no use. Nothing was sent. Make a new backend."""


class StoreLimitError(UnavailableError):
    """A directory has more keys, or a client more watches, than the store's `guarantees` allow. Nothing was changed."""


class OutcomeUnknownError(BackendError):
    """Something was sent and no answer came. Read before retrying."""


class LeaseLostError(BackendError):
    """The lease is gone for good, with every key on the lease. Begin again with a new lease."""


class CommitTooLargeError(BackendError):
    """The commit exceeds the store's `guarantees`, or the server refused the size. Nothing was changed."""


class AccessDeniedError(BackendError):
    """The store refused the credentials, or the credentials do not permit this call. Nothing was changed."""


class MisplacedKeyError(BackendError, ValueError):
    """A key would lie where a directory is, or below another key. Nothing was changed."""

    def __init__(self, key: str, what: str) -> None:
        super().__init__(f"{key!r} {what}")
        self.key = key
        self.what = what


class SinkError(SmoothclusterError):
    """A call from this process to the results sink failed."""


class SinkUnavailableError(SinkError):
    """The results sink is away, is full, or refuses the call. A write may have arrived or not; a retry is safe."""


class PartDeletedError(SinkError):
    """The results of the job were deleted from the sink, so the sink takes no more results of the job."""


class TasksLostError(SmoothclusterError):
    """The store has lost tasks of a job: they have no outcome, and nothing is left to run."""


class GarbageError(SmoothclusterError):
    """A record in the store has a form that this version does not write."""


class UsageError(SmoothclusterError):
    """The call itself is wrong. The message tells the correction."""


class MissingDriverError(UsageError):
    """The backend is known but its driver is not installed."""


class UnknownSchemeError(UsageError):
    """No installed backend is registered for the URL's scheme."""


class GuaranteeError(UsageError):
    """The store promises less than the caller requires."""


class SpecMismatchError(UsageError):
    """The living group was set up with other numbers than these."""


class NameInUseError(UsageError):
    """A living member of the group already has this name."""


class DuplicateTaskError(UsageError):
    """One call to submit names the same task twice."""


class JobClosedError(UsageError):
    """The job has finished or was deleted and takes no more tasks."""
