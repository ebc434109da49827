"""Ways to serve functions: `asgi` for Starlette, FastAPI, Litestar, Django's ASGI side, or a bare ASGI server."""

from stepwell.serve._asgi import AsgiApp, asgi

__all__ = ["AsgiApp", "asgi"]
