"""The function that tells that earlier events have been looked at."""

from tests.protocol.matrix.catalogue import function

PROBE = function("probe")
