"""Doors to what is outside, one module each: HTTP, Redis, arq, sealing. Only they import the library behind them."""
