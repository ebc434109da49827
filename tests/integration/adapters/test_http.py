"""The door to tenants' apps against real sockets that behave as badly as they can (F12, reliability-security 4 C)."""

import asyncio
import contextlib
import datetime as dt
import gzip
import ipaddress
import ssl
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.adapters import connections, http
from app.adapters.answer_room import SMALL, AnswerRoom, Taken
from app.adapters.http import MESSAGES, Answer, CallFailed, HttpCaller, parse_url
from app.domain.addresses import Gate
from app.domain.limits import MIB

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(60)]

Behaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[bool]]
"""Called with each whole request; answers on the writer and says whether to read another one."""


class Server:
    """A raw loopback server: counts connections and keeps the requests it was sent."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.requests: list[bytes] = []
        self.connections = 0
        self.gone = asyncio.Event()
        self.port = 0
        self.scheme = "http"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next((int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0)
                request = head + await reader.readexactly(length)
                self.requests.append(request)
                if not await self.behaviour(request, writer):
                    break
            if not writer.is_closing() and writer.can_write_eof():
                # Close our half and wait for theirs: then it is known that the other side has noticed.
                writer.write_eof()
                await reader.read()
        self.gone.set()
        writer.close()

    def url(self, path: str = "/api/inngest?fnId=a&stepId=step", host: str = "127.0.0.1") -> str:
        return f"{self.scheme}://{host}:{self.port}{path}"


@asynccontextmanager
async def listening(behaviour: Behaviour, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(behaviour)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    server.scheme = "https" if tls else "http"
    try:
        yield server
    finally:
        listener.close()


@asynccontextmanager
async def calling(
    gate: Gate | None = None, tls: ssl.SSLContext | None = None, room: AnswerRoom | None = None
) -> AsyncIterator[HttpCaller]:
    caller = HttpCaller(gate or Gate(allow_private=True), tls=tls, room=room)
    try:
        yield caller
    finally:
        await caller.close()


async def post(caller: HttpCaller, url: str, *, timeout_s: float = 20, max_body: int = 100_000) -> Answer:
    return await caller.call(
        "POST",
        url,
        headers={"content-type": "application/json"},
        body=b'{"a":1}',
        timeout_s=timeout_s,
        max_body=max_body,
    )


async def failure(caller: HttpCaller, url: str, *, timeout_s: float = 20, max_body: int = 100_000) -> CallFailed:
    with pytest.raises(CallFailed) as caught:
        await post(caller, url, timeout_s=timeout_s, max_body=max_body)
    assert (caught.value.message, caught.value.retryable) == MESSAGES[caught.value.kind]
    return caught.value


def answer(body: bytes = b"[]", status: bytes = b"206 Partial Content", more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %s\r\nX-Inngest-SDK: t\r\n%scontent-length: %d\r\n\r\n%s" % (status, more, len(body), body)


def always(raw: bytes, *, keep: bool = True) -> Behaviour:
    async def behave(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(raw)
        await writer.drain()
        return keep

    return behave


async def test_an_answer_comes_back_whole_with_lower_case_header_names_and_the_request_holds_nothing_of_ours() -> None:
    async with listening(always(answer(b'[{"op":"StepRun"}]'))) as server, calling() as caller:
        got = await post(caller, server.url())
        assert (got.status, got.body, got.headers["x-inngest-sdk"]) == (206, b'[{"op":"StepRun"}]', "t")
        assert got.millis > 0
        head, _, body = server.requests[0].partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        assert lines[0] == b"POST /api/inngest?fnId=a&stepId=step HTTP/1.1"
        assert body == b'{"a":1}'
        names = {line.split(b":")[0].lower() for line in lines[1:]}
        assert names == {b"host", b"content-type", b"content-length", b"accept-encoding"}


async def test_connections_are_kept_and_used_again() -> None:
    async with listening(always(answer())) as server, calling() as caller:
        for _ in range(5):
            await post(caller, server.url())
        assert server.connections == 1


async def test_a_chunked_answer_with_spaces_as_keep_alive_is_read_to_its_end() -> None:
    async def drip(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 201 Created\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in (b" ", b" ", b'{"status":200}'):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await writer.drain()
        writer.write(b"0\r\n\r\n")
        return True

    async with listening(drip) as server, calling() as caller:
        got = await post(caller, server.url())
        assert (got.status, got.body) == (201, b'  {"status":200}')


async def test_an_error_status_is_an_answer_and_not_a_failure() -> None:
    async with listening(always(answer(b"oops", b"500 Internal Server Error"))) as server, calling() as caller:
        assert (await post(caller, server.url())).status == 500


async def test_cookies_are_not_kept() -> None:
    async with listening(always(answer(more=b"set-cookie: a=b\r\n"))) as server, calling() as caller:
        await post(caller, server.url(host="localhost"))
        await post(caller, server.url(host="localhost"))
        assert b"cookie" not in server.requests[1].lower()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "0x7f000001", "0.0.0.0", "[::ffff:127.0.0.1]"])
async def test_no_spelling_of_a_private_address_gets_a_connection_where_private_apps_are_refused(
    host: str, trusted: tuple[ssl.SSLContext, ssl.SSLContext]
) -> None:
    async with (
        listening(always(answer()), trusted[0]) as server,
        calling(Gate(allow_private=False), trusted[1]) as caller,
    ):
        refused = await failure(caller, server.url(host=host))
        assert (refused.kind, refused.retryable) == ("app_address_blocked", False)
        assert server.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.1]"])
async def test_no_spelling_of_our_own_service_gets_a_connection_even_where_private_apps_are_allowed(host: str) -> None:
    async with listening(always(answer())) as server:
        own = frozenset({("127.0.0.1", server.port)})
        async with calling(Gate(allow_private=True, own_addresses=own)) as caller:
            assert (await failure(caller, server.url(host=host))).kind == "app_address_blocked"
            assert server.connections == 0


async def test_metadata_is_refused_even_where_private_apps_are_allowed() -> None:
    async with calling() as caller:
        for url in (
            "http://169.254.169.254/latest",
            "http://0xa9fea9fe/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
        ):
            assert (await failure(caller, url)).kind == "app_address_blocked"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://app.example.com/",
        "file:///etc/passwd",
        "//app.example.com/",
        "/api/inngest",
        "",
        "https://",
        "https://user@app.example.com/",
        "https://user:secret@app.example.com/",
        "https://@app.example.com/",
        "https://app.example.com/#fragment",
        "https://app.example.com/#",
        "https://app.example.com:22/",
        "https://app.example.com:0/",
        "https://app.example.com:99999/",
        "https://app.example.com:x/",
        "https://app..example.com/",
        "https://-app.example.com/",
        "https://app.example.com\\@evil.example/",
        "https://app.example.com/a b",
        "https://app.example.com/\r\nhost: evil",
        "https://app.example.com/\t",
        "https://2130706433/",
        "https://0177.0.0.1/",
        "https://127.1/",
        "https://[::1/",
        "https://[fe80::1%25eth0]/",
        "https://" + "a" * 300 + ".example/",
        "https://app.example.com/" + "a" * 5000,
        "javascript:alert(1)",
    ],
)
async def test_a_url_that_is_not_plainly_a_web_address_is_refused_before_anything_is_connected(url: str) -> None:
    async with calling() as caller:
        assert (await failure(caller, url)).kind == "app_url_invalid"


async def test_plain_http_is_refused_unless_private_apps_are_allowed() -> None:
    assert parse_url("http://app.example.com/", allow_plain=True).scheme == "http"
    with pytest.raises(CallFailed):
        parse_url("http://app.example.com/", allow_plain=False)
    assert parse_url("https://b\u00fccher.example/x", allow_plain=False).raw_host == "xn--bcher-kva.example"


async def test_a_closed_port_a_reset_a_silent_close_and_garbage_are_told_in_the_same_words() -> None:
    async def reset(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.transport.abort()
        return False

    async with calling() as caller:
        async with listening(always(b"")) as closed:
            pass
        seen = [await failure(caller, closed.url())]
        for behaviour in (reset, always(b"", keep=False), always(b"SSH-2.0-OpenSSH_9\r\n", keep=False)):
            async with listening(behaviour) as server:
                seen.append(await failure(caller, server.url()))
                assert len(server.requests) == 1
        seen.append(await failure(caller, "http://no-such-host.invalid/"))
    assert {(f.kind, f.message, f.retryable) for f in seen} == {("app_unreachable", *MESSAGES["app_unreachable"])}


async def test_an_answer_cut_off_in_the_middle_is_unreachable_and_not_taken_for_an_answer() -> None:
    async with listening(always(answer(b"x" * 50)[:-10], keep=False)) as server, calling() as caller:
        assert (await failure(caller, server.url())).kind == "app_unreachable"


async def test_a_request_is_not_sent_twice_when_a_kept_connection_dies_after_it_was_written() -> None:
    async def once(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        if len(server.requests) > 1:
            return False
        writer.write(answer())
        return True

    async with listening(once) as server, calling() as caller:
        await post(caller, server.url())
        assert (await failure(caller, server.url())).kind == "app_unreachable"
        assert len(server.requests) == 2


@pytest.mark.parametrize(("method", "tries"), [("PUT", 2), ("GET", 2), ("POST", 1)])
async def test_only_what_may_be_repeated_is_sent_again_when_a_kept_connection_is_gone(method: str, tries: int) -> None:
    async def forgets(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        if len(server.requests) == 2:
            writer.transport.abort()
            return False
        writer.write(answer())
        return True

    async with listening(forgets) as server, calling() as caller:
        await post(caller, server.url())
        asked = caller.call(method, server.url(), headers={}, body=b"", timeout_s=20)
        if tries == 1:
            with pytest.raises(CallFailed):
                await asked
        else:
            assert (await asked).body == b"[]"
        assert len(server.requests) == 1 + tries


async def test_an_app_that_slams_the_door_is_unreachable() -> None:
    def slam(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    listener = await asyncio.start_server(slam, "127.0.0.1", 0)
    async with calling() as caller:
        url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/"
        for _ in range(20):
            assert (await failure(caller, url)).kind == "app_unreachable"
    listener.close()


async def test_an_answer_without_a_length_ends_with_its_connection_and_one_that_says_go_on_is_none() -> None:
    raw = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\nx-a: b\r\n\r\nto the end"
    async with listening(always(raw, keep=False)) as server, calling() as caller:
        got = await post(caller, server.url())
        assert (got.status, got.body, dict(got.headers)) == (200, b"to the end", {"x-a": "b"})
        await post(caller, server.url())
        assert server.connections == 2


async def test_an_answer_to_head_and_one_that_may_have_no_body_end_with_their_headers() -> None:
    async with listening(always(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n")) as server, calling() as caller:
        got = await caller.call("HEAD", server.url(), headers={}, body=b"", timeout_s=20)
        assert (got.status, got.body, got.headers["content-length"]) == (200, b"", "5")
    async with listening(always(b"HTTP/1.1 204 No Content\r\n\r\n")) as server, calling() as caller:
        assert [(await post(caller, server.url())).status for _ in range(2)] == [204, 204]
        assert server.connections == 1


@pytest.mark.parametrize(
    "raw",
    [
        answer() + answer(b"[2]"),
        answer() + b"more",
        answer(more=b"connection: close\r\n"),
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n[]",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
    ],
)
async def test_a_connection_is_not_used_again_when_an_answer_says_more_than_it_should_or_that_it_is_the_last(
    raw: bytes,
) -> None:
    async with listening(always(raw)) as server, calling() as caller:
        first, second = await post(caller, server.url()), await post(caller, server.url())
        assert first.body == second.body == (b"" if first.status == 101 else b"[]")
        assert server.connections == 2


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
async def test_an_answer_with_two_meanings_is_none(raw: bytes) -> None:
    async with listening(always(raw)) as server, calling() as caller:
        assert (await failure(caller, server.url())).kind == "app_unreachable"


@pytest.mark.parametrize(
    "start", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\nx: "]
)
async def test_a_header_or_trailer_without_end_is_unreachable_and_bounded(start: bytes) -> None:
    sent = 0

    async def endless(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal sent
        writer.write(start)
        while not writer.is_closing():
            writer.write(b"y" * 4000)
            sent += 4000
            await writer.drain()
        return False

    async with listening(endless) as server, calling() as caller:
        assert (await failure(caller, server.url())).kind == "app_unreachable"
        await asyncio.wait_for(server.gone.wait(), 5)
        assert sent < 50_000_000


async def test_a_header_that_holds_the_end_of_a_line_is_never_sent() -> None:
    async with listening(always(answer())) as server, calling() as caller:
        for value in ("a\r\nx: y", "a\nb", "a\rb", "a\0b"):
            with pytest.raises(ValueError, match="end of a line"):
                await caller.call("POST", server.url(), headers={"x-a": value}, body=b"", timeout_s=20)
        assert server.connections == 0


async def test_no_more_connections_than_allowed_lead_to_one_place_and_everybody_has_a_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "PER_HOST", 3)
    held = asyncio.Event()

    async def holds(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        await held.wait()
        writer.write(answer())
        return True

    async with listening(holds) as server, calling() as caller:
        calls = [asyncio.create_task(post(caller, server.url())) for _ in range(10)]
        while len(server.requests) < 3:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.01)
        calls[5].cancel()
        held.set()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(each, Answer) for each in answers].count(True) == 9
        assert server.connections == 3


async def test_connections_that_nobody_uses_are_closed_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "IDLE_S", 0.05)
    monkeypatch.setattr(connections, "_SWEEP_S", 0.05)
    async with listening(always(answer())) as server, calling() as caller:
        await post(caller, server.url())
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_calls_in_flight_fail_when_the_caller_is_closed() -> None:
    arrived = asyncio.Event()

    async def hang(_request: bytes, _writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        return True

    async with listening(hang) as server, calling() as caller:
        waiting = asyncio.create_task(failure(caller, server.url()))
        await arrived.wait()
        await caller.close()
        assert (await waiting).kind == "app_unreachable"


async def test_a_kept_connection_that_the_app_closed_in_the_meantime_is_replaced_without_anyone_noticing() -> None:
    async with listening(always(answer(), keep=False)) as server, calling() as caller:
        for _ in range(3):
            await post(caller, server.url())
            await server.gone.wait()
            server.gone.clear()
        assert (server.connections, len(server.requests)) == (3, 3)


async def test_an_app_that_hangs_is_given_up_at_the_limit_of_the_call() -> None:
    async def hang(_request: bytes, _writer: asyncio.StreamWriter) -> bool:
        return True

    async with listening(hang) as server, calling() as caller:
        slow = await failure(caller, server.url(), timeout_s=0.2)
        assert (slow.kind, slow.retryable) == ("app_timeout", True)
        await asyncio.wait_for(server.gone.wait(), 5)


async def test_an_app_that_drips_bytes_for_ever_is_given_up_at_the_limit_of_the_call() -> None:
    async def drip(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1\r\n \r\n")
            await writer.drain()
            await asyncio.sleep(0.02)
        return False

    async with listening(drip) as server, calling() as caller:
        assert (await failure(caller, server.url(), timeout_s=0.3)).kind == "app_timeout"


async def test_an_endless_body_is_cut_while_reading_and_the_connection_closed() -> None:
    sent = 0

    async def endless(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            sent += 65536
            await writer.drain()
        return False

    async with listening(endless) as server, calling() as caller:
        huge = await failure(caller, server.url(), max_body=1_000_000)
        assert (huge.kind, huge.retryable) == ("app_response_too_large", False)
        await asyncio.wait_for(server.gone.wait(), 5)
        assert sent < 50_000_000


async def test_a_body_that_announces_too_much_is_refused_without_reading_it() -> None:
    for length in (b"100001", b"9" * 18):
        raw = b"HTTP/1.1 200 OK\r\ncontent-length: %s\r\n\r\nx" % length
        async with listening(always(raw)) as server, calling() as caller:
            assert (await failure(caller, server.url())).kind == "app_response_too_large"


async def test_a_body_of_exactly_the_limit_is_accepted_and_one_byte_more_is_not() -> None:
    for size, fits in ((100_000, True), (100_001, False)):
        chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (size, b"x" * size)
        for raw in (
            chunked,
            answer(b"x" * size),
            answer(gzip.compress(b"x" * size), more=b"content-encoding: gzip\r\n"),
        ):
            async with listening(always(raw)) as server, calling() as caller:
                if fits:
                    assert len((await post(caller, server.url())).body) == size
                else:
                    assert (await failure(caller, server.url())).kind == "app_response_too_large"


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw deflate"])
async def test_a_compressed_answer_is_inflated_and_a_bomb_is_stopped_at_the_limit(coding: str) -> None:
    def squeeze(plain: bytes) -> bytes:
        if coding == "gzip":
            return gzip.compress(plain)
        squeezed = zlib.compress(plain)
        return squeezed if coding == "deflate" else squeezed[2:-4]

    header = b"content-encoding: %s\r\n" % coding.rsplit(maxsplit=1)[-1].encode()
    async with listening(always(answer(squeeze(b'{"a":1}' * 9), more=header))) as server, calling() as caller:
        assert (await post(caller, server.url())).body == b'{"a":1}' * 9
    bomb = squeeze(b"\x00" * 50_000_000)
    assert len(bomb) < 100_000
    async with listening(always(answer(bomb, more=header))) as server, calling() as caller:
        assert (await failure(caller, server.url())).kind == "app_response_too_large"


async def test_many_large_answers_at_once_stay_within_the_room_and_all_come() -> None:
    most = 0

    class Watched(AnswerRoom):
        def _take(self, target: str, octets: int) -> None:
            nonlocal most
            super()._take(target, octets)
            most = max(most, self.used)

    room = Watched(3 * MIB)
    async with listening(always(answer(b"x" * MIB))) as server, calling(room=room) as caller:
        answers = await asyncio.gather(*(post(caller, server.url(), max_body=2 * MIB) for _ in range(12)))
    assert [len(each.body) for each in answers] == [MIB] * 12
    assert (most, room.used, room.waiting) == (MIB, 0, 0)


async def test_an_answer_that_waits_for_room_is_not_read_and_a_small_one_passes_it() -> None:
    room = AnswerRoom(MIB)
    taken = Taken()
    await room.take("somebody else", MIB, taken)
    async with (
        listening(always(answer(b"x" * 20 * SMALL))) as large,
        listening(always(answer(b"{}"))) as small,
        calling(room=room) as caller,
    ):
        waiting = asyncio.create_task(post(caller, large.url(), max_body=MIB * 2))
        while not room.waiting:  # noqa: ASYNC110 - the room tells nobody who waits
            await asyncio.sleep(0.01)
        assert (await post(caller, small.url())).body == b"{}"
        assert not waiting.done()
        taken.give_back()
        assert len((await waiting).body) == 20 * SMALL
    assert room.used == 0


async def test_a_large_answer_that_drips_gives_its_room_up_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LARGE_S", 0.2)
    room = AnswerRoom(MIB)

    async def drips(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 2 * SMALL)
        while not writer.is_closing():
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)
        return False

    async with listening(drips) as server, calling(room=room) as caller:
        assert (await failure(caller, server.url(), max_body=MIB)).kind == "app_timeout"
    assert room.used == 0


async def test_a_small_packed_answer_takes_room_for_what_it_becomes() -> None:
    room = AnswerRoom(MIB)
    packed = gzip.compress(b"x" * MIB)
    assert len(packed) < SMALL
    taken = Taken()
    await room.take("somebody else", MIB, taken)
    raw = answer(packed, more=b"content-encoding: gzip\r\n")
    async with listening(always(raw)) as server, calling(room=room) as caller:
        waiting = asyncio.create_task(post(caller, server.url(), max_body=MIB))
        while not room.waiting:  # noqa: ASYNC110 - the room tells nobody who waits
            await asyncio.sleep(0.01)
        taken.give_back()
        assert len((await waiting).body) == MIB
    assert room.used == 0


async def test_headers_without_end_are_unreachable_and_bounded() -> None:
    async def endless(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while not writer.is_closing():
            writer.write(b"x-a: " + b"y" * 4000 + b"\r\n")
            await writer.drain()
        return False

    async with listening(endless) as server, calling() as caller:
        assert (await failure(caller, server.url())).kind == "app_unreachable"


@pytest.mark.parametrize("status", [b"307 Temporary Redirect", b"308 Permanent Redirect"])
async def test_a_redirect_to_the_same_origin_repeats_method_and_body_up_to_three_times(status: bytes) -> None:
    async def hop(request: bytes, writer: asyncio.StreamWriter) -> bool:
        path = request.split(b" ", 2)[1]
        hops = int(path[1:])
        writer.write(answer(b"there") if hops == 0 else answer(b"", status, b"location: /%d\r\n" % (hops - 1)))
        return True

    async with listening(hop) as server, calling() as caller:
        assert (await post(caller, server.url("/3"))).body == b"there"
        assert [r.partition(b"\r\n\r\n")[2] for r in server.requests] == [b'{"a":1}'] * 4
        assert {r.split(b" ")[0] for r in server.requests} == {b"POST"}
        server.requests.clear()
        assert (await failure(caller, server.url("/4"))).kind == "app_redirect_blocked"
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (b"301 Moved", b"/x"),
        (b"302 Found", b"/x"),
        (b"303 See Other", b"/x"),
        (b"304 Not Modified", b"/x"),
        (b"307 Temporary Redirect", b""),
        (b"307 Temporary Redirect", b"http://localhost:{port}/x"),
        (b"307 Temporary Redirect", b"https://127.0.0.1:{port}/x"),
        (b"308 Permanent Redirect", b"http://127.0.0.1:1/x"),
        (b"308 Permanent Redirect", b"http://u:p@127.0.0.1:{port}/x"),
        (b"308 Permanent Redirect", b"//169.254.169.254/x"),
        (b"308 Permanent Redirect", b"http://[broken"),
        (b"308 Permanent Redirect", b"file:///etc/passwd"),
    ],
)
async def test_any_other_redirect_is_not_followed(status: bytes, location: bytes) -> None:
    async def redirect(_request: bytes, writer: asyncio.StreamWriter) -> bool:
        where = location.replace(b"{port}", str(server.port).encode())
        writer.write(answer(b"", status, b"location: %s\r\n" % where if where else b""))
        return True

    async with listening(redirect) as server, calling() as caller:
        blocked = await failure(caller, server.url())
        assert (blocked.kind, blocked.retryable) == ("app_redirect_blocked", False)
        assert len(server.requests) == 1


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's context for `localhost` and 127.0.0.1, and a client's that trusts it and nothing else."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = _certificate(folder, "localhost")
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names: list[x509.GeneralName] = [x509.DNSName(name)]
    if name == "localhost":
        names.append(x509.IPAddress(ipaddress.ip_address("127.0.0.1")))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


async def test_an_app_with_a_trusted_certificate_is_called_over_tls(
    trusted: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with listening(always(answer()), trusted[0]) as server, calling(tls=trusted[1]) as caller:
        assert (await post(caller, server.url(host="localhost"))).status == 206


async def test_a_certificate_that_is_unknown_or_for_another_name_and_a_plain_server_fail_as_tls(
    trusted: tuple[ssl.SSLContext, ssl.SSLContext], tmp_path: Path
) -> None:
    async with listening(always(answer()), trusted[0]) as server, calling() as caller:
        assert (await failure(caller, server.url(host="localhost"))).kind == "app_tls_failed"
    certificate, key = _certificate(tmp_path, "other.example")
    wrong = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    wrong.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    async with listening(always(answer()), wrong) as server, calling(tls=trusting) as caller:
        assert (await failure(caller, server.url(host="localhost"))).kind == "app_tls_failed"
    listener = await asyncio.start_server(_talks_plainly, "127.0.0.1", 0)
    async with calling(tls=trusted[1]) as caller:
        port = listener.sockets[0].getsockname()[1]
        assert (await failure(caller, f"https://localhost:{port}/")).kind == "app_tls_failed"
    listener.close()


async def _talks_plainly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(100)
    writer.write(answer())
    writer.close()


async def test_a_cancelled_call_closes_its_connection() -> None:
    arrived = asyncio.Event()

    async def hang(_request: bytes, _writer: asyncio.StreamWriter) -> bool:
        arrived.set()
        return True

    async with listening(hang) as server, calling() as caller:
        task = asyncio.create_task(post(caller, server.url()))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(server.gone.wait(), 5)
