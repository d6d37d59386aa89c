"""Airline: what the customer says about reservations, flights, passengers, bags, cabin and payment."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from tau2_slime.policy_rules.airline import RESERVATION_WRITES
from tau2_slime.policy_rules.rules import Call, Record
from tau2_slime.synth.gates import evidence_payment
from tau2_slime.synth.gates.case import Case, Findings, word_in
from tau2_slime.synth.gates.evidence_payment import ends_elsewhere, says_digits, told_apart
from tau2_slime.synth.gates.phrases import ALL, GENERIC_PAYMENT, HEDGE, PAYMENT, asks_plainly, kinds_named, sentences

REQUEST = {
    "cancel_reservation": (
        r"cancel|call off|refund|get rid|drop|scrap|abort|withdraw|void|(?:can't|cannot|won't|not) (?:go|fly|travel|make it)"
    ),
    "update_reservation_flights": (
        r"chang|modif|upgrad|downgrad|cabin|business|econom|mov|push|delay|reschedul|earlier|later|nonstop|switch|flight"
    ),
    "update_reservation_baggages": r"bag|luggage|suitcase",
    "update_reservation_passengers": r"passenger|name|travel|companion|instead|in place of|replac|substitut|swap|\bput\b",
    "book_reservation": r"book|fly|flight|reserv|trip|ticket|travel",
    "send_certificate": r"compensat|voucher|certificate|make up|make amends|complain|goodwill|gesture|refund|reimburs",
}
_CITIES: dict[str, tuple[str, ...]] = {
    **{"SFO": ("san francisco", "sf"), "JFK": ("new york", "kennedy", "ny"), "LAX": ("los angeles", "la")},
    **{"ORD": ("chicago",), "DFW": ("dallas", "texas"), "DEN": ("denver",), "SEA": ("seattle",), "ATL": ("atlanta",)},
    **{"MIA": ("miami",), "BOS": ("boston",), "PHX": ("phoenix",), "IAH": ("houston", "texas"), "CLT": ("charlotte",)},
    **{"LAS": ("las vegas", "vegas"), "MCO": ("orlando",), "EWR": ("newark", "new york"), "MSP": ("minneapolis",)},
    **{"DTW": ("detroit",), "PHL": ("philadelphia",), "LGA": ("laguardia", "la guardia", "new york")},
}
"""Airport -> what else a text calls it."""
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_CRITERION = re.compile(
    r"\b(cheap\w*|first|last|earl\w*|late\w*|next day|day (?:after|before|later|earlier)|same|"
    r"nonstop|non-stop|direct|fast\w*|short\w*|"
    r"second|tomorrow|today|one.?stop|current|original|exact\w*|recent|whichever|best|move\w*|push\w*|delay\w*|upcoming|return)\b"
)
_AIRLINE_CANCELLED = re.compile(
    r"\b(?:was|were|is|are|got|been|being|airline|they|have|has|had) (?:\w+ )?cancell?ed\b"
    r"|\bcancell?ed (?:by (?:the|your) airline|flights?)\b"
)
"""What happened to a flight, not what the customer wants."""
_INSURED = re.compile(r"\b(?:with|add|include|want|buy|take|plus) (?:the |travel |trip |your )*insurance\b")
_BAGS = re.compile(
    r"(?:\b(?:with|and|add|include|bring|take|plus|have|check(?: in)?|book)|[,;:]) (?:[1-9]|one|two|three|four|five|six) "
    r"(?:\w+ ){0,2}?(?:bags?|suitcases?)\b"
)
_RESERVATION_ID = re.compile(r"\b[a-z0-9]{6}\b")


def check(case: Case, found: Findings) -> None:
    """G9, G13, G17."""
    with case.start.reading() as db:
        if case.writes and case.customer is not None and not word_in(case.text, case.customer):
            found.fail("G9", "the customer does not say the user id, which the agent must be given")
        for call in case.writes:
            if call.name not in REQUEST:
                continue
            if not re.search(REQUEST[call.name], case.text):
                found.fail("G9", f"nobody asks for {call.name}")
                continue
            try:
                for gate, reason in _judge(case, db, call):
                    found.fail(gate, f"{call.name}: {reason}")
            except (KeyError, TypeError, AttributeError, IndexError, ValueError):
                continue  # other gates refuse such a call
        for reason in _asked_and_not_done(case, db):
            found.fail("G17", reason)


def _named_reservations(case: Case, db: Record) -> set[str]:
    return {m.group(0).upper() for m in _RESERVATION_ID.finditer(case.text) if m.group(0).upper() in db.reservations}


def _judge(case: Case, db: Record, call: Call) -> Iterator[tuple[str, str]]:
    a = call.arguments
    if call.name == "book_reservation":
        yield from _booking(case, db, a)
    if call.name not in RESERVATION_WRITES:
        return
    reservation = db.reservations.get(a["reservation_id"])
    if reservation is None:
        return  # a booking of this conversation
    named = _named_reservations(case, db)
    if reservation.reservation_id not in named:
        if named and not _speaks_of_trip(case.text, reservation) and not ALL.search(case.text):
            yield "G9", f"the text names {', '.join(sorted(named))}, not {reservation.reservation_id}"
        elif not named and not ALL.search(case.text):
            yield from _other_trips(case, db, call, reservation)
    if call.name == "update_reservation_baggages":
        total, now = a["total_baggages"], reservation.total_baggages
        if not any(_says_number(case.text, n) for n in (total, total - now)):
            yield "G9", f"the number of bags ({total}, or {total - now} more) is not said"
    if call.name == "update_reservation_passengers":
        there = {(p.first_name, p.last_name, p.dob) for p in reservation.passengers}
        new = [p for p in a["passengers"] if (p["first_name"], p["last_name"], p["dob"]) not in there]
        yield from _people(case, db, new, reservation.passengers)
    if call.name == "update_reservation_flights":
        if a["cabin"] != reservation.cabin and not _says_cabin(case.text, a["cabin"]):
            yield "G9", f"the cabin {a['cabin']!r} is not said"
        old = {(s.flight_number, s.date) for s in reservation.flights}
        yield from _flights(case, [f for f in a["flights"] if (f["flight_number"], f["date"]) not in old])
    if "payment_id" in a:
        yield from _payment(case, db, call, reservation)


def _speaks_of_trip(text: str, reservation: Record) -> bool:
    places = [
        word
        for code in (reservation.origin, reservation.destination)
        for word in (code.lower(), *_CITIES.get(code, ()))
    ]
    return any(word_in(text, place) for place in places) or any(_says_date(text, s.date) for s in reservation.flights)


def _other_trips(case: Case, db: Record, call: Call, reservation: Record) -> Iterator[tuple[str, str]]:
    """Another reservation of the customer between the same places, for which the call would be as allowed."""
    if not _speaks_of_trip(case.text, reservation) or any(_says_date(case.text, s.date) for s in reservation.flights):
        return
    for other_id in db.users[reservation.user_id].reservations:
        other = db.reservations.get(other_id)
        if other is None or other_id == reservation.reservation_id or other.status == "cancelled":
            continue
        if (other.origin, other.destination) != (
            reservation.origin,
            reservation.destination,
        ) or call.name != "cancel_reservation":
            continue
        box = case.sandbox()
        if box.run([Call(call.name, {**call.arguments, "reservation_id": other_id})]):
            yield "G13", f"{other_id} goes from {other.origin} to {other.destination} as well"


def _booking(case: Case, db: Record, a: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for code in (a["origin"], a["destination"]):
        named = any(word_in(case.text, word) for word in (code.lower(), *_CITIES.get(code, ())))
        if not named and not _CRITERION.search(case.text):
            yield "G9", f"the airport {code} is not said"
    if not _says_cabin(case.text, a["cabin"]) and not re.search(
        r"\b(same|exact\w*|current|keep|cheap\w*|flight)\b", case.text
    ):
        yield "G9", f"the cabin {a['cabin']!r} is not said"
    if a["insurance"] == "yes" and "insur" not in case.text:
        yield "G9", "nobody asks for insurance"
    if a["total_baggages"] and not _says_number(case.text, a["total_baggages"]):
        yield "G9", f"the number of bags ({a['total_baggages']}) is not said"
    yield from _people(case, db, a["passengers"], [])
    if len(case.writes) == 1:  # else the words may be about another request
        yield from _left_out_of_booking(case, db, a)
    yield from _flights(case, a["flights"])
    yield from _booking_payment(case, db, a)


def _left_out_of_booking(case: Case, db: Record, a: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if a["insurance"] == "no" and asks_plainly(case.text, _INSURED):
        yield "G9", "the customer asks for insurance, and the gold books none"
    if not a["total_baggages"] and asks_plainly(case.text, _BAGS):
        yield "G9", "the customer asks for bags, and the gold books none"
    flying = {(p["first_name"], p["last_name"]) for p in a["passengers"]}
    for person in db.users[a["user_id"]].saved_passengers:
        name = f"{person.first_name} {person.last_name}"
        named = asks_plainly(case.text, re.compile(rf"\b{re.escape(name.lower())}\b"))
        if named and (person.first_name, person.last_name) not in flying:
            yield "G9", f"the customer names {name}, for whom the gold books no seat"


def _booking_payment(case: Case, db: Record, a: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    methods = db.users[a["user_id"]].payment_methods
    kinds = kinds_named(case.text)
    for payment in a["payment_methods"]:
        method = methods.get(payment["payment_id"])
        if method is None:
            continue
        if says_digits(case.text, method):
            continue
        if not PAYMENT.search(case.text):
            if len(methods) > 1:
                yield "G13", f"nobody says how to pay, and there are {len(methods)} ways"
            continue
        if kinds and method.source not in kinds and not GENERIC_PAYMENT.search(case.text):
            yield "G9", f"the customer names {', '.join(sorted(kinds))}, the gold takes {method.source}"
            continue
        same = [m for m in methods.values() if m.source == method.source and m.id != method.id]
        used = {p["payment_id"] for p in a["payment_methods"]}
        same = [m for m in same if m.id not in used and (m.source == "credit_card" or m.amount >= payment["amount"])]
        if (
            same
            and method.source in kinds
            and not GENERIC_PAYMENT.search(case.text)
            and not told_apart(case.text, method, same)
        ):
            yield "G13", f"{same[0].id} fits what is said as well as {method.id}"


def _people(case: Case, db: Record, people: list[Any], there: list[Any]) -> Iterator[tuple[str, str]]:
    user = db.users[case.customer]
    known = [
        (user.name.first_name, user.name.last_name, user.dob),
        *((p.first_name, p.last_name, p.dob) for p in user.saved_passengers),
        *(
            (p.first_name, p.last_name, p.dob)
            for r in user.reservations
            if r in db.reservations
            for p in db.reservations[r].passengers
        ),
    ]
    births = {dob for _, _, dob in known}
    for person in people:
        first, last, dob = person["first_name"], person["last_name"], person["dob"]
        if (first, last, dob) in known:
            if (
                not word_in(case.text, first.lower())
                and not ALL.search(case.text)
                and not re.search(r"\b(yourself|myself|you|me)\b", case.text)
            ):
                yield "G9", f"the passenger {first} {last} is not named"
            continue
        if not word_in(case.text, first.lower()) or not word_in(case.text, last.lower()):
            yield "G9", f"the passenger {first} {last} is not named"
        elif not _says_date(case.text, dob, year=True) and dob not in births:
            yield "G9", f"the birth date {dob} of {first} {last} is not said"


def _flights(case: Case, flights: list[Any]) -> Iterator[tuple[str, str]]:
    for flight in flights:
        if word_in(case.text, flight["flight_number"].lower()):
            if not _says_date(case.text, flight["date"]) and not _CRITERION.search(case.text):
                yield "G9", f"the date {flight['date']} of {flight['flight_number']} is not said"
            continue
        numbers = re.findall(r"\bhat\d{3}\b", case.text)
        if not _says_date(case.text, flight["date"]) and not _CRITERION.search(case.text):
            yield "G9", f"neither {flight['flight_number']} nor {flight['date']} is said"
        elif numbers and len(flights) <= len(numbers) and not _CRITERION.search(case.text):
            yield "G9", f"the text names {', '.join(numbers).upper()}, not {flight['flight_number']}"


def _payment(case: Case, db: Record, call: Call, reservation: Record) -> Iterator[tuple[str, str]]:
    methods = db.users[reservation.user_id].payment_methods
    method = methods.get(call.arguments["payment_id"])
    if method is None:
        return
    others = [m for m in methods.values() if m.id != method.id and ends_elsewhere(case, call, payment_id=m.id)]
    usual = any(p.payment_id == method.id for p in reservation.payment_history)
    yield from evidence_payment.check(case, method, others, usual=usual)


def _says_cabin(text: str, cabin: str) -> bool:
    if cabin == "basic_economy":
        return "basic" in text
    if cabin == "economy":
        return re.search(r"(?<!basic )\beconomy\b", text) is not None or re.search(r"\bcoach\b", text) is not None
    return "business" in text


def _says_number(text: str, number: int) -> bool:
    if number < 0:
        return False
    if number == 1 and re.search(
        r"\b(?:a|an|another|extra|additional|single) (?:\w+ ){0,2}(?:bag|suitcase|luggage|piece)", text
    ):
        return True
    return word_in(text, str(number)) or (number < len(_NUMBERS) and word_in(text, _NUMBERS[number]))


def _says_date(text: str, day: str, *, year: bool = False) -> bool:
    """True if ``text`` has the day, in one of the usual spellings.

    >>> _says_date("on may 24", "2024-05-24"), _says_date("born 1990-04-05", "1990-04-05", year=True)
    (True, True)
    """
    if day in text:
        return True
    when = date.fromisoformat(day)
    month = when.strftime("%B").lower()
    short = month[:3]
    day_word = rf"0?{when.day}(?:st|nd|rd|th)?"
    spelled = rf"(?:{month}|{short}\.?) {day_word}\b|\b{day_word}(?: of)? (?:{month}|{short})\b"
    numeric = rf"\b0?{when.month}/0?{when.day}\b|\b0?{when.month}-0?{when.day}\b"
    found = re.search(spelled, text) or re.search(numeric, text)
    if year:
        return found is not None and str(when.year) in text
    return found is not None or re.search(rf"\b{when.day}(?:st|nd|rd|th)\b", text) is not None


def _asked_and_not_done(case: Case, db: Record) -> Iterator[str]:
    """Cancellations of a reservation by its number that the gold leaves out although the policy allows them."""
    done = {str(call.arguments.get("reservation_id")) for call in case.writes}
    if any(step.call.name == "transfer_to_human_agents" for step in case.steps):
        return
    bags = any(call.name in ("update_reservation_baggages", "book_reservation") for call in case.writes)
    for sentence in sentences(case.text):
        if (
            not bags
            and case.writes
            and not HEDGE.search(sentence)
            and re.search(r"\badd (?:\w+ ){0,3}bags?\b", sentence)
        ):
            yield "the customer asks for more bags, and the gold leaves them out"
        if (
            HEDGE.search(sentence)
            or not re.search(r"\bcancel\w*\b", _AIRLINE_CANCELLED.sub(" ", sentence))
            or re.search(r"chang|upgrad|bag|passenger", sentence)
        ):
            continue
        for match in _RESERVATION_ID.finditer(sentence):
            reservation = db.reservations.get(match.group(0).upper())
            if reservation is None or reservation.reservation_id in done or reservation.user_id != case.customer:
                continue
            box = case.sandbox()
            if box.run([Call("cancel_reservation", {"reservation_id": reservation.reservation_id})]):
                yield f"the customer asks to cancel {reservation.reservation_id}, and the gold leaves it out"
