"""The code of the set-up guide: for every SDK and framework how to install, what to write, how to start.

The samples are files in `templates/samples/`, so that a test can run them and a person can edit them. They are ours:
nothing a user wrote goes through here, which is why their highlighted form may be markup.
"""

import functools
from dataclasses import dataclass

from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_by_name

from app.web.templates import TEMPLATES


@dataclass(frozen=True, slots=True)
class Sample:
    """One way to write an app. `port` is where the started sample listens; `has_dev_switch`: `0` turns dev mode off."""

    key: str
    language: str
    framework: str
    lexer: str
    file: str
    install: str
    start: str
    port: int
    has_dev_switch: bool = False

    @property
    def serve_url(self) -> str:
        """Where the sample's SDK is served on one's own machine."""
        return f"http://127.0.0.1:{self.port}/api/inngest"

    @property
    def code(self) -> str:
        """The program."""
        name = f"{self.key}{self.file[self.file.rindex('.') :]}"
        return (TEMPLATES / "samples" / name).read_text(encoding="utf-8").rstrip("\n")


SAMPLES: dict[str, Sample] = {
    sample.key: sample
    for sample in (
        Sample("ts-node", "TypeScript", "Node.js", "ts", "app.ts", "npm install inngest", "npx tsx --env-file=.env app.ts", 3000, True),
        Sample("ts-express", "TypeScript", "Express", "ts", "app.ts", "npm install inngest express", "npx tsx --env-file=.env app.ts", 3000, True),
        Sample("ts-next", "TypeScript", "Next.js", "ts", "route.ts", "npm install inngest", "npm run dev", 3000, True),
        Sample("py-fastapi", "Python", "FastAPI", "python", "app.py", 'pip install inngest fastapi "uvicorn[standard]"', "uvicorn app:app --port 8000 --env-file .env", 8000),
        Sample("py-flask", "Python", "Flask", "python", "app.py", "pip install inngest flask python-dotenv", "flask --app app run --port 8000", 8000),
        Sample("go", "Go", "net/http", "go", "main.go", "go get github.com/inngest/inngestgo", "set -a && . ./.env && go run .", 3000),
        Sample("stepwell", "Python", "Stepwell SDK", "python", "app.py", 'pip install stepwell "uvicorn[standard]"', "uvicorn app:app --port 3030 --env-file .env", 3030),
    )
}  # fmt: skip
FIRST = "ts-node"


def variables(sample: Sample, base_url: str, *, is_dev: bool, event_key: str, signing_key: str) -> str:
    """The `.env` file of a sample. In dev there are no keys, only the server's address."""
    if is_dev:
        return f"INNGEST_DEV={base_url}\n"
    lines = [f"INNGEST_BASE_URL={base_url}", f"INNGEST_EVENT_KEY={event_key}", f"INNGEST_SIGNING_KEY={signing_key}"]
    if sample.has_dev_switch:
        # The TypeScript SDK takes itself for a development app unless it is told otherwise.
        lines.append("INNGEST_DEV=0")
    return "\n".join(lines) + "\n"


@functools.cache
def highlighted(key: str) -> Markup:
    """The program of a sample as markup with class names, without styles of its own. Measured: 3 ms, once a process."""
    sample = SAMPLES[key]
    html = highlight(sample.code, get_lexer_by_name(sample.lexer), HtmlFormatter(nowrap=True))
    return Markup(html)  # noqa: S704 - our own file, escaped by the highlighter
