"""Addresses of job servers, as people write them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gearproto.addresses import DEFAULT_PORT, Address, parse_address, parse_addresses

hosts = st.one_of(
    st.from_regex(r"[a-z][a-z0-9-]{0,20}(\.[a-z0-9-]{1,20}){0,2}", fullmatch=True), st.ip_addresses().map(str)
)
ports = st.integers(1, 65535)


@given(hosts, ports)
def test_an_address_is_read_as_it_is_written(host: str, port: int) -> None:
    assert parse_address(str(Address(host, port))) == Address(host, port)
    assert parse_address((host, port)) == Address(host, port)


@given(hosts)
def test_the_port_is_gearmans_own_unless_given(host: str) -> None:
    assert parse_address(host) == Address(host, DEFAULT_PORT)
    assert parse_address(f"[{host}]") == Address(host, DEFAULT_PORT)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "it has no host"),
        (":4730", "it has no host"),
        ("host:", "the port has to be a number from 1 to 65535"),
        ("host:0", "the port has to be a number from 1 to 65535"),
        ("host:65536", "the port has to be a number from 1 to 65535"),
        ("host:gearman", "the port has to be a number from 1 to 65535"),
        ("[::1", "a bracket is missing, or no port follows it"),
        ("[::1]4730", "a bracket is missing, or no port follows it"),
        ("a..b", "'a..b' cannot be the name of a host"),
        ("x" * 64, "cannot be the name of a host"),
        ("a b", "'a b' cannot be the name of a host"),
        ("a\u00a0b", "cannot be the name of a host"),
        ("a/b", "cannot be the name of a host"),
        ("user@host:1", "'user@host' cannot be the name of a host"),
        ("http://h:4730", r"'http://h:4730' is not a valid address: leave out 'http://'"),
        ("tcp://[::1]:4730", "leave out 'tcp://'"),
        ("a:b:c", "'a:b:c' is not an IPv6 address"),
        ("[::1%]", "is not an IPv6 address"),
        ("/run/gear.sock", "a Unix socket is written unix:/run/gear.sock"),
        ("unix:", "it has no valid path"),
        ("unix:a\0b", "it has no valid path"),
        (("host", 0), "the port has to be a number from 1 to 65535"),
        (("host", True), "the port has to be a number from 1 to 65535"),
        (("host", 4730.0), "the port has to be a number from 1 to 65535"),
        (("host", "+1"), "the port has to be a number from 1 to 65535"),
        (("host", "\u0661"), "the port has to be a number from 1 to 65535"),
        (("host", "9" * 5000), "the port has to be a number from 1 to 65535"),
        (("unix:/run/gear.sock", 1), "is not a valid address"),
        (("host",), "it has to be host:port, unix:PATH, or a pair of host and port"),
        ((4730, "host"), "it has to be host:port, unix:PATH, or a pair of host and port"),
        (b"host", "it has to be host:port, unix:PATH, or a pair of host and port"),
        (None, "it has to be host:port, unix:PATH, or a pair of host and port"),
    ],
)
def test_nonsense_is_refused_with_a_reason(text: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


def test_several_addresses_come_as_a_list_or_parted_by_commas() -> None:
    expected = [Address("a", 1), Address("b", DEFAULT_PORT)]
    assert parse_addresses("a:1, b") == expected
    assert parse_addresses(["a:1", ("b", DEFAULT_PORT)]) == expected


@pytest.mark.parametrize("pair", [("a", 1), ("a", "1"), ["a:1"], [["a", "1"]], Address("a", 1)])
def test_one_address_may_be_a_pair(pair: Any) -> None:
    assert parse_addresses(pair) == [Address("a", 1)]


@given(st.text(min_size=1).filter(lambda path: "\0" not in path))
def test_address_of_a_unix_socket_is_its_path(path: str) -> None:
    address = parse_address(f"unix:{path}")
    assert address.path == path
    assert parse_address(address) == parse_address(str(address)) == address
    assert parse_addresses(address) == [address]
    assert Address("unix").path is None


@pytest.mark.parametrize("host", ["localhost", "h_1.example.", "b\u00fccher.example", "::1", "fe80::1%eth0", "1.2.3.4"])
def test_names_and_addresses_of_hosts_are_taken(host: str) -> None:
    assert parse_address((host, 1)) == Address(host, 1)


def test_an_address_given_twice_counts_once() -> None:
    assert parse_addresses(["a:1", "a:1"]) == [Address("a", 1)]


def test_two_names_in_a_tuple_are_two_addresses() -> None:
    assert parse_addresses(("a", "b")) == [Address("a"), Address("b")]


def test_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="no server is given"):
        parse_addresses([])


@pytest.mark.parametrize(("wrong", "named"), [((1, 2, 3), "1"), (b"host", "b'host'"), (5, "5"), (None, "None")])
def test_anything_but_addresses_is_refused_as_a_bad_address_is(wrong: Any, named: str) -> None:
    with pytest.raises(ValueError, match=f"^{named} is not a valid address: "):
        parse_addresses(wrong)
