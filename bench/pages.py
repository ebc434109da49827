"""The part that looks at pages as a person does: signed in, one after the other, with all that the other parts left behind."""

import http.client
import re
import time
from urllib.parse import urlencode

from bench.load import Address
from bench.measures import Figures, percentiles
from bench.product import EMAIL, PASSWORD, Server

_RUNS = "/env/production/runs"
#: What is loaded, by the name of the figure; the run's page is that of the newest run.
PAGES = {
    "overview": "/env/production",
    "runs": _RUNS,
    "failed_runs": f"{_RUNS}?status=failed",
    "events": "/env/production/events",
    "functions": "/env/production/functions",
}


def pages(server: Server, loads: int) -> Figures:
    """Milliseconds (p50, p95) until a page has arrived, and its kilobytes. Raises RuntimeError when the login is refused."""
    address = Address.of(server.url)
    connection = http.client.HTTPConnection(address.host, address.port, timeout=30)
    figures: Figures = {}
    try:
        cookie = _sign_in(connection)
        listed = _get(connection, _RUNS, cookie)
        found = re.search(rf'href="({_RUNS}/[0-9A-Z]{{26}})', listed.decode())
        wanted = PAGES | ({"run": found[1]} if found else {})
        for name, path in wanted.items():
            taken, body = [], b""
            for _ in range(loads + 1):
                began = time.monotonic()
                body = _get(connection, path, cookie)
                taken.append((time.monotonic() - began) * 1000)
            # The first fills caches and is not counted.
            figures |= percentiles(f"page_{name}_ms", taken[1:], (50, 95)) | {f"page_{name}_kb": len(body) / 1000}
    finally:
        connection.close()
    return figures


def _sign_in(connection: http.client.HTTPConnection) -> str:
    form = urlencode({"email": EMAIL, "password": PASSWORD, "next": "/"})
    connection.request("POST", "/login", form, {"content-type": "application/x-www-form-urlencoded"})
    answer = connection.getresponse()
    answer.read()
    cookie = answer.getheader("set-cookie")
    if answer.status != 303 or not cookie:
        raise RuntimeError(f"the login was answered with {answer.status}")
    return cookie.partition(";")[0]


def _get(connection: http.client.HTTPConnection, path: str, cookie: str) -> bytes:
    connection.request("GET", path, headers={"cookie": cookie, "accept": "text/html"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise RuntimeError(f"{path} was answered with {answer.status}")
    return body
