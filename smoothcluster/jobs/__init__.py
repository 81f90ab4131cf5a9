"""Jobs as a client sees them: submit tasks, follow the progress, read the outcomes.

A job passes through these states::

    (no record) --a submit begins--> open --all tasks written--> sealed --every task has its outcome--> finished
                                     open <--another submit-- sealed
    open, sealed --cancel--> cancelling --running tasks have ended--> cancelled
    finished, cancelled --delete--> deleting --nothing is left but the record--> deleted

The parts follow a job's life: `chunks` packs tasks of the same shard into one value, `submission` writes the chunks,
`progress` adds up the counts of the shards, `results` reads the outcomes, and `handle` offers all this for one job.
`cancelling`, `deletion` and `retrying` end jobs and begin them anew. `access` repeats requests while the store is
unavailable.

Invariants:

- Each commit of a submit compares and sets the job's record, so a repeated submit writes nothing twice.
- Counts in the shards' records never fall, so two equal readings in a row prove that a job is finished (`progress`).
- No reader lists tasks: the cost of the progress grows with the number of shards, not of tasks.

On failure: a submit that was cut short leaves the job open, and the error names the job. Submitting the same tasks to
the same job again completes the job, because repeats are skipped; submitting nothing ends the job as it is. If the
outcome of a commit is unknown, the submit sends the same bytes again until the store tells. An unreadable record of a
shard keeps a job from being called finished.

Begin reading with `submission.Submission`, then `progress` and `handle.JobHandle`.
"""
