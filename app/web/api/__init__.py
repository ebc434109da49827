"""Doors for machines: events, registration, checkpoints, state, runs. JSON in and out, errors with a stable `code`."""
