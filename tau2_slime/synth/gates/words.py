"""G11 and G15: the text gives nothing away, and what is to be communicated is worth asking for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import combinations

from tau2_slime.policy_rules.rules import Call
from tau2_slime.policy_rules.stated import text_of
from tau2_slime.synth.gates.case import Case, Findings, plain, word_in

PAYMENT_ID = re.compile(r"\b(?:credit_card|gift_card|paypal|certificate|debit_card|bank_account)_\d+\b")
_TELECOM_ID = re.compile(r"\b[CLBDP]\d{4,}\b")
_LONG_NUMBER = re.compile(r"(?<![\d#])\b\d{10}\b")
_GRADING = re.compile(
    r"\b(ground[ -]?truth|gold(?:en)? (?:action|label|standard|answer|trajectory|solution)s?|reward "
    r"(?:is|of|signal|basis|function)|(?:is|are|be|being|gets?|get) (?:graded|scored|evaluated)"
    r"|(?:the|this|an) (?:grader|grading|scoring|evaluator|evaluation(?! of))"
    r"|(?:grading|scoring|evaluation) (?:scripts?|criteri\w+|rubrics?|metrics?|functions?|harness)"
    r"|nl_assertions?|env_assertions?|communicate_info|evaluation_criteria|reward_basis|benchmark\w*"
    r"|test case|expected (?:action|answer|outcome|tool|call)s?|database (?:state|hash)|tool calls? (?:should|must)"
    r"|correct (?:action|answer|tool|sequence)|pass(?:es)? the test|unit test|assertions?)\b"
)
_VERDICT = re.compile(
    r"\b(against (?:the |our |their |company |store |airline )?polic\w+"
    r"|(?:violat\w+|break\w*|breach\w*) (?:the |our |their |company )?polic\w+"
    r"|polic(?:y|ies) (?:does not|doesn't|do not|don't|forbids?|prohibits?|will not|won't|"
    r"says|states|only allows?|allows?|requires?)"
    r"|(?:not|n't) (?:allowed|permitted|possible) (?:by|under|per) (?:the |our |their )?polic\w+"
    r"|(?:allowed|permitted|forbidden|prohibited) (?:by|under|per) (?:the |our |their )?polic\w+"
    r"|(?:the )?agent (?:should|must|ought to|has to|needs to|is supposed to|is required to|is expected to|will have to)"
    r" (?:not|never|only|refuse|deny|decline|reject|transfer|escalate|allow|comply|invoke|verify|check that"
    r"|(?:call|use) (?:\w+ ){0,3}?(?:tools?|functions?|\w+_\w+))"
    r"|(?:the )?agent (?:is not allowed|isn't allowed|is not permitted|cannot legally)"
    r"|per (?:the )?policy|according to (?:the |our |their )?policy)\b"
)
_CODE = re.compile(r"[$#]?[A-Za-z0-9][A-Za-z0-9.,:/_-]*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
LEAST_CHARS = 3
_GREETING = "hi! how can i help you today?"


def check_text(case: Case, found: Findings) -> None:
    """G11 over everything that the user simulator reads."""
    persona = case.task.user_scenario.persona or ""
    raw = f"{text_of(case.task)}\n{persona}"
    text = plain(raw)
    tools = [name for name in case.start.world.environment.tools.tools if "_" in name]
    for name in tools:
        if re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text):
            found.fail("G11", f"the text names the agent's tool {name}")
    if "###" in raw:
        found.fail("G11", "the text holds a token of the simulator (###)")
    for pattern, what in ((_GRADING, "speaks of grading"), (_VERDICT, "tells what the policy decides")):
        match = pattern.search(text)
        if match:
            found.fail("G11", f"the text {what}: {match.group(0)!r}")
    internal = PAYMENT_ID.search(text)
    if internal is None and case.domain == "telecom":
        internal = _TELECOM_ID.search(raw)
    if internal is None and case.domain == "retail":
        internal = next((m for m in _LONG_NUMBER.finditer(raw) if m.group(0) in _catalogue_ids(case)), None)
    if internal is not None:
        found.fail("G11", f"the text holds an id that customers do not know: {internal.group(0)}")


def _catalogue_ids(case: Case) -> set[str]:
    with case.start.reading() as db:
        products = dict(db.products)
        return set(products) | {item for product in products.values() for item in product.variants}


def check_communicated(case: Case, found: Findings) -> None:
    """G15 over ``communicate_info``."""
    if not case.communicated:
        return
    text = case.text.replace(",", "")
    policy = plain(case.start.world.policy).replace(",", "")
    answers = [step.answer for step in case.steps if not step.error]
    for value in case.communicated:
        bare = plain(value).replace(",", "")
        if len(bare.strip("$#")) < LEAST_CHARS:
            found.fail("G15", f"{value!r} is too short: it may be said by chance")
        elif not _CODE.fullmatch(value.strip()) or not any(c.isdigit() for c in value):
            found.fail("G15", f"{value[:60]!r} is neither a number nor a code")
        elif word_in(text, bare) or word_in(text, bare.strip("$")):
            found.fail("G15", f"{value!r} stands in the instruction")
        elif word_in(policy, bare) or word_in(_GREETING, bare):
            found.fail("G15", f"{value!r} stands in the policy")
        elif not _shown(bare, [*answers, _money_moved(case)]) and not _shown(bare, list(_other_answers(case))):
            found.fail("G15", f"{value!r} does not follow from what the tools show")


def _shown(value: str, answers: Iterable[str]) -> bool:
    """True if a tool's answer holds ``value``, or its numbers make it as a sum or a difference."""
    joined = "\n".join(answers).replace(",", " , ").lower()
    if word_in(joined, value) or value in joined.split('"'):
        return True
    number = value.strip("$")
    if not _NUMBER.fullmatch(number):
        return value in joined
    wanted = float(number)
    numbers = {abs(float(n)) for n in _NUMBER.findall(joined) if len(n) < 12}
    return any(abs(n - wanted) < 0.005 for n in numbers) or _made_of(wanted, [n for n in numbers if n > 0])


def _money_moved(case: Case) -> str:
    """What all writes together cost or give back, as far as the last payment of each says it."""
    moved = []
    for step in case.steps:
        amounts = re.findall(r'"amount": (-?[\d.]+)', step.answer)
        if amounts and case.start.is_write(step.call):
            moved.append(float(amounts[-1]))
    return f"{sum(moved):.2f} {sum(map(abs, moved)):.2f}"


def _made_of(wanted: float, numbers: list[float]) -> bool:
    """True if ``wanted`` is a small multiple of a number, or a sum or difference of two or three of them."""
    if wanted > 20 and any(abs(n * k - wanted) < 0.005 for n in numbers if n > 9 for k in range(2, 7)):
        return True
    money = sorted(n for n in numbers if n > 9)[:120]
    for a, b in combinations(money, 2):
        if abs(a + b - wanted) < 0.005 or abs(abs(a - b) - wanted) < 0.005:
            return True
    prices = [n for n in money if n != int(n)] or money
    sums = {round(a + b, 2): (a, b) for a, b in combinations(prices[:60], 2)}
    return any(round(wanted - c, 2) in sums for c in prices[:60])


def _other_answers(case: Case) -> Iterable[str]:
    """What the customer's own records show, beyond the reads of the gold."""
    box = case.sandbox()
    with box.reading() as db:
        customer = case.customer
        user = getattr(db, "users", {}).get(customer)
        records = [] if user is None else [*getattr(user, "orders", []), *getattr(user, "reservations", [])]
    key, tool = (
        ("order_id", "get_order_details") if case.domain == "retail" else ("reservation_id", "get_reservation_details")
    )
    for record in records:
        yield box.play(Call(tool, {key: record})).content or ""
    if records:
        yield box.play(Call("get_user_details", {"user_id": customer})).content or ""
    for step in case.steps:
        for product in re.findall(r'"product_id": "(\d+)"', step.answer) if case.domain == "retail" else []:
            yield box.play(Call("get_product_details", {"product_id": product})).content or ""
