"""Public keys of an issuer: which ones it publishes, and for which algorithms each may be used."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import AllowedPublicKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

# A fixed list: the token's own `alg` must not choose anything else. Symmetric algorithms are absent on purpose: with
# them a public key would be the secret.
_RSA = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_BY_CURVE = {
    ("EC", "P-256"): "ES256",
    ("EC", "P-384"): "ES384",
    ("EC", "P-521"): "ES512",
    ("OKP", "Ed25519"): "EdDSA",
    ("OKP", "Ed448"): "EdDSA",
}
ALGORITHMS = _RSA | frozenset(_BY_CURVE.values())

_READERS = {"RSA": RSAAlgorithm.from_jwk, "EC": ECAlgorithm.from_jwk, "OKP": OKPAlgorithm.from_jwk}

_MIN_RSA_BITS = 2048
_MAX_KEYS = 200

# The public members only: with `d` the library would return a private key.
_MEMBERS = ("kty", "crv", "n", "e", "x", "y")


@dataclass(frozen=True)
class SigningKey:
    """A public key. `algorithms` are those that its type, its curve and its own `alg` allow."""

    kid: str | None
    algorithms: frozenset[str]
    public: AllowedPublicKeys


@dataclass(frozen=True)
class KeySet:
    """The usable keys of an issuer at one moment."""

    keys: tuple[SigningKey, ...]

    def find(self, kid: str | None, algorithm: str) -> SigningKey | None:
        """Returns the key of a token's header, if there is one; without a `kid`, the only key for the algorithm."""
        usable = [key for key in self.keys if algorithm in key.algorithms]
        if kid is None:
            return usable[0] if len(usable) == 1 else None
        return next((key for key in usable if key.kid == kid), None)

    def has(self, kid: str) -> bool:
        """Whether a key has this id, for whatever algorithm."""
        return any(key.kid == kid for key in self.keys)


def parse_key_set(document: object) -> KeySet:
    """Reads a JSON Web Key Set. Keys of other types and uses, and weak ones, are left out.

    Raises ValueError if it is no key set or has no usable key.
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("the key set has no list `keys`")
    found = (_parse_key(entry) for entry in entries[:_MAX_KEYS] if isinstance(entry, Mapping))
    keys = tuple(key for key in found if key is not None)
    if not keys:
        raise ValueError("the key set has no usable key")
    return KeySet(keys)


def _parse_key(entry: Mapping[str, Any]) -> SigningKey | None:
    kid = entry.get("kid")
    if not (kid is None or isinstance(kid, str)) or not _is_for_signatures(entry):
        return None
    allowed = _algorithms_of_type(entry)
    own = entry.get("alg")
    if own is not None:
        allowed &= {own} if isinstance(own, str) else set()
    if not allowed:
        return None
    public = _load(entry)
    return SigningKey(kid, allowed, public) if public is not None else None


def _is_for_signatures(entry: Mapping[str, Any]) -> bool:
    operations = entry.get("key_ops")
    verifies = operations is None or (isinstance(operations, list) and "verify" in operations)
    return verifies and entry.get("use") in (None, "sig")


def _algorithms_of_type(entry: Mapping[str, Any]) -> frozenset[str]:
    kty, curve = entry.get("kty"), entry.get("crv")
    if kty == "RSA":
        return _RSA
    if isinstance(kty, str) and isinstance(curve, str) and (kty, curve) in _BY_CURVE:
        return frozenset({_BY_CURVE[kty, curve]})
    return frozenset()


def _load(entry: Mapping[str, Any]) -> AllowedPublicKeys | None:
    members = {name: entry[name] for name in _MEMBERS if name in entry}
    try:
        key = _READERS[entry["kty"]](members)
    except (jwt.PyJWTError, ValueError, TypeError, AttributeError, KeyError):
        return None  # such a key can verify nothing; others of the set may
    if isinstance(key, RSAPublicKey):
        return key if key.key_size >= _MIN_RSA_BITS else None
    return key if isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey | Ed448PublicKey) else None
