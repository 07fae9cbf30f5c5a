"""The coordinator's own certificate authority and the server certificate it issues.

No public authority is involved: an invitation pins this one by its fingerprint, and every
connection is checked against it alone. A server certificate is renewed without anybody noticing.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from nomoat.aggregation.errors import NomoatError, UsageError

AUTHORITY_DAYS = 3650
SERVER_DAYS = 825  # the longest that common TLS stacks accept
MAX_NAME = 253  # RFC 1035
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(\.{_LABEL})*")
BACKDATE = datetime.timedelta(hours=1)  # a volunteer's clock may be behind


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes


def make_authority(community: str, now: datetime.datetime) -> IssuedCertificate:
    """A self-signed authority that may sign server certificates and nothing below them."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"{community} authority")
    builder = _builder(name, name, key.public_key(), now, AUTHORITY_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_usage(sign_certificates=True), critical=True)
    builder = builder.add_extension(_key_identifier(key), critical=False)
    return _issued(builder, key, key)


def make_server(
    authority: IssuedCertificate, hosts: Sequence[str], now: datetime.datetime
) -> IssuedCertificate:
    """A server certificate for `hosts` (names or addresses), signed by `authority`."""
    issuer = x509.load_pem_x509_certificate(authority.certificate)
    issuer_key = _load_key(authority.key)
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _builder(_name(hosts[0]), issuer.subject, key.public_key(), now, SERVER_DAYS)
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=False, path_length=None), critical=True
    )
    builder = builder.add_extension(_usage(sign_certificates=False), critical=True)
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
    builder = builder.add_extension(usage, critical=False)
    authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    builder = builder.add_extension(authority_id, critical=False)
    return _issued(builder, key, issuer_key)


def fingerprint(certificate: bytes) -> bytes:
    """SHA-256 of a certificate's DER, from its PEM; 32 bytes."""
    return x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())


def hosts_of(certificate: bytes) -> frozenset[str]:
    """The names and addresses a certificate is good for."""
    loaded = x509.load_pem_x509_certificate(certificate)
    names = loaded.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = names.get_values_for_type(x509.IPAddress)
    return frozenset(names.get_values_for_type(x509.DNSName)) | {str(a) for a in addresses}


def expires(certificate: bytes) -> datetime.datetime:
    """The moment a certificate ends, UTC."""
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


def begins(certificate: bytes) -> datetime.datetime:
    """The moment from which a certificate is good, UTC."""
    return x509.load_pem_x509_certificate(certificate).not_valid_before_utc


def split_address(address: str) -> tuple[str, int]:
    """host:port taken apart; UsageError if it is not one. IPv6 hosts stand in brackets.

    The host is as a certificate has it: an IPv6 address in its short form, a name in lower case
    and its ASCII spelling (RFC 5890).
    """
    host, _, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise UsageError(
            f"address {address!r} is not HOST:PORT; for example train.example.org:8443"
        )
    if ":" in host and not bracketed:
        raise UsageError(
            f"address {address!r}: IPv6 stands in brackets; for example [2001:db8::1]:8443"
        )
    return host_name(host), int(port)


def canonical(address: str) -> str:
    """host:port with its host as a certificate has it; UsageError if it is not one."""
    host, port = split_address(address)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_name(host: str) -> str:
    """A host as a certificate has it; UsageError if it is neither a name nor an address."""
    try:
        found = ipaddress.ip_address(host)
    except ValueError:
        return _ascii_name(host)
    if getattr(found, "scope_id", None) or (found.version == 6 and found.is_link_local):
        raise UsageError(f"{host!r} is good on one link only; give an address of a wider network")
    meant = getattr(found, "ipv4_mapped", None) or found
    if meant.is_unspecified or meant.is_multicast or str(meant) == "255.255.255.255":
        raise UsageError(
            f"{host!r} is no machine's address; give the one that volunteers reach this machine "
            "at (nomoat up --host says where to listen)"
        )
    return str(found)


def _ascii_name(host: str) -> str:
    """A name's ASCII spelling, lower case.

    Characters that IDNA 2003, which this is, maps to others and IDNA 2008 does not are refused.
    """
    if set(host) & set("\u00df\u03c2\u200c\u200d"):
        raise UsageError(f"{host!r}: write this name in its ASCII spelling (xn--...)")
    try:
        name = host.encode("idna").decode("ascii").lower().removesuffix(".")
    except UnicodeError:
        name = ""
    if len(name) > MAX_NAME or not _NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
        raise UsageError(f"{host!r} is neither a host name nor an address")
    return name


def is_every(host: str) -> bool:
    """Return True for 0.0.0.0 or ::, however it is spelled: every address of this machine."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def only_here(address: str) -> bool:
    """Return True if host:port leads no other machine here: localhost or a loopback address."""
    host, _ = split_address(address)
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    now: datetime.datetime,
    days: int,
) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(public)
    builder = builder.serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - BACKDATE).not_valid_after(
        now + datetime.timedelta(days=days)
    )


def _issued(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
) -> IssuedCertificate:
    certificate = builder.sign(issuer_key, hashes.SHA256())
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return IssuedCertificate(certificate.public_bytes(Encoding.PEM), secret)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    return x509.DNSName(host_name(host))


def _usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _key_identifier(key: ec.EllipticCurvePrivateKey) -> x509.SubjectKeyIdentifier:
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key())


def _load_key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise NomoatError("the authority's key is not an elliptic-curve key")
    return key
