"""The tenant a statement works for."""

from dataclasses import dataclass

from app.domain.ids import AccountId, EnvironmentId


@dataclass(frozen=True, slots=True)
class Scope:
    """Account and environment; a required argument wherever tenant rows are touched."""

    account_id: AccountId
    environment_id: EnvironmentId
