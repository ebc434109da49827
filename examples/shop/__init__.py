"""A small shop whose orders are fulfilled by a durable function. Start it with `python -m examples.shop`."""
