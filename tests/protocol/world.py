"""What a case is given: one Stepwell in one mode, one tenant, and the apps of one SDK, started when first asked for."""

from contextlib import ExitStack
from pathlib import Path

from tests.protocol.sdks import App, Program, Sdk, running_app
from tests.protocol.server import Api, Server, Tenant


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
