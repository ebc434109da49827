"""The pure middle: values and decisions, no I/O, no clock, no dice.

Nothing here may import a framework, a driver, `asyncio`, `random` or `time`
(an import contract holds it). Everything that happens outside comes in as an argument.
"""
