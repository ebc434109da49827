"""What Stepwell writes to owners about plans and payments, as plain text."""

from app.adapters.mail import Letter
from app.billing.plans import FREE, Stage
from app.domain.limits import PLANS

_END = "\n\nPlan and usage: {base_url}/billing\n\nStepwell, at {base_url}\n"
_DAYS = PLANS[FREE].retention.days
_KEEPS = f"history older than {_DAYS} day{'' if _DAYS == 1 else 's'} is deleted"
_STAGES = {
    Stage.PAYMENT_FAILED: (
        "A payment failed",
        (
            "The last payment for your plan did not go through. Your bank may say why; we will try again.\n\n"
            "Nothing has changed for your runs. Please look at your payment method."
        ),
    ),
    Stage.PAST_DUE: (
        "Your payment is past due",
        (
            "A payment for your plan has been open for three days.\n\nNothing has changed for your runs yet."
            " Please update your payment method, or pay the open invoice."
        ),
    ),
    Stage.FINAL_NOTICE: (
        "Last reminder: your payment is past due",
        (
            "A payment for your plan has been open for a week.\n\nIf it stays open for another week, your organization goes"
            f" back to the Free plan: its lower limits hold, {_KEEPS}, and new runs stop when its allowance is used up."
        ),
    ),
    Stage.DOWNGRADE_PENDING: (
        "Your plan ends in two days",
        (
            "A payment for your plan is still open.\n\nIn two days your organization goes back to the Free plan, and"
            f" {_KEEPS}. Paying the open invoice keeps your plan."
        ),
    ),
    Stage.DOWNGRADED: (
        "Your organization is on the Free plan now",
        (
            "A payment for your plan stayed open for two weeks, so the limits of the Free plan hold now.\n\n"
            f"Events are still accepted and stored; {_KEEPS}. Paying the open invoice brings your plan back at once."
        ),
    ),
}


def dunning(to: str, base_url: str, stage: Stage) -> Letter:
    """A payment failed, or has been open for longer."""
    subject, text = _STAGES[stage]
    return _letter(to, base_url, subject, text)


def allowance(to: str, base_url: str, percent: int, *, stops: bool) -> Letter:
    """80 or 100 percent of what a month includes are used."""
    if percent < 100:
        then = "new runs stop; events are still stored" if stops else "every further execution is charged"
        return _letter(
            to,
            base_url,
            f"{percent} % of this month's allowance is used",
            f"Your organization has used {percent} % of what its plan includes this month.\n\nWhen it is used up, {then}.",
        )
    if stops:
        return _letter(
            to,
            base_url,
            "This month's allowance is used up: new runs have stopped",
            "Your organization has used everything its plan includes this month.\n\n"
            "Runs that had started go on to their end. Events are accepted and stored. New runs are not started: each is"
            " listed as skipped with this reason, and can be replayed later.\n\n"
            "A larger plan starts runs again at once; otherwise they start with the next month.",
        )
    return _letter(
        to,
        base_url,
        "This month's included executions are used",
        (
            "Your organization has used what its plan includes this month. Runs go on; further executions are charged by use.\n\n"
            "You can set a spend cap if you want runs to stop at an amount."
        ),
    )


def spend_cap(to: str, base_url: str, percent: int) -> Letter:
    """80 or 100 percent of the amount somebody set as a cap are reached."""
    if percent < 100:
        return _letter(
            to,
            base_url,
            f"{percent} % of your spend cap are reached",
            f"What executions beyond your plan cost has reached {percent} % of the cap you set.\n\n"
            "At the cap, new runs stop; events are still stored.",
        )
    return _letter(
        to,
        base_url,
        "Your spend cap is reached: new runs have stopped",
        "What executions beyond your plan cost has reached the cap you set.\n\nRuns that had started go on to their end."
        " Events are accepted and stored. New runs are listed as skipped with this reason, and can be replayed later.\n\n"
        "Raise or remove the cap to start runs again.",
    )


def _letter(to: str, base_url: str, subject: str, text: str) -> Letter:
    return Letter(to, f"{subject} · Stepwell", text + _END.format(base_url=base_url))
