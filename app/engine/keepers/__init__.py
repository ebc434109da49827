"""Small caretakers, each `run_once(pool, ...) -> int`: how many things it put right.

rescue   items of workers whose lease ran out
sweep    lanes whose clock is later than their work
recheck  waits whose second look is still owed
orders   many runs to be cancelled
retention  what is past its time, row by row and day by day; partitions of the days to come
cron     what time sets off: debounces, batches, crons
erasure  organizations whose end has come
tidy     lanes, keys and gates of key values out of use
merge    minute counters that connections wrote side by side

Every one may run on every worker at once: rows are taken with `skip locked`, and putting a thing right twice changes
nothing.
"""
