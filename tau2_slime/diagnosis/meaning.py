"""What a write is about, in the words of a conversation: record, items, payment; and how its arguments differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tau2_slime.diagnosis.records import find, tables_of
from tau2_slime.diagnosis.words import leaves, mentions, spellings, subject

if TYPE_CHECKING:
    from tau2_slime.world.environment import World

Arguments = Mapping[str, Any]
RECORDS = ("order_id", "reservation_id", "line_id", "bill_id", "task_id", "user_id", "customer_id")
"""Arguments that name the record that a write is about."""
_SOURCES = {
    "credit_card": r"credit ?card|\bvisa\b|master ?card|\bCC\b|\bamex\b",
    "debit_card": r"debit ?card",
    "gift_card": r"gift ?card|\bGCs?\b",
    "paypal": r"pay ?pal",
    "certificate": r"certificate|voucher",
}


@dataclass(frozen=True)
class Differing:
    """One argument that is not gold's."""

    path: str
    here: Any
    """None: it is not there."""
    gold: Any

    @property
    def kind(self) -> str:
        """record, item, amount, payment or value."""
        name = self.path.split("[")[0].split(".")[0]
        if self.path.endswith("amount"):
            return "amount"
        if name in RECORDS:
            return "record"
        if name in ("item_ids", "new_item_ids"):
            return "item"
        return "payment" if "payment" in name else "value"


def differing(here: Arguments, gold: Arguments) -> list[Differing]:
    """The arguments in which two calls of one tool differ; of lists only the items that the other has not got."""
    found: list[Differing] = []
    old, new = ([*(each.get("item_ids") or [])] for each in (here, gold))
    swapped = (
        dict(zip(old, here.get("new_item_ids") or [], strict=False)),
        dict(zip(new, gold.get("new_item_ids") or [], strict=False)),
    )
    for key in [*gold, *(key for key in here if key not in gold)]:
        mine, theirs = here.get(key), gold.get(key)
        if mine == theirs:
            continue
        if key == "new_item_ids" and Counter(map(str, old)) == Counter(map(str, new)):
            found += [
                Differing(key, swapped[0][k], swapped[1][k]) for k in old if swapped[0].get(k) != swapped[1].get(k)
            ]
        elif (
            isinstance(mine, list)
            and isinstance(theirs, list)
            and not any(isinstance(x, dict) for x in [*mine, *theirs])
        ):
            extra = list((Counter(map(str, mine)) - Counter(map(str, theirs))).elements())
            lacking = list((Counter(map(str, theirs)) - Counter(map(str, mine))).elements())
            for position in range(max(len(extra), len(lacking))):
                pair = [each[position] if position < len(each) else None for each in (extra, lacking)]
                found.append(Differing(key, *pair))
        elif isinstance(mine, (list, dict)) or isinstance(theirs, (list, dict)):
            values = dict(leaves(mine, key)), dict(leaves(theirs, key))
            found += [
                Differing(path, values[0].get(path), values[1].get(path))
                for path in dict.fromkeys([*values[1], *values[0]])
                if values[0].get(path) != values[1].get(path)
            ]
        else:
            found.append(Differing(key, mine, theirs))
    return found


def record_of_call(arguments: Arguments) -> str | None:
    """The id of the record that a call is about."""
    return next((str(arguments[name]) for name in RECORDS if arguments.get(name)), None)


# ---- words for values --------------------------------------------------------------------------------------------------


def variant(world: World, item_id: str) -> tuple[str, dict[str, str]] | None:
    """(product's name, options) of a retail item."""
    for product in dict.values(tables_of(world).get("products", {})):
        found = getattr(product, "variants", {}).get(item_id)
        if found is not None:
            return str(product.name), {str(k): str(v) for k, v in found.options.items()}
    return None


def expressed(text: str, value: Any, other: Any, kind: str, world: World) -> list[re.Pattern[str]]:
    """The ways to say ``value`` of which ``text`` uses one; it must not also say ``other``, which stands against it."""
    if value is None:
        return []
    forms = spellings(value)
    found = [re.compile("|".join(form.pattern for form in forms), re.I)] if forms else []
    if kind == "item":
        words = _item_words(text, str(value), None if other is None else str(other), world)
        found += [re.compile(rf"(?<!\w){re.escape(word)}(?!\w)", re.I) for word in words]
    elif kind == "payment":
        mine, theirs = (_SOURCES.get(_source(str(each or ""))) for each in (value, other))
        if mine is not None and mine != theirs and not (theirs is not None and re.search(theirs, text, re.I)):
            found.append(re.compile(mine, re.I))
    return [form for form in found if form.search(text)]


def _source(payment: str) -> str:
    return re.sub(r"_\d+$", "", payment)


def _item_words(text: str, item: str, other: str | None, world: World) -> list[str]:
    mine, theirs = variant(world, item), variant(world, other) if other is not None else None
    if mine is None:
        return []
    if theirs is None or theirs[0] != mine[0]:
        return [mine[0]] if names_product(text, mine[0]) else []
    own = [value for key, value in mine[1].items() if theirs[1].get(key) != value]
    return [value for value in own if re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text, re.I)]


def names_product(text: str, name: str) -> bool:
    """True if ``text`` names a product, in whole or by its last word: Wireless Earbuds, earbuds."""
    last = re.escape(name.split()[-1].rstrip("s"))
    return re.search(rf"\b{re.escape(name)}|\b{last}(e?s)?\b", text, re.I) is not None


def specifics(arguments: Arguments, world: World) -> list[tuple[str, Any]]:
    """(kind, value) by which a conversation can tell this write from another one of its tool."""
    found: list[tuple[str, Any]] = []
    record = record_of_call(arguments)
    if record is not None and not (arguments.keys() & {"user_id", "customer_id"} and "line_id" not in arguments):
        found.append(("record", record))
    items = arguments.get("item_ids")
    found += [("item", one) for one in items] if isinstance(items, list) else []
    order = find(world, "orders", arguments.get("order_id"))
    if order is not None and not items:
        found += [("item", item.item_id) for item in order.items]
    held = find(world, "reservations", arguments.get("reservation_id"))
    if held is not None:
        found += [("place", held.origin), ("place", held.destination)]
    return found


def speaks_of(text: str, tool: str, arguments: Arguments, world: World, *, strictly: bool) -> bool:
    """True if ``text`` is about what the write does; ``strictly``: it must also name the record or an item of it."""
    if not subject(tool).search(text):
        return False
    if not strictly:
        return True
    return any(_names(text, kind, value, world) for kind, value in specifics(arguments, world))


def names_specifically(text: str, arguments: Arguments, world: World) -> bool:
    """True if ``text`` names the record of a write, or an item of it."""
    return any(_names(text, kind, value, world) for kind, value in specifics(arguments, world))


def _names(text: str, kind: str, value: Any, world: World) -> bool:
    if mentions(text, value):
        return True
    if kind == "item":
        known = variant(world, str(value))
        return known is not None and names_product(text, known[0])
    if kind == "place":
        return any(re.search(rf"\b{city}\b", text, re.I) for city in _CITIES.get(str(value), ()))
    return False


_CITIES = {
    "SFO": ("San Francisco",),
    "JFK": ("New York", "NYC"),
    "LAX": ("Los Angeles", "LA"),
    "ORD": ("Chicago",),
    "DFW": ("Dallas",),
    "DEN": ("Denver",),
    "SEA": ("Seattle",),
    "ATL": ("Atlanta",),
    "MIA": ("Miami",),
    "BOS": ("Boston",),
    "PHX": ("Phoenix",),
    "IAH": ("Houston",),
    "LAS": ("Las Vegas",),
    "MCO": ("Orlando",),
    "EWR": ("Newark", "New York"),
    "CLT": ("Charlotte",),
    "MSP": ("Minneapolis",),
    "DTW": ("Detroit",),
    "PHL": ("Philadelphia",),
    "LGA": ("LaGuardia", "New York", "NYC"),
}
