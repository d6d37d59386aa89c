"""What a text says about a write: asks for it, agrees to it, declines it, refuses it. Patterns over words, no model."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

_SUBJECTS: tuple[tuple[str, str], ...] = (
    (r"cancel", r"\bcancel"),
    (r"^return", r"\breturn|refund|\bsend (it|them|this|these) back"),
    (r"^exchange", r"exchang|\bswap|\breplac"),
    (r"order_items$", r"modif|chang|switch|\bswap|\breplac|upgrad|exchang"),
    (r"address", r"address|\bship|\bmoved?\b|deliver (it|them) to"),
    (r"order_payment$", r"\bpay|\bcard\b|paypal"),
    (r"^book", r"\bbook|\breserv(e|ation) (a|for)|new (flight|reservation)|\bfly\b"),
    (
        r"reservation_flights$",
        r"chang|modif|upgrad|downgrad|switch|\bmove|resched|cabin|business|economy|nonstop|earlier|\blater",
    ),
    (r"baggage", r"\bbags?\b|baggage|luggage|suitcase"),
    (r"passengers$", r"passenger|\bname\b|travell?er"),
    (r"certificate", r"certificate|compensat|voucher|gesture"),
    (r"refuel", r"refuel|more data|extra data|add(ing)? (some )?data|\d ?GB|gigabyte|top.?up"),
    (r"payment_request", r"payment request|\bbills?\b|\bpay\b"),
    (r"resume", r"resum|suspen|restor(e|ing) (the|your) line|reactivat"),
    (r"suspend", r"suspen"),
    (r"roaming", r"roaming"),
    (r"airplane", r"airplane|flight mode"),
    (r"sim_card", r"\bsim\b"),
    (r"toggle_data$", r"(mobile|cellular) data|\bdata (on|off)|(on|off|enable) (your |the )?data"),
    (r"data_saver", r"data saver"),
    (r"network_mode", r"network (mode|preference|type)|[2345]G"),
    (r"apn", r"\bapn\b"),
    (r"wifi_calling", r"wi-?fi.calling"),
    (r"wifi", r"wi-?fi"),
    (r"vpn", r"\bvpn\b"),
    (r"permission", r"permission|access to"),
    (r"reboot", r"reboot|restart|power.?cycl|off and (back )?on"),
    (r"make_payment", r"\bpay"),
    (r"create_task", r"\btask|creat|\badd"),
    (r"task_status", r"complet|status|\bdone|finish|updat|\bmark"),
)


@lru_cache(maxsize=256)
def subject(tool: str) -> re.Pattern[str]:
    """What people say when they speak about what ``tool`` does."""
    name = re.escape(tool.replace("_", " ")).replace(r"\ ", r"[ _]")
    own = next((words for pattern, words in _SUBJECTS if re.search(pattern, tool)), None)
    if own is None:
        longest = max(tool.split("_"), key=len, default=tool)
        own = rf"\b{re.escape(longest[: max(4, len(longest) - 2)])}"
    return re.compile(f"{name}|{own}", re.I)


_AGREES = re.compile(
    r"\b(yes|yeah|yep|yup|yea|sure|ok|okay|go ahead|proceed|confirm(ed)?|correct|right|agree[ds]?|absolutely"
    r"|definitely"
    r"|perfect|fine|great|exactly|of course|certainly|do (it|that|so)|sounds good|that works|looks good|let'?s"
    r"|go with|go for)\b",
    re.I,
)
_DECLINES = re.compile(
    r"\b(no(?! (longer|problem|worries|other|more|further|additional|rush|issue|need))|nope|do(n'?t| not) (do"
    r"|proceed|want|go|cancel|make|book"
    r"|return|exchange|change|agree|need|wish|think|like)|wait|hold on|instead|rather|never ?mind|changed my mind"
    r"|decline|leave it"
    r"|skip|not (yet|now|that|interested|going|what)|won'?t)\b",
    re.I,
)
_YES_FIRST = re.compile(
    r"^\W*(oh |ah |well,? |great,? |ok(ay)?,? |perfect,? )*(yes|yeah|yep|yup|yea|sure|confirm|absolutely|correct)\b",
    re.I,
)


_TELLS_TO = re.compile(
    r"\b(please|you (can|may)|let'?s) (just |then |also |now )?(do|go|proceed|continue|cancel|return|exchange"
    r"|modify|change|update|book|use|send|add|make"
    r"|apply|process|refund|upgrade|switch|swap|complete|finalize|confirm)\b(?!\W+(not|your|the) (policy|details))",
    re.I,
)


def agrees(text: str) -> bool:
    """True if a customer's ``text`` says yes and does not decline."""
    if _YES_FIRST.search(text) or _TELLS_TO.search(text):
        return True
    return "?" not in text and _AGREES.search(text) is not None and _DECLINES.search(text) is None


def declines(text: str) -> bool:
    """True if a customer's ``text`` turns an offer down."""
    return _YES_FIRST.search(text) is None and _DECLINES.search(text) is not None


_REFUSES = re.compile(
    r"\b(unable to|can ?not|can'?t|could ?n[o']t|not able to|(not|isn'?t|aren'?t|wasn'?t) (be )?(allowed|permitted"
    r"|possible|eligible|authorized"
    r"|covered|available to be|something (i|we) can)|ineligible|do(es)?( not|n'?t) (allow|permit|qualify|support"
    r"|offer|have the ability)"
    r"|against (our|the|company) (policy|policies|rules)|policy (does not|doesn'?t|prohibits|prevents|forbids"
    r"|requires)|have to (decline|deny|refuse)"
    r"|must (decline|deny|refuse)|non-?refundable|won'?t be able|no way to|not in a position)\b"
    r"|\bunfortunately\b[^.]*\b(need|require|must)\b",
    re.I,
)
_NOT_A_REFUSAL = re.compile(
    r"\b(unable to|can ?not|can'?t|could ?n[o']t|not able to) (find|locate|see|verify|access|look)|\bundone\b"
    r"|if you (can|are)|be (reversed|undone)"
    r"|(will|would) not be able to (modify|cancel|change)|(can ?not|can'?t) be (modified|cancelled|changed|undone"
    r"|reversed) (after|once|again)",
    re.I,
)


def refusal(text: str) -> str | None:
    """The sentence with which an agent's ``text`` says that it cannot or may not; None if there is none."""
    return first_sentence(text, lambda one: _REFUSES.search(one) and not _NOT_A_REFUSAL.search(one))


_OFFERS_HELP = re.compile(
    r"(anything|something) else|further (assistance|help)|(other|more|additional) (question|request|concern|issue"
    r"|help|assistance)|"
    r"(can|may) i (help|assist) you (with|further|today)|else (i|we) can|let me know if|how (can|may) i (help|assist)",
    re.I,
)
_ASKS = re.compile(
    r"\?|\bconfirm|\(yes/?(or )?(/)?no\)|\breply (with )?.?yes|\bproceed\b|\bplease (let me know|say|type|reply"
    r"|respond)|would you like|shall i|do you want",
    re.I,
)


_ASKS_TO_ACT = re.compile(
    r"\b(shall|should|may|can) i\b|\b(would|do) you (like|want|wish)|\bproceed\b|\bgo ahead\b|\(yes|\bconfirm (that"
    r"|if|whether|this|these|the)|"
    r"\b(please|to|you|your|explicit) (explicitly )?confirm(ation)?\b(?! (your|the) (e-?mail|name|zip|user|identity"
    r"|account|order number))"
    r"|\bis (this|that|everything) (correct|ok|okay|right|fine)|\blet me know if|\bwhich (one|option)|\boptions?\b",
    re.I,
)


def asks_to_act(text: str) -> bool:
    """True if an agent's ``text`` asks whether it should do something."""
    return _ASKS_TO_ACT.search(text) is not None


def offers_help(text: str) -> bool:
    """True if an agent's ``text`` offers further help."""
    return _OFFERS_HELP.search(text) is not None


def asks(text: str) -> bool:
    """True if ``text`` asks for an answer."""
    return _ASKS.search(text) is not None


_LACKS = re.compile(
    r"\b(do(n'?t| not)|can(no|')?t|can not|am not able to|unable to) (seem to )?(have|know|remember|recall|find"
    r"|provide|give|share|see)\b"
    r"|\b(no idea|not sure what|i forgot|forgotten|i lost|lost (it|my)|not have|have no (\w+ )?(email|e-mail|id"
    r"|number|record|order|reservation)|not available to me|don'?t have)\b",
    re.I,
)


def lacks(text: str) -> bool:
    """True if a customer's ``text`` says that it has not got what it is asked for."""
    return _LACKS.search(text) is not None


_DONE = re.compile(
    r"\b(i('ve| have)? (just |now |already )?(done|did|turned|toggled|rebooted|restarted|reset|reseated"
    r"|re-?inserted|removed|switched|enabled|disabled|disconnected"
    r"|connected|granted|changed|set|paid|made|completed|tried|performed|checked|followed)|(it('s| is)|that('s| is)"
    r"|all|has been) (now )?(done|on|off|paid|reset|rebooted|enabled|disabled)"
    r"|done\b|is now (on|off|enabled|disabled|active))",
    re.I,
)


def claims_done(text: str) -> bool:
    """True if a customer's ``text`` says that it did something."""
    return _DONE.search(text) is not None


@lru_cache(maxsize=4096)
def sentences(text: str) -> tuple[str, ...]:
    """The sentences and lines of ``text``, each as it stands there."""
    return tuple(part.strip() for part in re.split(r"(?<=[.!?])\s+|\n+", text[:20_000]) if part.strip())


def first_sentence(text: str, holds: Callable[[str], object]) -> str | None:
    """The first sentence of ``text`` of which ``holds`` is true; None if there is none."""
    return next((one for one in sentences(text) if holds(one)), None)


def quoted(text: str, pattern: re.Pattern[str] | None = None) -> str:
    """The sentence of ``text`` that ``pattern`` matches, else its beginning; at most 200 characters, verbatim."""
    found = first_sentence(text, pattern.search) if pattern is not None else None
    return (found or text.strip())[:200]


# ---- facts -------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def squeeze(text: str) -> str:
    """Letters and digits of ``text``; ``.00`` is dropped from amounts."""
    return re.sub(r"[^a-z0-9@]", "", re.sub(r"(\d)\.00\b", r"\1", text.lower()))


_NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


def spellings(value: object) -> list[re.Pattern[str]]:
    """How people write ``value``: a number in digits or words, a date by month and day, an id with or without its sign."""
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, (int, float)):
        number = int(value) if float(value).is_integer() else value
        words = [rf"(?<![\w.]){re.escape(str(number))}(?:\.0+)?(?!\w|\.\d)"]
        if isinstance(number, int) and 0 < number <= 10:
            words.append(rf"\b{_NUMBERS[number]}\b")
        if isinstance(number, int) and number >= 1000:
            words.append(rf"{number:,}")
        return [re.compile(word, re.I) for word in words]
    text = str(value).strip().lstrip("#")
    if not text:
        return []
    date = re.fullmatch(r"(\d{4})-(\d\d)-(\d\d)", text)
    if date:
        month, day = _MONTHS[(int(date[2]) - 1) % 12], int(date[3])
        return [
            re.compile(
                rf"{month}\w* {day}(st|nd|rd|th)?\b|\b{day}(st|nd|rd|th)? (of )?{month}|\b0?{int(date[2])}/0?{day}\b|{text}",
                re.I,
            )
        ]
    own = re.sub(r"[_\s]+", r"[\\s_-]+", re.escape(text).replace(r"\ ", " "))
    return [re.compile(rf"(?<!\w){own}(?!\w)", re.I)]


def mentions(text: str, value: object) -> bool:
    """True if ``text`` holds ``value`` in one of its spellings."""
    return any(pattern.search(text) for pattern in spellings(value))


def leaves(arguments: object, path: str = "") -> Iterable[tuple[str, Any]]:
    """(path, value) of every single value in a call's arguments."""
    if isinstance(arguments, Mapping):
        for key, value in arguments.items():
            yield from leaves(value, f"{path}.{key}" if path else str(key))
    elif isinstance(arguments, (list, tuple)):
        for position, value in enumerate(arguments):
            yield from leaves(value, f"{path}[{position}]")
    else:
        yield path, arguments
