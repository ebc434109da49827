"""The version this SDK reports on the wire; `pyproject.toml` holds the same number (a test compares them)."""

__version__ = "0.1.0"

#: How both ways to sync name this SDK, so that the server sees one app, whichever it used.
LANGUAGE = "stepwell-py"
AUTHOR = "stepwell"

#: Value of `x-inngest-sdk`, `user-agent` and of `sdk` in a registration. Servers recognise any non-empty value.
SDK_HEADER = f"{LANGUAGE}:v{__version__}"

#: Value of `x-inngest-req-version`: parallel groups are joined by the server (protocol 13.4).
REQUEST_VERSION = "2"
