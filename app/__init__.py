"""Stepwell's server: durable execution behind an HTTP protocol. Start reading at `app.engine`."""
