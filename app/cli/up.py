"""`stepwell up` and `stepwell dev`: everything on this machine, until Ctrl-C."""

import os

import click

from app.cli.house import Opened, open_house, run_house
from app.config import Mode

_host = click.option("--host", help="Address to listen on (STEPWELL_HOST, 127.0.0.1).")
_port = click.option("--port", type=click.IntRange(1, 65535), help="Port to listen on (STEPWELL_PORT, 8288).")


@click.command()
@_host
@_port
def up(host: str | None, port: int | None) -> None:
    """Run Stepwell on this machine: servers, migrations, web and workers, started again when they die.

    Postgres and Valkey come with Stepwell; DATABASE_URL and REDIS_URL name others.
    """
    house = open_house(_environ(host, port), Mode.UP, "up")
    run_house(house, lambda: _say_ready(house, _first_steps(house)))


@click.command()
@click.option("-u", "--url", "urls", multiple=True, help="Address of an app's endpoint; may be repeated.")
@_port
@_host
@click.option("--no-discovery", is_flag=True, help="Do not look for apps on the usual local ports.")
def dev(urls: tuple[str, ...], port: int | None, host: str | None, no_discovery: bool) -> None:
    """Run Stepwell for development: no login, no keys, apps on this machine are found and called."""
    environ = _environ(host, port)
    if urls:
        environ["STEPWELL_APP_URLS"] = ",".join(urls)
    if no_discovery:
        environ["STEPWELL_DISCOVERY"] = "0"
    house = open_house(environ, Mode.DEV, "dev")
    run_house(house, lambda: _say_ready(house, "Apps in dev mode (INNGEST_DEV=1) find it by themselves."))


def _environ(host: str | None, port: int | None) -> dict[str, str]:
    environ = dict(os.environ)
    if host is not None:
        environ["STEPWELL_HOST"] = host
    if port is not None:
        environ["STEPWELL_PORT"] = str(port)
    return environ


def _first_steps(house: Opened) -> str:
    settings = house.settings
    by_hand = "stepwell bootstrap"
    lines = [
        f"Create the first login and keys with: {by_hand}"
        if settings.sign_up == "closed"
        else f"First time here? Create your account at {settings.base_url}/sign-up  (or with: {by_hand})"
    ]
    if not settings.allow_private_apps:
        lines.append("Apps on this machine or in a private network are called only with STEPWELL_ALLOW_PRIVATE_APPS=1.")
    return "\n".join(lines)


def _say_ready(house: Opened, next_step: str) -> None:
    click.echo(f"Stepwell is ready at {house.settings.base_url}  (data in {house.state.folder}; Ctrl-C stops it)")
    click.echo(next_step)
