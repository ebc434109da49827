"""Stack traces as lines, each marked as the tenant's code or a library's, for Python and JavaScript. Pure."""

import re
from dataclasses import dataclass

#: Lines drawn; a recursion of ten thousand frames says nothing more after these.
MOST_LINES = 60
_LIBRARY = re.compile(
    r"site-packages|dist-packages|node_modules|node:internal|[\\/]lib[\\/]python\d|<frozen |\(internal/|webpack-internal"
)
_FRAME = re.compile(r"^\s*(at |File \"|.+:\d+)")


@dataclass(frozen=True, slots=True)
class Line:
    """One line; `kind`: own (the tenant's frame), library or text. `is_first` marks the own frame to look at."""

    text: str
    kind: str
    is_first: bool = False


def lines(stack: str | None) -> tuple[Line, ...]:
    """The lines of a stack. In Python's order the own frame nearest the error is the last, in JavaScript's the first."""
    if not stack:
        return ()
    raw = [text.rstrip() for text in stack.splitlines() if text.strip()]
    is_python = any(text.startswith("Traceback") or text.lstrip().startswith('File "') for text in raw)
    if len(raw) > MOST_LINES:
        raw = [*raw[: MOST_LINES // 2], "…", *raw[-MOST_LINES // 2 :]]
    kinds: list[str] = []
    for text in raw:
        if _FRAME.match(text):
            kinds.append("library" if _LIBRARY.search(text) else "own")
        else:
            # The source line below a Python frame belongs to it.
            is_source = is_python and text.startswith("    ") and kinds and kinds[-1] != "text"
            kinds.append(kinds[-1] if is_source else "text")
    own = [i for i, text in enumerate(raw) if kinds[i] == "own" and _FRAME.match(text)]
    first = (own[-1] if is_python else own[0]) if own else None
    return tuple(Line(text, kind, i == first) for i, (text, kind) in enumerate(zip(raw, kinds, strict=True)))
