"""`make bench`: how fast Stepwell is on this machine, measured with a small app and a load generator of its own.

`app` is the app whose steps do nothing, `load` sends events, `product` starts Stepwell and watches its processes,
`machine` says what the machine itself can do, `measures` are the parts, `table` prints them beside the goals, and `run`
puts them in order. How to read the result: docs/performance.md.
"""
