"""What is used, what may be used, and who pays for it.

    plans         pure: periods, forecasts, allowances, what a subscription gives, stages of a payment that fails
    usage         executions and events by the day; reports of them for Stripe
    standing      what follows for an account: its plan, whether new runs start, who is told what
    read_back     the state of a subscription, from Stripe and from nowhere else
    checkout      what an owner can do: subscribe, change, cancel, set a cap
    webhook       Stripe says that something changed
    entitlements  a plan given by hand

Everything but `checkout` works with Stripe away. Nothing here holds a database connection while it talks to Stripe.
"""
