"""The command `stepwell`.

Owns: words on the command line and what is said to a person. Each command lives in its own module and is imported only
when it is asked for, so that `stepwell up` stays small and `stepwell version` is quick. Refusals of any kind come out
as one sentence and exit code 1, never as a traceback.
"""

import importlib
from typing import Any

import click

from app.config import SettingRefused
from app.supervise.postgres import PostgresFailed
from app.supervise.programs import ProgramMissing
from app.supervise.state import StateLocked

COMMANDS: dict[str, tuple[str, str]] = {
    "dev": ("app.cli.up:dev", "Everything for a laptop: no login, no keys, finds local apps by itself."),
    "up": ("app.cli.up:up", "Everything on one machine, supervised, with login and signatures."),
    "web": ("app.cli.serve:web", "One web process, against given servers."),
    "worker": ("app.cli.serve:worker", "One worker process, against given servers."),
    "migrate": ("app.cli.database:migrate", "Bring the database to the newest schema."),
    "bootstrap": ("app.cli.database:bootstrap", "Create an organization, its first user and keys without a browser."),
    "plan": ("app.cli.plan:plan", "Show the plan of an organization, give it one by hand, or take that back."),
    "backup": ("app.cli.backup:backup", "Write the whole database into one file."),
    "restore": ("app.cli.backup:restore", "Read such a file into an empty database."),
    "doctor": ("app.cli.doctor:doctor", "Check this installation and say what to do."),
    "version": ("app.cli.version:version", "Print the version."),
    "demo": ("app.cli.demo:demo", "Start everything with a sample shop and follow a real order through it."),
}
"""Name of each command, where it lives, and its one line of help."""


class _Commands(click.Group):
    """A group that imports a command when it is used, and turns refusals into sentences."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingRefused as refused:
            raise click.ClickException(f"a setting is missing or wrong.\n{refused}") from None
        except (StateLocked, ProgramMissing, PostgresFailed) as refused:
            raise click.ClickException(str(refused)) from None


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
def main() -> None:
    """Stepwell runs your functions durably: events in, steps that are never lost, a dashboard to watch them."""
