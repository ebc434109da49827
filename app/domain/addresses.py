"""Which network addresses a tenant may make us call (reliability-security 5 C), as pure rules.

The rules speak about *resolved* addresses: odd spellings of a host are turned into one by the resolver first and never
judged as text. `app.adapters.http` asks here for every address it is about to connect to, and for the
parts of every URL before that.
"""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

IPAddress = IPv4Address | IPv6Address

#: Never called, whatever the settings say: link-local ranges and the metadata services of the large clouds (some on
#: addresses that look private or even public), multicast, reserved space, transition addresses that wrap another.
_ALWAYS_REFUSED = tuple(
    ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local; metadata of AWS, Google, Azure, Oracle, DigitalOcean, ECS and EKS agents
        "100.100.100.200/32",  # metadata of Alibaba, inside the CGNAT range
        "192.0.0.0/24",  # protocol assignments; 192.0.0.192 is metadata at Oracle
        "168.63.129.16/32",  # the Azure host, on an address that looks public
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
        "fd00:ec2::/32",  # metadata of AWS over IPv6
        "fd20:ce::254/128",  # metadata of Google over IPv6
        "fd00:42::42/128",  # metadata of Scaleway over IPv6
        "fe80::/10",  # link-local
        "fec0::/10",  # site-local
        "ff00::/8",  # multicast
        "64:ff9b::/96",  # NAT64: wraps an IPv4 address
        "64:ff9b:1::/48",  # NAT64 with a local prefix
        "100::/64",  # discard
        "2001::/23",  # protocol assignments, Teredo among them: wraps an IPv4 address
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: wraps an IPv4 address
        "3fff::/20",  # documentation
    )
)

#: Called only where the operator allows private apps.
_PRIVATE = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/32",  # connects to this machine
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT, also used by private overlay networks
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::/128",  # connects to this machine
        "::1/128",
        "fc00::/7",  # unique local
    )
)

#: The rest of 0.0.0.0/8 means "this network" and is never a destination.
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
#: All global unicast of IPv6 lies here; everything else is unassigned or special.
_GLOBAL_UNICAST = IPv6Network("2000::/3")

#: Longest host name and label of the domain name system, in characters.
MAX_HOST = 253
MAX_LABEL = 63


def gate_address(ip: str, *, allow_private: bool = False) -> bool:
    """Whether an app may live at this resolved address.

    `ip` is what the resolver gave (a zone as in `fe80::1%eth0` is tolerated); text that is no address is refused.
    `allow_private` adds loopback, private, unique local and carrier-grade NAT addresses, never those of the first
    table.
    """
    address = parse_address(ip)
    if address is None:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        # The kernel connects to the wrapped address. Nobody publishes an app this way, so it takes the looser setting,
        # and even then the wrapped address must pass by itself.
        if not allow_private:
            return False
        address = address.ipv4_mapped
    if any(address in network for network in _ALWAYS_REFUSED):
        return False
    if any(address in network for network in _PRIVATE):
        return allow_private
    if isinstance(address, IPv6Address):
        return address in _GLOBAL_UNICAST
    return address not in _THIS_NETWORK


def parse_address(text: str) -> IPAddress | None:
    """An address in its canonical textual form, without its zone; None for anything else."""
    try:
        return ip_address(text.partition("%")[0])
    except ValueError:
        return None


def gate_port(port: int) -> bool:
    """Whether an app may listen there: the two of the web, or an unprivileged port."""
    return port in (443, 80) or 1024 <= port <= 65535


def gate_host(host: str) -> bool:
    """Whether a host (ASCII: a name after IDNA, or a literal address without brackets) is well formed."""
    if not host or len(host) > MAX_HOST or not host.isascii():
        return False
    if ":" in host:
        return parse_address(host) is not None and "%" not in host
    if host.replace(".", "").isdigit():
        # No name looks like this. Decimal, octal and short spellings of an address mean different things to different
        # parsers, so only the plain one is accepted.
        return parse_address(host) is not None
    labels = host.removesuffix(".").split(".")
    return all(0 < len(label) <= MAX_LABEL and _is_label(label) for label in labels)


def _is_label(label: str) -> bool:
    # Underscores are no host names by the book, but container networks use them.
    return label.replace("-", "").replace("_", "").isalnum() and not label.startswith("-") and not label.endswith("-")


def _same_machine(address: IPAddress) -> bool:
    return address.is_loopback or address.is_unspecified


@dataclass(frozen=True, slots=True)
class Gate:
    """Who may be called, decided once at start and asked at every connect.

    `own_addresses` are (host, port) of our own services: web, Postgres, Redis. They are refused even where private apps
    are allowed. A host is an address or a name; a name only refuses URLs that spell it, so list what it resolves to as
    well. A loopback or unspecified host stands for every spelling of this machine's loopback with that port; an
    unspecified one (`0.0.0.0`, `::`) also for every private address with that port, as we cannot know which are ours.
    """

    allow_private: bool
    own_addresses: frozenset[tuple[str, int]] = frozenset()
    _own: frozenset[tuple[IPAddress, int]] = field(init=False, repr=False, default=frozenset())
    _local_ports: frozenset[int] = field(init=False, repr=False, default=frozenset())
    _wide_ports: frozenset[int] = field(init=False, repr=False, default=frozenset())
    _names: frozenset[tuple[str, int]] = field(init=False, repr=False, default=frozenset())

    def __post_init__(self) -> None:
        own, names, local, wide = set(), set(), set(), set()
        for host, port in self.own_addresses:
            address = _unwrapped(host)
            if address is None:
                names.add((host.lower().rstrip("."), port))
                if host.lower() == "localhost":
                    local.add(port)
                continue
            own.add((address, port))
            if _same_machine(address):
                local.add(port)
            if address.is_unspecified:
                wide.add(port)
        object.__setattr__(self, "_own", frozenset(own))
        object.__setattr__(self, "_names", frozenset(names))
        object.__setattr__(self, "_local_ports", frozenset(local))
        object.__setattr__(self, "_wide_ports", frozenset(wide))

    def admits(self, ip: str, port: int) -> bool:
        """Whether a connection to this resolved address and port may be opened."""
        if not gate_address(ip, allow_private=self.allow_private):
            return False
        address = _unwrapped(ip)
        if address is None or (address, port) in self._own:
            return False
        if port in self._local_ports and _same_machine(address):
            return False
        return not (port in self._wide_ports and any(address in network for network in _PRIVATE))

    def admits_name(self, host: str, port: int) -> bool:
        """Whether a URL may spell this host: false for the names of our own services."""
        return (host.lower().rstrip("."), port) not in self._names


def _unwrapped(text: str) -> IPAddress | None:
    address = parse_address(text)
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


#: Ports of our services whose URLs name none.
_PORTS = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "rediss": 6379, "http": 80, "https": 443}


def gate_around(*, listens_at: tuple[str, int], services: tuple[str, ...], allow_private: bool) -> Gate:
    """The gate of a process that listens at (host, port) and uses these services by URL: none of them is an app."""
    own = {listens_at}
    for url in services:
        parts = urlsplit(url)
        if parts.hostname:
            own.add((parts.hostname, parts.port or _PORTS.get(parts.scheme, 443)))
    return Gate(allow_private=allow_private, own_addresses=frozenset(own))
