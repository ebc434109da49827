"""The cases, by feature. Importing this declares them all."""

from tests.protocol.matrix.cases import (
    answers,
    cancels,
    failures,
    gateways,
    groups,
    invokes,
    limits,
    payloads,
    sends,
    sleeps,
    steps,
    triggers,
    waits,
)

MODULES = (
    steps,
    failures,
    sleeps,
    waits,
    invokes,
    sends,
    groups,
    gateways,
    triggers,
    limits,
    cancels,
    payloads,
    answers,
)
