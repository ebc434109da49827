"""Why a way through a login provider ends: one code and one sentence each (docs/login.md lists them)."""

from app.domain.errors import Refused


class ConsentDenied(Refused):
    """You did not agree at the provider, or it did not let you. Nothing was changed."""

    def __init__(self) -> None:
        super().__init__("consent_denied")


class JourneyOver(Refused):
    """The sign-in was used, took longer than ten minutes, or was begun in another browser. Start again."""

    def __init__(self) -> None:
        super().__init__("state_invalid")


class EmailUnverified(Refused):
    """The provider does not vouch for an e-mail address of yours. Confirm it there, or ask for an invitation here."""

    def __init__(self) -> None:
        super().__init__("email_unverified")


class SignUpClosed(Refused):
    """Nobody here knows this sign-in, and new accounts are made by invitation only."""

    def __init__(self) -> None:
        super().__init__("sign_up_closed")


class AccountExists(Refused):
    """There is an account with your address. Sign in as before, then connect the provider under Sign-in methods."""

    def __init__(self) -> None:
        super().__init__("account_exists")


class InvitationForOther(Refused):
    """The invitation is for another address than the provider vouches for. Use that one, or choose a password instead."""

    def __init__(self) -> None:
        super().__init__("invitation_for_other")


class LinkedElsewhere(Refused):
    """The sign-in belongs to another account here. Disconnect it there first."""

    def __init__(self) -> None:
        super().__init__("linked_elsewhere")


class AlreadyConnected(Refused):
    """You have connected another account of this provider already. Disconnect it first."""

    def __init__(self) -> None:
        super().__init__("already_connected")


class OtherPerson(Refused):
    """You signed in at the provider as somebody else. Use the account that is connected here."""

    def __init__(self) -> None:
        super().__init__("other_person")


class NoOrganization(Refused):
    """You are in no organization here any more. Ask somebody in one to invite you."""

    def __init__(self) -> None:
        super().__init__("no_organization")


class LastMethod(Refused):
    """It is your only way in. Choose a password or connect another provider first."""

    def __init__(self) -> None:
        super().__init__("last_method")


class TooManyJourneys(Refused):
    """Too many sign-ins were begun from your network. Try again in a few minutes."""

    def __init__(self, seconds: int) -> None:
        super().__init__("rate_limited", details={"retry_after": seconds})
