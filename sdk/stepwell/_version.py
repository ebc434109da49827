"""The version this SDK reports on the wire; `pyproject.toml` holds the same number (a test compares them)."""

__version__ = "0.1.0"

LANGUAGE = "py"
AUTHOR = "stepwell"

#: Value of `x-inngest-sdk`, `user-agent` and of `sdk` in a registration. Servers recognise any non-empty value.
SDK_HEADER = f"stepwell-py:v{__version__}"

#: Value of `x-inngest-req-version`: parallel groups are joined by the server (protocol 13.4).
REQUEST_VERSION = "2"
