"""The table of addresses a tenant may or may not make us call (reliability-security 5 C)."""

import socket

import pytest

from app.domain.addresses import Gate, gate_address, gate_around, gate_host, gate_port

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "11.0.0.0",
    "93.184.216.34",
    "100.63.255.255",
    "100.128.0.0",
    "126.255.255.255",
    "128.0.0.1",
    "168.63.129.15",
    "169.253.255.255",
    "169.255.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.0.1.0",
    "192.167.255.255",
    "192.169.0.0",
    "198.17.255.255",
    "198.20.0.0",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700:4700::1111",
    "2a00:1450:4001:81b::200e",
    "2400::1",
]
PRIVATE = [
    "0.0.0.0",
    "10.0.0.1",
    "10.255.255.255",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.0.0.2",
    "127.255.255.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "192.168.255.255",
    "::",
    "::1",
    "0:0:0:0:0:0:0:1",
    "fc00::1",
    "fd12:3456:789a::1",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "::ffff:10.0.0.1",
    "::ffff:8.8.8.8",
    "0:0:0:0:0:ffff:c0a8:1",
]
NEVER = [
    "0.0.0.1",
    "0.255.255.255",
    "169.254.169.254",
    "169.254.170.2",
    "169.254.170.23",
    "169.254.0.1",
    "100.100.100.200",
    "192.0.0.192",
    "192.0.0.8",
    "168.63.129.16",
    "192.0.2.1",
    "192.88.99.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.7",
    "203.0.113.9",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "fd00:ec2::254",
    "fd00:ec2::23",
    "fd20:ce::254",
    "fd00:42::42",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::a9fe:a9fe",
    "febf::1",
    "fec0::1",
    "ff02::1",
    "ff0e::1",
    "::ffff:169.254.169.254",
    "::ffff:a9fe:a9fe",
    "::ffff:100.100.100.200",
    "::ffff:224.0.0.1",
    "::7f00:1",
    "::127.0.0.1",
    "::169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::169.254.169.254",
    "64:ff9b::8.8.8.8",
    "64:ff9b:1::a00:1",
    "100::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:10::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::",
    "2002:808:808::1",
    "3fff::1",
    "4000::1",
    "5f00::1",
    "::ffff:0:127.0.0.1",
    "",
    "localhost",
    "127.1",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "127.0.0.1 ",
    "[::1]",
]


@pytest.mark.parametrize("ip", PUBLIC)
def test_a_public_address_may_always_be_called(ip: str) -> None:
    assert gate_address(ip)
    assert gate_address(ip, allow_private=True)


@pytest.mark.parametrize("ip", PRIVATE)
def test_a_private_address_may_be_called_only_where_the_operator_allows_it(ip: str) -> None:
    assert not gate_address(ip)
    assert gate_address(ip, allow_private=True)


@pytest.mark.parametrize("ip", NEVER)
def test_metadata_wrapping_and_reserved_addresses_and_other_text_are_never_called(ip: str) -> None:
    assert not gate_address(ip)
    assert not gate_address(ip, allow_private=True)


@pytest.mark.parametrize("spelling", ["127.1", "0x7f.1", "0x7f000001", "2130706433", "017700000001", "0", "127.0.0.1"])
def test_odd_spellings_of_this_machine_are_refused_after_the_resolver_read_them(spelling: str) -> None:
    found = socket.getaddrinfo(spelling, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert found
    assert not any(Gate(allow_private=False).admits(str(entry[4][0]), 80) for entry in found)


@pytest.mark.parametrize("spelling", ["2852039166", "0xa9fea9fe", "0251.0376.0251.0376", "169.254.43518"])
def test_odd_spellings_of_the_metadata_address_are_refused_even_where_private_apps_are_allowed(spelling: str) -> None:
    found = socket.getaddrinfo(spelling, 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert found
    assert not any(Gate(allow_private=True).admits(str(entry[4][0]), 80) for entry in found)


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.0.0.9", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("own", ["127.0.0.1", "0.0.0.0", "::1", "localhost"])
def test_a_service_of_ours_on_loopback_is_refused_in_every_spelling_and_its_neighbour_is_not(own: str, ip: str) -> None:
    gate = Gate(allow_private=True, own_addresses=frozenset({(own, 5432)}))
    assert not gate.admits(ip, 5432)
    assert gate.admits(ip, 5433)


def test_a_service_of_ours_on_another_machine_is_refused_by_address_and_port() -> None:
    gate = Gate(
        allow_private=True, own_addresses=frozenset({("10.0.0.7", 5432), ("DB.internal", 5432), ("8.8.8.8", 443)})
    )
    assert not gate.admits("10.0.0.7", 5432)
    assert not gate.admits("::ffff:10.0.0.7", 5432)
    assert not gate.admits("8.8.8.8", 443)
    assert gate.admits("10.0.0.7", 3000)
    assert gate.admits("10.0.0.8", 5432)
    assert not gate.admits_name("db.Internal.", 5432)
    assert gate.admits_name("db.internal", 3000)


def test_a_service_of_ours_on_all_interfaces_closes_its_port_on_every_private_address() -> None:
    gate = Gate(allow_private=True, own_addresses=frozenset({("0.0.0.0", 8288)}))
    assert not gate.admits("192.168.1.20", 8288)
    assert gate.admits("192.168.1.20", 3000)
    assert gate.admits("8.8.8.8", 8288)


@pytest.mark.parametrize(
    ("port", "allowed"),
    [
        (80, True),
        (443, True),
        (1024, True),
        (8288, True),
        (65535, True),
        (0, False),
        (22, False),
        (25, False),
        (81, False),
        (442, False),
        (1023, False),
        (65536, False),
        (-1, False),
    ],
)
def test_only_web_ports_and_unprivileged_ports_may_be_called(port: int, allowed: bool) -> None:
    assert gate_port(port) is allowed


@pytest.mark.parametrize(
    "host", ["a", "app.example.com", "app.example.com.", "xn--bcher-kva.example", "my_app", "127.0.0.1", "::1"]
)
def test_a_well_formed_host_is_accepted(host: str) -> None:
    assert gate_host(host)


@pytest.mark.parametrize(
    "host",
    [
        "",
        ".",
        "a..b",
        "-a.example",
        "a-.example",
        "bücher.example",
        "a b",
        "a%00b",
        "fe80::1%eth0",
        "::1::",
        "a" * 64,
        ".".join(["a" * 60] * 5),
    ],
)
def test_a_malformed_host_is_refused(host: str) -> None:
    assert not gate_host(host)


def test_a_process_never_calls_the_services_it_uses_nor_itself() -> None:
    services = (
        "postgresql://u:p@10.0.0.5/db",
        "redis://10.0.0.6:6380",
        "https://stepwell.example.com",
        "http://10.0.0.7",
    )
    gate = gate_around(listens_at=("10.0.0.1", 8288), services=services, allow_private=True)
    refused = [("10.0.0.1", 8288), ("10.0.0.5", 5432), ("10.0.0.6", 6380), ("10.0.0.7", 80)]
    assert [place for place in refused if gate.admits(*place)] == []
    assert gate.admits("10.0.0.5", 3000)
