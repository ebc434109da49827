"""Start the shop: `python -m examples.shop --port 3030`."""

import argparse

import uvicorn

from .web import app

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.shop", description="A sample shop for Stepwell.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3030)
    arguments = parser.parse_args()
    uvicorn.run(app, host=arguments.host, port=arguments.port, log_level="warning")
