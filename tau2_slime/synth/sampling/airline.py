"""Airline: cancel, change and book what the policy allows one customer; its tools would allow far more."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import ClassVar

from tau2_slime.policy_rules import airline
from tau2_slime.policy_rules.airline import flight_status, free_bags, is_flown
from tau2_slime.policy_rules.rules import Call, Past, Record, Stated
from tau2_slime.synth.frames import Intent, write
from tau2_slime.synth.proposal import Proposal, manner_of
from tau2_slime.synth.sampling.airline_booking import CABINS, booking, new_passenger, pay_with
from tau2_slime.synth.sampling.airline_calls import LAST_DAY, laid_out, look
from tau2_slime.synth.sampling.airline_wording import FRAMES, WHY
from tau2_slime.synth.sampling.sampler import Asked, Request, Sampler
from tau2_slime.synth.sandbox import Sandbox

PAID = frozenset({"bags", "cabin", "flight"})
"""Two payments into one reservation are stored in order: at most one of them is made."""
_MORE = ("", "one bag", "two bags", "three bags", "four bags")


def users(db: Record) -> dict[str, int]:
    """User id -> how many writes the reservations allow, about."""
    return {
        user_id: 1 + 2 * sum(is_open(db, db.reservations[r]) for r in user.reservations)
        for user_id, user in db.users.items()
    }


def is_open(db: Record, reservation: Record) -> bool:
    """True for a reservation that something can be done with."""
    return (
        reservation.status != "cancelled"
        and reservation.origin != reservation.destination
        and not any(is_flown(db, segment) for segment in reservation.flights)
    )


class AirlineSampler(Sampler):
    """See `Sampler`."""

    USUAL: ClassVar[Mapping[str, float]] = {
        **{"cancel": 2.2, "flight": 1.0, "cabin": 1.0, "book": 0.5},
        **{"bags": 0.6, "rename": 0.3, "certificate": 0.3},
    }

    def __init__(self, rng: random.Random, box: Sandbox, user_id: str, weights: Mapping[str, float]) -> None:
        super().__init__(rng, box, user_id, weights)
        self.reservations = [self.db.reservations[r] for r in self.user.reservations]
        self._reason = rng.choice(sorted(WHY))
        """Of all cancellations."""

    def request(self, kind: str) -> Request | None:
        if kind == "book":
            return self._book()
        if kind == "certificate":
            return self._certificate()
        candidates = [r for r in self.reservations if is_open(self.db, r)]
        if not candidates:
            return None
        reservation = self.rng.choice(candidates)
        used = self.used.setdefault(reservation.reservation_id, set())
        if "cancel" in used or kind in used or (kind == "cancel" and used) or (kind in PAID and used & PAID):
            return None
        make = {
            "cancel": self._cancel,
            "bags": self._bags,
            "rename": self._rename,
            "cabin": self._cabin,
            "flight": self._flight,
        }[kind]
        made = make(reservation)
        if made is None or self.box.violations(made[1]):
            return None
        used.add(kind)
        return Request(made[0], [look(reservation.reservation_id)], made[1])

    def trip(self, reservation: Record) -> str:
        """How the customer calls a reservation."""
        return f"{self.rng.choice(('reservation', 'your reservation', 'the trip'))} {reservation.reservation_id}"

    def _cancel(self, reservation: Record) -> tuple[Intent, Call] | None:
        slots = {"trip": self.trip(reservation), "why": self.rng.choice(WHY[self._reason])}
        call = Call("cancel_reservation", {"reservation_id": reservation.reservation_id})
        if list(airline.check(self.db, call, Past(), Stated(cancel_reasons=frozenset({self._reason})))):
            return None
        return Intent("cancel", slots, {"trip": (reservation.reservation_id,)}, {"why": self._reason}), call

    def _bags(self, reservation: Record) -> tuple[Intent, Call] | None:
        more = self.rng.randint(1, 3)
        total = reservation.total_baggages + more
        paid = max(0, total - free_bags(self.user.membership, reservation.cabin, len(reservation.passengers)))
        if paid < reservation.nonfree_baggages:
            return None
        pay = pay_with(self, 50 * (paid - reservation.nonfree_baggages))
        if pay is None:
            return None
        slots = {"trip": self.trip(reservation), "more": _MORE[more], "total": str(total), "pay": pay.words}
        facts = {"trip": (reservation.reservation_id,), "total": (str(total),), "pay": (pay.fact,)}
        arguments = {
            "reservation_id": reservation.reservation_id,
            "total_baggages": total,
            "nonfree_baggages": paid,
            "payment_id": pay.id,
        }
        return Intent("bags", slots, facts), Call("update_reservation_baggages", arguments)

    def _rename(self, reservation: Record) -> tuple[Intent, Call] | None:
        passengers = [p.model_dump() for p in reservation.passengers]
        names = [f"{p['first_name']} {p['last_name']}" for p in passengers]
        position = self.rng.randrange(len(passengers))
        if names.count(names[position]) > 1:
            return None
        passengers[position] = new = new_passenger(self.rng)
        name = f"{new['first_name']} {new['last_name']}"
        slots = {"trip": self.trip(reservation), "old": names[position], "new": name, "dob": new["dob"]}
        facts = {
            "trip": (reservation.reservation_id,),
            "old": (names[position],),
            "new": (name,),
            "dob": (new["dob"],),
        }
        arguments = {"reservation_id": reservation.reservation_id, "passengers": passengers}
        return Intent("rename", slots, facts), Call("update_reservation_passengers", arguments)

    def _cabin(self, reservation: Record) -> tuple[Intent, Call] | None:
        cabin = self.rng.choice([c for c in CABINS if c not in (reservation.cabin, "basic_economy")])
        flights = [{"flight_number": s.flight_number, "date": s.date} for s in reservation.flights]
        if any(s.date > LAST_DAY for s in reservation.flights):
            return None
        cost = self._cost(reservation, flights, cabin)
        pay = pay_with(self, cost) if cost is not None else None
        if pay is None:
            return None
        slots = {"trip": self.trip(reservation), "cabin": f"{CABINS[cabin]} class", "pay": pay.words}
        facts = {"trip": (reservation.reservation_id,), "cabin": (CABINS[cabin],), "pay": (pay.fact,)}
        arguments = {
            "reservation_id": reservation.reservation_id,
            "cabin": cabin,
            "flights": flights,
            "payment_id": pay.id,
        }
        return Intent("cabin", slots, facts), Call("update_reservation_flights", arguments)

    def _cost(self, reservation: Record, flights: list[dict[str, str]], cabin: str) -> float | None:
        """What a change costs in dollars, negative if money comes back; None if a flight cannot be taken."""
        total = 0
        there = {(s.flight_number, s.date): s.price for s in reservation.flights} if cabin == reservation.cabin else {}
        for flight in flights:
            key = flight["flight_number"], flight["date"]
            if key in there:
                total += there[key]
            elif flight_status(self.db, *key) == "available":
                total += self.db.flights[key[0]].dates[key[1]].prices[cabin]
            else:
                return None
        paid: int = sum(s.price for s in reservation.flights)
        return (total - paid) * len(reservation.passengers)

    def _flight(self, reservation: Record) -> tuple[Intent, Call] | None:
        if reservation.cabin == "basic_economy":
            return None
        position = self.rng.randrange(len(reservation.flights))
        segment = reservation.flights[position]
        others = [
            (flight.flight_number, day)
            for flight in self.db.flights.values()
            if (flight.origin, flight.destination) == (segment.origin, segment.destination)
            and flight.flight_number != segment.flight_number
            for day, instance in flight.dates.items()
            if instance.status == "available"
        ]
        if not others:
            return None
        number, day = self.rng.choice(sorted(others))
        flights = [{"flight_number": s.flight_number, "date": s.date} for s in reservation.flights]
        flights[position] = {"flight_number": number, "date": day}
        cost = self._cost(reservation, flights, reservation.cabin)
        pay = pay_with(self, cost) if cost is not None else None
        if pay is None:
            return None
        old = segment.flight_number
        slots = {"trip": self.trip(reservation), "old": old, "new": number, "day": day, "pay": pay.words}
        facts = {
            "trip": (reservation.reservation_id,),
            **{"old": (old,), "new": (number,), "day": (day,), "pay": (pay.fact,)},
        }
        arguments = {
            "reservation_id": reservation.reservation_id,
            "cabin": reservation.cabin,
            "flights": flights,
            "payment_id": pay.id,
        }
        return Intent("flight", slots, facts), Call("update_reservation_flights", arguments)

    def _book(self) -> Request | None:
        made = None if "book" in self.used else booking(self)
        if made is None or self.box.violations(made.call):
            return None
        self.used["book"] = {"book"}
        return made

    def _certificate(self) -> Request | None:
        if "certificate" in self.used:
            return None
        for reservation in self.reservations:
            states = {flight_status(self.db, s.flight_number, s.date) for s in reservation.flights}
            if "cancelled" not in states or reservation.status == "cancelled":
                continue
            amount = 100 * len(reservation.passengers)
            call = Call("send_certificate", {"user_id": self.user.user_id, "amount": amount})
            if self.box.violations(call):
                return None
            self.used["certificate"] = {"certificate"}
            intent = Intent("certificate", {"trip": self.trip(reservation)}, {"trip": (reservation.reservation_id,)})
            return Request(intent, [look(reservation.reservation_id)], call)
        return None

    def ask(self) -> None:
        """What a cancellation gives back, what a change or a booking costs."""
        if self.rng.random() > 0.2:
            return
        one = self.rng.choice(self.requests)
        if one.intent.kind == "book":
            intent, value = Intent("price", {}), one.call.arguments["payment_methods"][0]["amount"]
        elif one.intent.kind in ("cancel", "cabin", "flight"):
            reservation = self.db.reservations[one.call.arguments["reservation_id"]]
            kind = "refund" if one.intent.kind == "cancel" else "difference"
            if kind == "refund":
                value = sum(payment.amount for payment in reservation.payment_history)
            else:
                flights = [dict(flight) for flight in one.call.arguments["flights"]]
                value = abs(self._cost(reservation, flights, one.call.arguments["cabin"]) or 0)
            intent = Intent(kind, {"trip": one.intent.slots["trip"]}, {"trip": one.intent.facts["trip"]})
        else:
            return
        if value >= 100:  # a shorter number is said by chance
            self.asked.append(Asked(intent, [], f"{value:g}"))

    def proposal(self, difficulty: str) -> Proposal:
        rng, user, intents = self.rng, self.user, self.intents()
        kinds = {intent.kind for intent in intents}
        return Proposal(
            domain="airline",
            difficulty=difficulty,
            user=user.user_id,
            intents=intents,
            calls=laid_out(self),
            reason=write(rng, intents, FRAMES),
            known=f"You are {user.name.first_name} {user.name.last_name}. Your user id is {user.user_id}.",
            unknown=None,
            manner=manner_of(rng),
            stated=Stated(
                cancel_reasons=frozenset({self._reason if "cancel" in kinds else "other"}),
                asked_for_compensation="certificate" in kinds or None,
            ),
            communicate=[asked.value for asked in self.asked],
        )
