"""The door to the mail server: one letter at a time over SMTP, from the standard library, in a thread of its own.

`smtps://` speaks TLS from the first byte; `smtp://` turns to TLS where the server offers it. A password is sent over
TLS only, or to this very machine.
"""

import asyncio
import smtplib
import ssl
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from ipaddress import ip_address
from urllib.parse import unquote, urlsplit

from app.domain.errors import Outside

#: Seconds for connecting and for every answer of the server.
_PATIENCE_S = 20.0
_PORTS = {"smtp": 587, "smtps": 465}


class MailFailed(Outside):
    """The mail server did not take the letter."""


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail to one person, as plain text."""

    recipient: str
    subject: str
    text: str


class Post:
    """Sends letters through one mail server. Every letter has its own connection: there are few of them."""

    def __init__(self, url: str, sender: str) -> None:
        """`url` is `smtp[s]://[user:password@]host[:port]`; `sender` is an address, with or without a name."""
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "smtps"
        self._host = parts.hostname or "localhost"
        self._port = parts.port or _PORTS[parts.scheme]
        self._user = unquote(parts.username or "")
        self._password = unquote(parts.password or "")
        self._sender = sender

    async def send(self, letter: Letter) -> None:
        """Hand a letter over. Raises `MailFailed`, which tells whether to try again."""
        try:
            await asyncio.to_thread(self._send, letter)
        except smtplib.SMTPResponseException as error:
            raise _refused(error.smtp_code) from error
        except smtplib.SMTPRecipientsRefused as error:
            raise _refused(*(code for code, _ in error.recipients.values())) from error
        except ValueError as error:
            # A header that cannot be written: the address holds what no address may.
            raise MailFailed(retryable=False, code="mail_refused") from error
        except (OSError, smtplib.SMTPException) as error:
            raise MailFailed(retryable=True, code="mail_unreachable") from error

    def _send(self, letter: Letter) -> None:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, letter.recipient, letter.subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=self._sender_domain())
        # Answering machines stay quiet (RFC 3834).
        message["Auto-Submitted"] = "auto-generated"
        message.set_content(letter.text)
        context = ssl.create_default_context()
        opened = (
            smtplib.SMTP_SSL(self._host, self._port, timeout=_PATIENCE_S, context=context)
            if self._is_tls
            else smtplib.SMTP(self._host, self._port, timeout=_PATIENCE_S)
        )
        with opened as server:
            server.ehlo()
            is_safe = self._is_tls
            if not is_safe and server.has_extn("starttls"):
                server.starttls(context=context)
                server.ehlo()
                is_safe = True
            if self._user:
                if not is_safe and not _is_this_machine(self._host):
                    raise smtplib.SMTPNotSupportedError("no TLS, and a password to send")
                server.login(self._user, self._password)
            server.send_message(message)

    def _sender_domain(self) -> str:
        return self._sender.rpartition("@")[2].strip("> ") or "localhost"


def _refused(*codes: int) -> MailFailed:
    """Answers from 500 on are for good (RFC 5321, 4.2.1), wrong passwords excepted: those are mended in the settings."""
    is_final = all(code >= 500 and code not in {530, 534, 535, 538} for code in codes)
    return MailFailed(retryable=not is_final, code="mail_refused")


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
