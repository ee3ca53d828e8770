"""Addresses of job servers, as people write them."""

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
        ("[::1", "the bracket has no counterpart, or no port follows it"),
        ("[::1]4730", "the bracket has no counterpart, or no port follows it"),
        ("a..b", "'a..b' cannot be the name of a host"),
        ("x" * 64, "cannot be the name of a host"),
        (("host", 0), "the port has to be a number from 1 to 65535"),
    ],
)
def test_nonsense_is_refused_with_a_reason(text: str | tuple[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_address(text)


def test_several_addresses_come_as_a_list_or_parted_by_commas() -> None:
    expected = [Address("a", 1), Address("b", DEFAULT_PORT)]
    assert parse_addresses("a:1, b") == expected
    assert parse_addresses(["a:1", ("b", DEFAULT_PORT)]) == expected


def test_one_address_may_be_a_pair() -> None:
    assert parse_addresses(("a", 1)) == [Address("a", 1)]


def test_an_address_given_twice_counts_once() -> None:
    assert parse_addresses(["a:1", "a:1"]) == [Address("a", 1)]


def test_two_names_in_a_tuple_are_two_addresses() -> None:
    assert parse_addresses(("a", "b")) == [Address("a"), Address("b")]


def test_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="no server is given"):
        parse_addresses([])


def test_a_port_alone_is_no_address() -> None:
    with pytest.raises(ValueError, match="is no address"):
        parse_addresses((1, 2, 3))  # type: ignore[arg-type]
