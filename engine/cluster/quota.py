"""Quotas of a Kubernetes namespace: whether a cluster fits into what is left of them."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

#: Suffixes of quantities; Kubernetes API, "resource.Quantity".
_SUFFIXES = {
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
    "": Decimal(1),
}


def quantity(text: str) -> Decimal:
    """Value of a quantity as Kubernetes writes it.

    Raises
    ------
    ValueError
        If it is none.

    Examples
    --------
    >>> quantity("500m") + quantity("1")
    Decimal('1.500')
    """
    number = text.rstrip("mkKMGTi")
    try:
        return Decimal(number) * _SUFFIXES[text[len(number) :]]
    except (InvalidOperation, KeyError) as err:
        msg = f"a quantity such as 500m or 2Gi, got {text}"
        raise ValueError(msg) from err


def needs(description: Mapping[str, Any]) -> dict[str, Decimal]:
    """All that a ``DaskCluster`` takes, by the names that quotas use.

    Parameters
    ----------
    description : mapping
        Of the scheduler and of workers that are all of one kind.
    """
    found: dict[str, Decimal] = {}
    for part in ("scheduler", "worker"):
        many = description["spec"][part].get("replicas", 1)
        resources = description["spec"][part]["spec"]["containers"][0]["resources"]
        found["pods"] = found.get("pods", Decimal(0)) + many
        for kind, amounts in resources.items():
            for name, amount in amounts.items():
                for key in _names(kind, name):
                    found[key] = found.get(key, Decimal(0)) + many * quantity(amount)
    return found


def shortfalls(needed: Mapping[str, Decimal], quotas: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Say where quotas leave too little.

    Parameters
    ----------
    needed : mapping of str to Decimal
        As `needs` gives it.
    quotas : iterable of mapping
        ``ResourceQuota`` objects, with their status.
    """
    for quota in quotas:
        status = quota.get("status", {})
        for name, hard in status.get("hard", {}).items():
            used = quantity(status.get("used", {}).get(name, "0"))
            left = quantity(hard) - used
            if name in needed and needed[name] > left:
                yield (
                    f"{name}: {_shown(needed[name])} wanted, {_shown(left)} left of "
                    f"{hard} (quota '{quota['metadata']['name']}')"
                )


def _names(kind: str, name: str) -> tuple[str, ...]:
    """Names under which quotas count a resource; cpu and memory alone mean requests."""
    plain = (name,) if kind == "requests" and name in ("cpu", "memory") else ()
    return (f"{kind}.{name}", *plain)


def _shown(value: Decimal) -> str:
    gib = Decimal(2**30)
    return f"{value / gib:.1f}Gi" if abs(value) >= gib else f"{value.normalize():f}"
