"""What a case is given: one Stepwell in one mode, one tenant, and the apps of one SDK, started when first asked for."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar, get_args

import pytest

from tests.protocol.sdks import SDKS, App, Program, Sdk, running_app
from tests.protocol.server import Api, Mode, Server, Tenant

Case = TypeVar("Case", bound=Callable[..., object])

WORLDS = [pytest.param((sdk, mode), id=f"{sdk}-{mode}") for sdk in SDKS for mode in get_args(Mode)]
"""Every SDK in every mode: what a case that takes `world` runs in."""
ONLY = "only_mode"
"""The attribute of a case that runs in one mode only."""


def only_signed(case: Case) -> Case:
    """Mark a case about keys and tenants, which dev mode does not have."""
    setattr(case, ONLY, "signed")
    return case


def only_dev(case: Case) -> Case:
    """Mark a case about dev mode."""
    setattr(case, ONLY, "dev")
    return case


class World:
    """One SDK × mode."""

    def __init__(self, sdk: Sdk, server: Server, folder: Path, stack: ExitStack) -> None:
        self.sdk = sdk
        self.server = server
        self.tenant: Tenant = server.tenant()
        self.api: Api = server.api(self.tenant)
        self._folder = folder
        self._stack = stack
        self._apps: dict[Program, App] = {}
        self._registered: set[str] = set()

    @property
    def is_signed(self) -> bool:
        """Whether calls are signed and keys are asked for."""
        return self.server.mode == "signed"

    def app(self, program: Program) -> App:
        """The running app; it may not be registered yet."""
        if program not in self._apps:
            self._apps[program] = self._stack.enter_context(
                running_app(self.sdk, program, self.server, self.tenant, self._folder)
            )
        return self._apps[program]

    def registered(self, program: Program) -> App:
        """The running app, registered by its own means."""
        app = self.app(program)
        if app.id not in self._registered:
            answer = app.register()
            assert answer.status_code == 200, answer.text
            self._registered.add(app.id)
        return app
