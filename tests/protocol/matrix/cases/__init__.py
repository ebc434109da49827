"""The cases, by feature. Importing this declares them all."""

from tests.protocol.matrix.cases import (
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

MODULES = (steps, failures, sleeps, waits, invokes, sends, groups, gateways, triggers, limits, cancels, payloads, answers)
