"""Two look-alike tenants, for the tests of accounts, guards and pages."""

from uuid import UUID, uuid4

from app.accounts.bootstrap import bootstrap
from app.accounts.passwords import Passwords, Verdict
from app.domain.ids import AccountId, EnvironmentId
from app.domain.scope import Scope

SECRET_KEY = "a secret key that only these tests know"
BASE_URL = "http://127.0.0.1:8288"
PASSWORD = "a long walk by the sea"

Tenant = dict[str, str]


async def new_tenant(database: str, **more: str) -> Tenant:
    """Bootstrap an organization of its own; the output of `bootstrap` with the password."""
    word = uuid4().hex[:10]
    given = {"email": f"{word}@example.com", "organization": f"Shop {word}", "password": PASSWORD} | more
    made = await bootstrap(
        database, SECRET_KEY, base_url=BASE_URL, passwords=Passwords(memory_kib=19 * 1024, rounds=2), **given
    )
    return made | {"password": given["password"]}


def scope_of(tenant: Tenant) -> Scope:
    """The tenant's production scope."""
    return Scope(AccountId(UUID(tenant["organization_id"])), EnvironmentId(UUID(tenant["environment_id"])))


class CountingPasswords(Passwords):
    """Counts verifications and takes the cheapest hash that is allowed."""

    def __init__(self) -> None:
        super().__init__(memory_kib=19 * 1024, rounds=2)
        self.verifications = 0

    async def verify(self, password: str, stored: str | None) -> Verdict:
        """Verify and count."""
        self.verifications += 1
        return await super().verify(password, stored)
