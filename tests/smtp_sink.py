"""A mail server that keeps what it is given: enough of SMTP (RFC 5321) for one client at a time, or many."""

import asyncio
import email
import email.policy
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage


@dataclass(slots=True)
class Sink:
    """Where letters arrive. `answers` maps a recipient to what the server says instead of taking them."""

    port: int = 0
    letters: list[EmailMessage] = field(default_factory=list)
    answers: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        """What STEPWELL_SMTP_URL would be."""
        return f"smtp://127.0.0.1:{self.port}"

    def text_to(self, recipient: str) -> str:
        """The text of the newest letter to somebody."""
        found = next(letter for letter in reversed(self.letters) if letter["To"] == recipient)
        return str(found.get_content())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk to one client until it says QUIT."""

        async def say(line: str) -> None:
            writer.write(f"{line}\r\n".encode())
            await writer.drain()

        await say("220 sink")
        while line := (await reader.readline()).decode().strip():
            self.said.append(line)
            word = line.partition(" ")[0].upper()
            if word == "DATA":
                await say("354 go on")
                data = await reader.readuntil(b"\r\n.\r\n")
                # A line that begins with a dot travels with one more (RFC 5321, 4.5.2).
                self.letters.append(
                    email.message_from_bytes(data[:-3].replace(b"\r\n..", b"\r\n."), policy=email.policy.SMTP)
                )
                await say("250 kept")
                self.arrived.set()
            elif word == "RCPT":
                recipient = line.partition("<")[2].partition(">")[0]
                await say(self.answers.get(recipient, "250 fine"))
            elif word == "AUTH":
                await say(self.answers.get("AUTH", "235 welcome"))
            elif word == "EHLO":
                await say("250-sink")
                await say("250 AUTH PLAIN")
            elif word == "QUIT":
                await say("221 bye")
                break
            else:
                await say("250 fine")
        writer.close()


@asynccontextmanager
async def running_sink() -> AsyncIterator[Sink]:
    """Run a mail server on a free port of this machine."""
    sink = Sink()
    server = await asyncio.start_server(sink.serve, "127.0.0.1", 0)
    sink.port = server.sockets[0].getsockname()[1]
    async with server:
        yield sink
