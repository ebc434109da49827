"""The wire: what is sent to apps and what they answer. The SDK in `sdk/` describes the same wire again, on purpose."""
