"""Jobs as a client sees them: submit tasks, follow the progress, read the outcomes.

A job passes through these states; ``deleted`` is reserved and not written yet::

    open --all tasks written--> sealed --every task has its outcome--> finished

Invariants: each commit of a submit compares and sets the job's record, so a repeated submit writes nothing twice.
Counts in the shards' records never fall, so two equal readings in a row prove that a job is finished (`progress`).

On failure: a submit that was cut short leaves the job open. Submitting the same tasks to the same job again completes
the job, because repeats are skipped.

Begin reading with `submission.Submission`, then `progress` and `handle.JobHandle`.
"""
