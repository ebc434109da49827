"""The rules of flow control, one module each, and the order in which they are asked."""
