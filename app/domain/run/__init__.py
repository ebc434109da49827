"""What a run does next, decided without touching anything.

    begin  (run, at=None)               -> list[Effect]
    advance(run, happening, now)        -> list[Effect]     total: every state x every happening has an answer
    fold   (run, effect)                -> Run              the model of what engine/apply.py writes
    committed(run, effects)             -> Run              all effects folded, one version on

Read `state.py`, then two handlers in `on_reply/`, then `advance.py`.
"""
