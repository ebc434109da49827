"""Tells a worker that the outbox has something in it. A hint only: the worker looks by itself every few seconds."""

import asyncio

from app.adapters.arq import JobName, enqueue
from app.web.site import Site

_SENT: set["asyncio.Task[bool]"] = set()


def nudge_post(site: Site) -> None:
    """Ask for the post to be taken away, and do not wait: Redis may be away and slow to say so."""
    if not site.sends_mail:
        return
    task = asyncio.create_task(enqueue(site.jobs, JobName.MAIL))
    _SENT.add(task)
    task.add_done_callback(_SENT.discard)
