"""What a run does next, decided without touching anything.

    begin  (function, events, now)      -> list[Effect]
    advance(run, happening, now)        -> list[Effect]     total: every state x every happening has an answer
    fold   (run, effect)                -> Run              the model of what engine/apply.py writes

Read `state.py`, then two handlers in `on_reply/`, then `advance.py`.
"""
