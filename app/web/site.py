"""What a handler may need of this process, made once by `app.main` and handed in as the dependency `site`."""

from dataclasses import dataclass, field

from litestar import Litestar
from litestar.datastructures import State

from app.accounts.branches import Branches
from app.accounts.login import LoginLimits
from app.accounts.passwords import Passwords
from app.accounts.plans import Plans
from app.accounts.providers import Asker
from app.accounts.resolve import Bearers, EventKeys, SigningKeys
from app.adapters.arq import JobQueue
from app.adapters.outgoing import Outgoing
from app.adapters.redis import Bell
from app.adapters.sealing import Sealer
from app.billing.checkout import Desk
from app.billing.standing import House
from app.domain.protocol.call import ServerKind
from app.domain.providers import Provider
from app.domain.subscription import Payments
from app.engine.catalogue import Catalogue
from app.engine.changes import Changes
from app.engine.clock import DatabaseClock
from app.engine.ingest import Ingest
from app.store.late_pool import LatePool
from app.web.api.rate import ApiRate


@dataclass(frozen=True, slots=True)
class Site:
    """Pools, keys and a few settings. `ingest` and `operations` see every tenant, `pages` only the one that
    `tenant()` names. Whoever looks at the whole house does not take the connections of events (F10).
    """

    base_url: str
    is_dev: bool
    ingest: LatePool
    pages: LatePool
    operations: LatePool
    sealer: Sealer
    passwords: Passwords
    event_keys: EventKeys
    bearers: Bearers
    signing_keys: SigningKeys
    events: Ingest
    changes: Changes
    bell: Bell
    jobs: JobQueue
    clock: DatabaseClock
    catalogue: Catalogue
    branches: Branches
    plans: Plans
    outgoing: Outgoing
    login_limits: LoginLimits = field(default_factory=LoginLimits)
    sign_up: str = "closed"
    sends_mail: bool = False
    #: Who else may say who somebody is, and the door to them; none where no provider is set.
    login_providers: tuple[Provider, ...] = ()
    asker: Asker | None = None
    api_rate: ApiRate = field(default_factory=ApiRate)
    #: As `Settings.metrics`.
    metrics: str = "off"
    #: E-mail addresses of operators; None: owners.
    operators: tuple[str, ...] | None = None
    #: Billing of this installation, and who takes the money; None where nothing is sold.
    house: House | None = None
    stripe: Payments | None = None

    @property
    def server_kind(self) -> ServerKind:
        """What SDKs are told this server is (protocol 1)."""
        return "dev" if self.is_dev else "cloud"

    @property
    def is_hosted(self) -> bool:
        """Say whether plans mean something here."""
        return self.house is not None and self.house.is_hosted

    @property
    def till(self) -> Desk | None:
        """What owners pay with; None where nothing is sold."""
        return (
            Desk(self.ingest, self.stripe, self.house) if self.stripe is not None and self.house is not None else None
        )

    @property
    def is_https(self) -> bool:
        """Say whether browsers reach us over TLS."""
        return self.base_url.startswith("https://")

    @property
    def cookie_name(self) -> str:
        """The session cookie's name; browsers accept `__Host-` only with `Secure`, so only over TLS."""
        return "__Host-stepwell" if self.is_https else "stepwell"

    @property
    def journey_cookie_name(self) -> str:
        """The name of the cookie that binds journeys to login providers to a browser."""
        return f"{self.cookie_name}-journey"


def site_of(app: Litestar) -> Site:
    """The site of an application."""
    site: Site = app.state.site
    return site


async def provide_site(state: State) -> Site:
    """Dependency `site`."""
    site: Site = state.site
    return site
