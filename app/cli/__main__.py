"""Lets the supervisor start commands with the very interpreter it runs in: `python -m app.cli web`."""

from app.cli import main

main(prog_name="stepwell")
