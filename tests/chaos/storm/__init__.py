"""The storm: Stepwell run for real, struck from a seed, and then asked whether anything was lost or done twice.

    python -m tests.chaos.storm --seed 7 --minutes 5

     programs.py  seed → step programs, and which results each of them may have (pure): the independent model
     app.py       the app under Stepwell: interprets programs, misbehaves, writes down every execution
     client.py    who sends events, answers waits, cancels and replays; its ledger says what was acknowledged
     proxy.py     stands before Postgres, Redis and the app: cuts, delays, swallows, throttles
     yard.py      the processes: started, struck, frozen, started again
     strikes.py   one function per fault; seed → what is struck when
     rest.py      waits until nothing is open any more, and says what stays open
     audit.py     then: every invariant, by SQL and from the ledgers
     planted.py   web and worker with a bug planted on purpose, to see the audit find it

What each fault is struck by is in docs/chaos/README.md.
"""
