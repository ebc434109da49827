"""The worker process: an arq worker pool that owns the engine. Each job calls one function."""
