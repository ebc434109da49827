"""The state of a run as people see it, as SQL, for lists that show a run as one mark: the same words as the runs list."""

#: States in which nothing about a run changes any more.
ENDED = frozenset({"completed", "failed", "cancelled", "skipped"})


def display_state(run: str) -> str:
    """An SQL expression over the columns `id` and `status` of the alias `run`; looks at the live items of running runs."""
    call = f"select from items i where i.run_id = {run}.id and i.kind in ('discover', 'step')"
    is_later = "i.lease_id is null and i.attempt > 0 and i.due_at > clock()"
    return (
        f"case when {run}.status <> 'running' then {run}.status"
        f" when exists ({call} and not ({is_later})) then 'running'"
        f" when exists ({call}) then 'retrying'"
        f" when exists (select from items i where i.run_id = {run}.id) then 'waiting' else 'running' end"
    )
