"""Keys and passwords: no configuration holds them, no message repeats them, nobody is sent them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path


def any_case(pattern: str) -> str:
    """A pattern of git's kind that takes letters in either case."""
    return "".join(f"[{one.lower()}{one.upper()}]" if one.isalpha() else one for one in pattern)


_VALUES = (".txt", ".json", ".toml", ".y*ml", ".csv", ".ini", ".cfg", ".conf", ".xml")
"""Endings of files that hold values; code, such as tokenizer.py, travels."""
_WORDS_INSIDE = (
    "token", "secret", "passw", "credential", "api[-_]key", "apikey", "access[-_]key", "accesskey",
    "rootkey", "service*account",
)  # fmt: skip
_LAST_WORDS = (
    *(f"*{word}" for word in ("token", "tokens", "secret", "secrets", "password", "passwords")),
    "*passwd", "*credential", "*credentials", "*apikey", "key", "keys", "*[-_.]key", "*[-_.]keys",
)  # fmt: skip
SECRET_FILES = (
    ".env*", "*.env", ".aws", ".azure", ".boto", ".config", ".databrickscfg", ".docker",
    ".dockercfg", ".git-credentials", ".gnupg", ".*history", ".htpasswd", ".huggingface", ".kaggle",
    ".kube", "kubeconfig*", "*.kubeconfig", ".my.cnf", "*netrc", ".npmrc", ".pgpass", ".pypirc",
    ".ray", "rclone.conf", ".s3cfg", ".ssh", ".streamlit", "auth.json", "kaggle.json", "id_rsa*",
    "id_dsa*", "id_ecdsa*", "id_ed25519*", "*.tfvars", "*.tfstate*",
    *(any_case(f"*{word}*{ending}") for word in _WORDS_INSIDE for ending in _VALUES),
    *(any_case(f"{word}{ending}") for word in _LAST_WORDS for ending in ("", *_VALUES)),
    *map(any_case, (
        "*.asc", "*.gpg", "*.jks", "*.kdbx", "*.key", "*.keytab", "*.p12", "*.p8", "*.pem", "*.pfx",
        "*.ppk",
    )),
)  # fmt: skip
"""Keys, passwords and tokens by the names that programs and people give them; of git's kind."""

_COLON = r"(?::|%3A)"
_USERS = (
    # of a store, whose address has no port before an @
    rf"\b(?!(?:https?|ray|grpc|tcp):)([a-z][a-z\d+.-]+:/{{1,2}})[^\s/@:'\"]*?{_COLON}[^\s@'\"]+@",
    rf"(:/{{1,2}})[^\s/@:'\"]*?{_COLON}(?!\d+(?:[/?#]|$))[^\s@'\"]+@",
    r"\b(https?:/{1,2})[^\s/@:'\"]+@",  # a token alone
)
_WORDS = "sig|key|sas|auth|pass|passphrase|bearer|jwt|accesskey|apikey"
_PARTS = "secret|passw|pwd|token|signature|credential"
_QUERY = re.compile(
    rf"([?&;](?:[\w.-]*(?:{_PARTS})[\w.-]*|(?:[\w.-]*[_.-])?(?:{_WORDS})(?:[_.-][\w.-]*)?)=)"
    r"[^\s&#'\"]+",
    re.IGNORECASE,
)


def masked(text: str) -> str:
    """The text with *** for the password or key of each address in it.

    Of ``s3://key:secret@bucket`` the key, too, since it is half of what opens the bucket.
    """
    for users in _USERS:
        text = re.sub(users, r"\1***:***@", text, flags=re.IGNORECASE)
    return _QUERY.sub(r"\1***", text)


def refuse_secrets(config: object) -> None:
    """Refuses a configuration that holds a secret: it is written to run.toml and to messages.

    Raises:
        ValueError: the text has the field's name, and the address without the secret.
    """
    for name, value in _texts(config, ""):
        if ":/" in value and masked(value) != value:
            raise ValueError(
                f"{name} must hold no password or key, got {masked(value)!r}: give those by the "
                "environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for s3://)"
            )


def _texts(value: object, name: str) -> Iterator[tuple[str, str]]:
    """Every text of a configuration, with the field that it lies in."""
    if isinstance(value, str | Path):
        yield name, str(value)
    elif is_dataclass(value):
        for part in fields(value):
            inner = f"{name}.{part.name}" if name else part.name
            yield from _texts(getattr(value, part.name), inner)
    elif isinstance(value, Mapping):
        yield from _texts(tuple(value.values()), name)
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _texts(one, name)
