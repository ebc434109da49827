"""The main path of Stepwell, from an event to a finished run. Read the modules in this order.

     reads/takes                 module              writes, in one transaction
     ──────────────────────────────────────────────────────────────────────────────────────────────
     POST /e/{key}               web/api/events.py   key → scope, size, decode
  1  ▼ events                    ingest.py           ids                         → events, inbox
     │ bell
  2  ▼ inbox rows                react.py            functions, waits            inbox rows gone
     │                           schedule.py         gates, lanes                → runs, items, history, dispositions, gates
     │ first items are leased at once where there is room
  3  ▼ due items                 queue.py            lanes, flow keys, lease     → items (fence), slots
  4  ▼ leased item               execute.py          load, call, read, hand over
     │                           dispatch.py         call → signed HTTP → raw answer      (no connection held)
  5  ▼ raw answer                domain/protocol/reply.py                        → Reply
  6  ▼ Happening                 transition.py       one guarded entry per run, many runs in one statement
     │                           domain/run/advance.py   (run, happening, now) → effects   pure
     │                           apply.py            effects → rows              → runs, steps, items, pauses, history,
     │                                                                             events, inbox
     └─► successor leased to the same worker: back to 4 … until FinishRun, whose event enters the inbox: back to 2

Beside it: `engine.py` runs the loops of a worker, `catalogue.py` is what a process knows of functions, `breaker.py` which
apps are not called for a while, `hot.py` a run in memory, `waits.py` finds the waits an event ends, `lifecycle.py` writes
our own events, `sync.py` learns an app's functions, `crons.py` answers the due times of schedules, `keepers/` put right
what a crash left.

The rules that make this safe are in docs/adr/0002-the-hot-path.md; each has a pause point and a race test.
"""
