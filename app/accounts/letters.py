"""What Stepwell writes to people, as plain text: every mail there is, in one place.

Nothing a stranger typed stands in a subject, and names of organizations are on one line without what could pass for a
link, so that nobody can have us deliver their own message.
"""

import re

from app.adapters.mail import Letter

_END = "\n\nStepwell, at {base_url}\n"
_ODD = re.compile(r"[^\w &.,'()+-]|\.(?=\S)", flags=re.ASCII)


def reset_password(to: str, base_url: str, token: str) -> Letter:
    """The answer to "I forgot my password"."""
    return _letter(
        to,
        base_url,
        "Choose a new password",
        f"Somebody, most likely you, asked for a new password for this address.\n\nChoose it here within an hour:\n\n"
        f"{base_url}/reset/{token}\n\nIf it was not you, do nothing: your password stays as it is.",
    )


def confirm_sign_up(to: str, base_url: str, token: str) -> Letter:
    """The last step of a sign-up."""
    return _letter(
        to,
        base_url,
        "Confirm your e-mail address",
        f"Welcome. Finish your sign-up here within an hour:\n\n{base_url}/verify/{token}\n\n"
        "If you did not sign up, do nothing: no account is made.",
    )


def known_already(to: str, base_url: str) -> Letter:
    """To somebody who has an account, when their address was used for a sign-up."""
    return _letter(
        to,
        base_url,
        "You have an account already",
        "Somebody, most likely you, tried to sign up with this address, which has an account already.\n\n"
        f"Sign in: {base_url}/login\nForgot the password? {base_url}/reset\n\nIf it was not you, do nothing.",
    )


def invitation(to: str, base_url: str, token: str, *, organization: str, inviter: str, role: str) -> Letter:
    """An invitation into an organization."""
    return _letter(
        to,
        base_url,
        "You are invited to an organization",
        f"{inviter} invites you to the organization {tame(organization)}, as {role}.\n\n"
        f"Join it here within seven days:\n\n{base_url}/invite/{token}\n\nIf you do not want to, do nothing.",
    )


def password_changed(to: str, base_url: str) -> Letter:
    """A notice that nobody can suppress who took over a session."""
    return _letter(
        to,
        base_url,
        "Your password was changed",
        "The password of your account was changed just now, and all other sessions were ended.\n\n"
        f"If it was not you, choose a new password at once: {base_url}/reset",
    )


def method_changed(to: str, base_url: str, provider: str, *, is_new: bool) -> Letter:
    """A notice that a way to sign in has come or gone."""
    done = "can be signed in to with" if is_new else "can no longer be signed in to with"
    return _letter(
        to,
        base_url,
        "A sign-in method was connected" if is_new else "A sign-in method was disconnected",
        f"Your account {done} {provider} from now on.\n\n"
        f"If it was not you, choose a new password at once, and look at your sign-in methods:\n\n"
        f"{base_url}/reset\n{base_url}/settings/security",
    )


def account_deleted(to: str, base_url: str) -> Letter:
    """The last mail to somebody who left."""
    return _letter(
        to,
        base_url,
        "Your account is deleted",
        "Your account was deleted just now, as you asked, with your sessions and sign-in methods.\n\n"
        "If it was not you, tell the owners of your organization at once.",
    )


def organization_ending(to: str, base_url: str, *, organization: str, actor: str, days: int) -> Letter:
    """To every owner: there is still time to keep it."""
    return _letter(
        to,
        base_url,
        "An organization of yours is about to be deleted",
        f"{actor} has asked for the organization {tame(organization)} to be deleted. Its keys are refused from now on, and "
        f"in {days} days everything in it is erased.\n\nUntil then any owner can keep it here:\n\n"
        f"{base_url}/settings/organization",
    )


def tame(name: str) -> str:
    """A name of an organization in a mail: dots inside words and everything odd become blanks, so no link remains."""
    return " ".join(_ODD.sub(" ", name).split())[:80] or "a team"


def _letter(to: str, base_url: str, subject: str, text: str) -> Letter:
    return Letter(to, f"{subject} · Stepwell", text + _END.format(base_url=base_url))
