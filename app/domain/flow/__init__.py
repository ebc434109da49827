"""Flow control as arithmetic: what a function's settings allow, without rows, clocks or waiting.

Two lists, two places. Before a run exists an event passes the gates (`gates.py` keeps their order: batch, rate limit,
debounce, singleton), which answer with a run, a delay or a reason. Before an item is leased it needs capacity
(`capacity.py`: throttle, limits of runs, limits of calls), which answers "now" or "because of this key, not before then".
One module per rule; `keys.py` turns a setting and an event into the key it counts under, `lanes.py` into the queue's lane.
Rows are read and written by `engine/schedule.py` and `engine/queue.py`.
"""
