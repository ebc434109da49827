"""`stepwell doctor`: looks at everything Stepwell stands on and says what to do."""

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path

import click

from app.cli.checks import (
    Finding,
    Verdict,
    check_cookies,
    check_data_folder,
    check_database,
    check_port,
    check_providers,
    check_redis,
    check_secret_key,
    check_settings,
    guarded,
)
from app.cli.house import PLACEHOLDERS
from app.config import load
from app.supervise.state import Running, State

_MARKS = {Verdict.OK: "ok  ", Verdict.WARNING: "warn", Verdict.FAIL: "FAIL"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as one JSON object.")
def doctor(as_json: bool) -> None:
    """Check settings, database, roles, Redis, clock, migrations and ports. Ends with code 1 if something is broken."""
    findings = asyncio.run(examine())
    broken = any(finding.verdict is Verdict.FAIL for finding in findings)
    if as_json:
        click.echo(json.dumps({"ok": not broken, "findings": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            click.echo(f"{_MARKS[finding.verdict]}  {finding.check + ':':<13} {finding.found}")
            if finding.advice:
                click.echo(f"      {'':<13} {finding.advice}")
    if broken:
        raise SystemExit(1)


async def examine() -> list[Finding]:
    """Run all checks on what the environment names, else on what runs from the data folder."""
    given = {key: value for key, value in os.environ.items() if value.strip()}
    settings = load({**PLACEHOLDERS, **given})
    state, running = _running(settings.data_dir)
    database_url = settings.database_url if "DATABASE_URL" in given else (running and running.database_url)
    redis_url = given.get("REDIS_URL") or (running and running.redis_url)
    secret_key = given.get("STEPWELL_SECRET_KEY") or (running and running.secret_key)
    findings = [
        check_settings(os.environ),
        guarded("data folder", lambda: check_data_folder(state)),
        guarded("port", lambda: check_port(settings)),
        check_cookies(settings),
    ]
    if secret_key:
        findings.append(check_secret_key(secret_key, kept="STEPWELL_SECRET_KEY" not in given))
    elif "DATABASE_URL" in given:
        advice = "Set it to the same value for every web and worker process."
        findings.append(Finding("secret key", Verdict.FAIL, "STEPWELL_SECRET_KEY is not set", advice))
    if database_url:
        findings.extend(await check_database(database_url))
    else:
        advice = "Run `stepwell up`, or set DATABASE_URL."
        findings.append(Finding("database", Verdict.FAIL, "the embedded one is not running", advice))
    if redis_url:
        findings.append(check_redis(redis_url))
    elif database_url:
        advice = "Set REDIS_URL; without Redis everything takes seconds longer."
        findings.append(Finding("redis", Verdict.WARNING, "REDIS_URL is not set", advice))
    findings.extend(await check_providers(settings))
    return findings


def _running(data_dir: Path) -> tuple[State, Running | None]:
    """Find a running `up`, `demo` or `dev` of this data folder, in this order."""
    states = [State(data_dir, name) for name in ("up", "demo", "dev")]
    for state in states:
        running = state.running()
        if running is not None:
            return state, running
    return states[0], None
