"""Every bound of the system, once, with its unit and its reason.

Sizes are bytes, counts are counts, times are `timedelta`. What a plan may change is in `PlanLimits`; the constants
here are the ceilings no plan passes, or facts of the wire. Pages and documentation read these too.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Events (protocol 25).
MAX_EVENT_BYTES: Final = 3 * MIB  #: the ceiling of every plan
DEFAULT_EVENT_BYTES: Final = 512 * KIB  #: what the protocol's reference server allows
MAX_BODY_BYTES: Final = (
    10 * MIB
)  #: one request to the event API, so that one client cannot take the memory of a process
MAX_EVENTS_PER_REQUEST: Final = 5_000  #: protocol 5.1
MAX_EVENT_NAME_BYTES: Final = 512  #: at ingest
MAX_TRIGGER_NAME_CHARS: Final = 255  #: in triggers, shorter on purpose (protocol 8.3)
MAX_EVENT_ID_BYTES: Final = 256  #: it is part of an index key
MAX_META_BYTES: Final = 32 * KIB
MAX_SESSIONS: Final = 5  #: per event
MAX_SESSION_KEY_BYTES: Final = 128
MAX_SESSION_ID_BYTES: Final = 512
MIN_EVENT_TS_MS: Final = 315_532_800_000  #: 1980-01-01T00:00:00Z
MAX_EVENT_TS_MS: Final = 4_102_444_800_000  #: 2100-01-01T00:00:00Z

# Documents: bounds that keep parsing and showing a document cheap.
MAX_JSON_DEPTH: Final = 64
MAX_JSON_VALUES: Final = 100_000
MAX_INTEGER_DIGITS: Final = 40

# Calls and answers.
MAX_CALL_BYTES: Final = 4 * MIB  #: above it events and steps are fetched by the SDK (protocol 10.6)
MAX_OUTPUT_BYTES: Final = 4 * MIB  #: a step's output; its input the same
MAX_RESPONSE_BYTES: Final = 8 * MIB  #: output and input together
MAX_STATE_BYTES: Final = 32 * MIB  #: events, memos and inputs of one run
MAX_ERROR_BYTES: Final = 64 * KIB  #: text of one error; a page must be able to show it
MAX_UPSTREAM_BYTES: Final = 8 * KIB  #: what is kept of an answer that is not an SDK's (protocol 14.4)
MAX_OPS_PER_ANSWER: Final = 1_000  #: protocol 12.4
MAX_STEP_ID_CHARS: Final = 128  #: SHA-1 hex is 40
MAX_STEP_NAME_CHARS: Final = 1_024  #: a display text
MAX_REDIRECTS: Final = 3  #: 307 and 308 within one origin
RESOLVE_TIMEOUT: Final = timedelta(seconds=5)
CONNECT_TIMEOUT: Final = timedelta(seconds=10)
TLS_TIMEOUT: Final = timedelta(seconds=15)
MAX_CALL_TIME: Final = timedelta(hours=2)  #: SDK steps may really run that long (protocol 28, 28)
STREAM_KEEP_ALIVE: Final = timedelta(seconds=5)  #: longest silence of a healthy stream (protocol 15)

# Signatures.
SIGNATURE_WINDOW: Final = timedelta(minutes=5)  #: both directions, as the SDKs have it (protocol 4.3)
SEED_WINDOW: Final = timedelta(hours=24)  #: how long seeded requests are remembered
IDEMPOTENCY_WINDOW: Final = timedelta(hours=24)  #: event ids and idempotency keys

# Runs.
DEFAULT_STEPS_PER_RUN: Final = 1_000
MAX_STEPS_PER_RUN: Final = 10_000
MAX_OPEN_WAITS_PER_RUN: Final = 1_000
MAX_SLEEP: Final = timedelta(days=366)  #: sleeps and the timeouts of waits
DEFAULT_LONG_WAIT: Final = timedelta(days=365)  #: signal, invoke and cancel rules without a timeout
DEFAULT_RETRIES: Final = 4
MAX_RETRIES: Final = 20
MIN_RETRY_DELAY: Final = timedelta(seconds=1)
MAX_RETRY_DELAY: Final = timedelta(hours=24)
MIN_OVERRIDE: Final = timedelta(minutes=1)  #: changes by people that end by themselves
MAX_OVERRIDE: Final = timedelta(days=30)  #: what is to stay longer belongs into the code
MAX_DEFERS_PER_RUN: Final = 20
MAX_DEFER_BYTES: Final = 4 * MIB

# Function settings (protocol 8.2).
MAX_TRIGGERS: Final = 10
MAX_CANCEL_RULES: Final = 5
MAX_CONCURRENCY_RULES: Final = 2
DEFAULT_CONCURRENCY: Final = 1_000  #: where a function sets none
MAX_SLUG_CHARS: Final = 255
MIN_PERIOD: Final = timedelta(seconds=1)
MAX_THROTTLE_PERIOD: Final = timedelta(days=7)
MAX_DEBOUNCE_PERIOD: Final = timedelta(days=7)
MAX_RATE_PERIOD: Final = timedelta(hours=24)
MIN_BATCH_SIZE: Final = 2
MIN_BATCH_WAIT: Final = timedelta(seconds=1)
MAX_BATCH_WAIT: Final = timedelta(minutes=10)
MAX_BATCH_BYTES: Final = 10 * MIB
MIN_CRON_JITTER: Final = timedelta(seconds=1)
MAX_CRON_JITTER: Final = timedelta(minutes=5)
MAX_CRON_CHARS: Final = 255
MAX_PRIORITY_SECONDS: Final = 43_200
MAX_EXPRESSION_BYTES: Final = 4 * KIB  #: refused before parsing


@dataclass(frozen=True, slots=True)
class PlanLimits:
    """What an account may use. None means no bound of the plan's own; the module's ceilings still hold.

    `event_rate` and `event_burst` are events per second and environment; `api_rate` the requests of one key per minute; `backlog` the waiting items of an environment
    above which new runs start later (nothing is dropped); `concurrency` the calls in flight of the account.
    `executions` (runs and steps) and `events` are what a month includes: past it an account with `stops_at_allowance`
    starts no new runs, others pay for the rest.
    """

    name: str
    event_bytes: int
    event_rate: int | None
    event_burst: int | None
    api_rate: int | None
    backlog: int | None
    concurrency: int | None
    steps_per_run: int
    max_sleep: timedelta
    batch_size: int
    functions_per_app: int
    schedules: int | None
    call_time: timedelta
    retention: timedelta
    executions: int | None = None
    events: int | None = None
    stops_at_allowance: bool = False


PLANS: Final[dict[str, PlanLimits]] = {
    # On one's own machine the machine is the limit.
    "self_hosted": PlanLimits(
        name="self_hosted",
        event_bytes=MAX_EVENT_BYTES,
        event_rate=None,
        event_burst=None,
        api_rate=None,
        backlog=None,
        concurrency=None,
        steps_per_run=DEFAULT_STEPS_PER_RUN,
        max_sleep=MAX_SLEEP,
        batch_size=500,
        functions_per_app=1_000,
        schedules=None,
        call_time=MAX_CALL_TIME,
        retention=timedelta(days=30),
    ),
    "free": PlanLimits(
        name="free",
        event_bytes=DEFAULT_EVENT_BYTES,
        event_rate=100,
        event_burst=200,
        api_rate=600,
        backlog=100_000,
        concurrency=5,
        steps_per_run=DEFAULT_STEPS_PER_RUN,
        max_sleep=timedelta(days=7),
        batch_size=5,
        functions_per_app=100,
        schedules=100,
        call_time=MAX_CALL_TIME,
        retention=timedelta(days=1),
        executions=50_000,
        events=500_000,
        stops_at_allowance=True,
    ),
    "pro": PlanLimits(
        name="pro",
        event_bytes=MAX_EVENT_BYTES,
        event_rate=1_000,
        event_burst=2_000,
        api_rate=600,
        backlog=1_000_000,
        concurrency=100,
        steps_per_run=MAX_STEPS_PER_RUN,
        max_sleep=MAX_SLEEP,
        batch_size=100,
        functions_per_app=500,
        schedules=None,
        call_time=MAX_CALL_TIME,
        retention=timedelta(days=7),
        executions=1_000_000,
        events=5_000_000,
    ),
    "business": PlanLimits(
        name="business",
        event_bytes=MAX_EVENT_BYTES,
        event_rate=5_000,
        event_burst=10_000,
        api_rate=1_200,
        backlog=5_000_000,
        concurrency=500,
        steps_per_run=MAX_STEPS_PER_RUN,
        max_sleep=MAX_SLEEP,
        batch_size=500,
        functions_per_app=1_000,
        schedules=None,
        call_time=MAX_CALL_TIME,
        retention=timedelta(days=30),
        executions=10_000_000,
        events=50_000_000,
    ),
}


def plan_of(name: str | None) -> PlanLimits:
    """The limits of a plan; a name nobody knows any more has those of one's own machine, so that runs go on."""
    return PLANS.get(name or "", PLANS["self_hosted"])
