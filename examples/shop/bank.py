"""A pretended payment provider. It is too busy for the first two requests of each order, then takes the money.

Like a real provider it remembers an order it has charged and, asked again, gives the same charge instead of a second one.
What it remembers is on disk, so restarting the shop does not make it forget.
"""

from . import ledger

#: How many requests of each order are turned away, and how long the shop is asked to wait, in seconds.
REFUSALS = 2
RETRY_AFTER_S = 2


class BankBusyError(Exception):
    """The provider takes no requests now; try again after `retry_after_s` seconds."""

    def __init__(self, retry_after_s: int) -> None:
        super().__init__(f"The bank is busy, try again in {retry_after_s} seconds")
        self.retry_after_s = retry_after_s


def charge(order_id: str, cents: int, attempt: int) -> str:
    """Take the money and give the charge's id; BankBusyError while the provider is busy."""
    step = "charge-payment"
    charge_id = f"ch_{order_id}"
    with ledger.locked() as file:
        before = [line for line in ledger.lines(order_id) if line["step"] == step]
        if any(line["outcome"] == "done" for line in before):
            ledger.append(file, order_id, step, "repeated", attempt=attempt, charge_id=charge_id)
        elif len(before) < REFUSALS:
            ledger.append(file, order_id, step, "refused", attempt=attempt)
            raise BankBusyError(RETRY_AFTER_S)
        else:
            ledger.append(file, order_id, step, "done", attempt=attempt, charge_id=charge_id, cents=cents)
    return charge_id
