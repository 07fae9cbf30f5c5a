"""The certificates work in a real TLS handshake for exactly the hosts they name."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from pathlib import Path

import pytest

from nomoat.aggregation.errors import UsageError
from nomoat.server.community.certificates import (
    IssuedCertificate,
    canonical,
    expires,
    fingerprint,
    hosts_of,
    make_authority,
    make_server,
    split_address,
)

NOW = datetime.datetime.now(datetime.UTC)
HOSTS = ("train.example.org", "localhost", "127.0.0.1", "::1")


@pytest.fixture(scope="module")
def authority() -> IssuedCertificate:
    return make_authority("demo", NOW)


def handshake(issued: IssuedCertificate, authority: bytes, host: str, folder: Path) -> bytes:
    """Shake hands over a socket pair; the DER of the server's certificate."""
    (folder / "c.pem").write_bytes(issued.certificate)
    (folder / "k.pem").write_bytes(issued.key)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "c.pem", folder / "k.pem")
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=authority.decode())
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            server.wrap_socket(there, server_side=True).close()
        except (ssl.SSLError, OSError):
            there.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=host) as wrapped:
            return wrapped.getpeercert(binary_form=True) or b""
    finally:
        here.close()
        thread.join()


@pytest.mark.parametrize("host", HOSTS)
def test_a_named_host_is_accepted(authority: IssuedCertificate, host: str, tmp_path: Path) -> None:
    issued = make_server(authority, HOSTS, NOW)
    assert handshake(issued, authority.certificate, host, tmp_path)
    assert hosts_of(issued.certificate) == set(HOSTS)


@pytest.mark.parametrize("host", ["other.example.org", "10.0.0.1"])
def test_any_other_host_is_refused(authority: IssuedCertificate, host: str, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(make_server(authority, HOSTS, NOW), authority.certificate, host, tmp_path)


def test_another_authoritys_certificate_is_refused(
    authority: IssuedCertificate, tmp_path: Path
) -> None:
    other = make_authority("other", NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(make_server(other, HOSTS, NOW), authority.certificate, HOSTS[0], tmp_path)


def test_an_ended_certificate_is_refused(authority: IssuedCertificate, tmp_path: Path) -> None:
    old = make_server(authority, HOSTS, NOW - datetime.timedelta(days=900))
    assert expires(old.certificate) < NOW
    with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
        handshake(old, authority.certificate, HOSTS[0], tmp_path)


def test_a_server_certificate_signs_no_further_ones(
    authority: IssuedCertificate, tmp_path: Path
) -> None:
    middle = make_server(authority, HOSTS, NOW)
    below = make_server(middle, HOSTS, NOW)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(below, authority.certificate, HOSTS[0], tmp_path)


def test_a_fingerprint_is_of_the_certificate_on_the_line(
    authority: IssuedCertificate, tmp_path: Path
) -> None:
    import hashlib

    issued = make_server(authority, HOSTS, NOW)
    der = handshake(issued, authority.certificate, HOSTS[0], tmp_path)
    assert fingerprint(issued.certificate) == hashlib.sha256(der).digest()


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("a.b:8443", ("a.b", 8443)),
        ("[::1]:80", ("::1", 80)),
        ("[0:0:0:0:0:0:0:1]:80", ("::1", 80)),
        ("[2001:0DB8:0000::00ff]:80", ("2001:db8::ff", 80)),
        ("Train.Example.ORG.:80", ("train.example.org", 80)),
        ("münchen.example:80", ("xn--mnchen-3ya.example", 80)),
        ("MÜNCHEN.example:80", ("xn--mnchen-3ya.example", 80)),
        ("東京.example:80", ("xn--1lqs71d.example", 80)),
        ("xn--mnchen-3ya.example:80", ("xn--mnchen-3ya.example", 80)),
    ],
)
def test_addresses_come_apart(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize("address", ["", "a.b", "a.b:", ":80", "a:0", "a:99999", "a:x"])
def test_what_is_no_address_is_a_usage_error(address: str) -> None:
    with pytest.raises(UsageError, match="HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize(
    ("address", "line"),
    [
        ("2001:db8::1:8443", "in brackets"),
        ("[fe80::1%eth0]:8443", "one link only"),
        ("[fe80::1]:8443", "one link only"),
        ("a..b:8443", "neither a host name"),
        ("a b:8443", "neither a host name"),
        ("https://a.example:8443", "in brackets"),
        ("-a.example:8443", "neither a host name"),
        ("300.1.1.1:8443", "neither a host name"),
        ("straße.example:8443", "xn--"),
        (f"{'a' * 64}.example:8443", "neither a host name"),
        (".".join(["a" * 60] * 5) + ":8443", "neither a host name"),
        ("0.0.0.0:8443", "no machine's address"),
        ("[::]:8443", "no machine's address"),
        ("[0:0::0:0]:8443", "no machine's address"),
        ("[::ffff:0.0.0.0]:8443", "no machine's address"),
        ("224.0.0.1:8443", "no machine's address"),
        ("[ff02::1]:8443", "no machine's address"),
        ("255.255.255.255:8443", "no machine's address"),
    ],
)
def test_an_address_that_nobody_could_reach_is_refused_with_advice(address: str, line: str) -> None:
    with pytest.raises(UsageError, match=line):
        split_address(address)


@pytest.mark.parametrize("address", ["[0:0:0:0:0:0:0:5]:1", "münchen.example:1", "A.example.:1"])
def test_a_certificate_names_the_host_of_an_address_as_the_address_comes_apart(
    authority: IssuedCertificate, address: str
) -> None:
    host, _ = split_address(address)
    assert canonical(canonical(address)) == canonical(address)
    assert host in hosts_of(make_server(authority, (host,), NOW).certificate)
