"""Telecom: what customers say about their trouble, and how whoever plays them is told to behave.

A pattern holds choices, ``[this|or that]``, and slots, ``{name}``. τ²'s own 2,285 texts are three in number.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import NamedTuple

from tau2_slime.synth.frames import Intent, chosen
from tau2_slime.synth.proposal import MANNERS

FIRST_NAMES = (
    *("Alice", "Marta", "Devon", "Priya", "Tomas", "Grace", "Omar", "Lucia", "Henry", "Naomi", "Felipe", "Ruth"),
    *("Ivan", "Clara", "Anton", "Beatriz", "Carlo", "Daniela", "Emre", "Farah", "Gustav", "Hana", "Idris", "Jana"),
)
LAST_NAMES = (
    *("Nguyen", "Ortega", "Fischer", "Kaplan", "Iverson", "Mehta", "Dubois", "Larsen", "Quinn", "Romano", "Silva"),
    *("Tanner", "Abbott", "Brandt", "Castillo", "Demir", "Ekström", "Fontaine", "Galvez", "Hoang", "Janssen"),
)
PLACES = (
    *("France", "Spain", "Italy", "Japan", "Portugal", "Norway", "Canada", "Greece", "Ireland", "Austria", "Chile"),
    *("Denmark", "Finland", "Hungary", "Iceland", "Kenya", "Malta", "Mexico", "Peru", "Poland", "Thailand"),
)

FRAMES: Mapping[str, tuple[str, ...]] = {
    "mms_fails": (
        "You [have been unable to|have not been able to|have tried in vain to] send {what} "
        "[messages|pictures|photos] [from|with] your [messaging app|phone] {since}. [You|Now you] [want|need|would "
        "like] this [fixed|repaired|solved|sorted out] [so as to|in order to] {purpose}.",
        "[Whatever you do|However often you try|Try as you may], {what} [messages|pictures|photos] have [not gone "
        "out|never left your phone|not been sent|failed] {since}: you [call for help|need help|ask for support] "
        "[because you want to|as you have to|as you would like to] {purpose}.",
        "[Your messaging app|The messaging app on your phone|Your phone] has [refused to send|not sent|failed to "
        "send] {what} [messages|pictures|photos] {since}. [You wish to|You hope to|You still mean to] {purpose}, "
        "and [it has to work|that must work|they must go out] [again|soon].",
        "[Sending|The sending of] {what} [messages|pictures|photos] [has failed|has been impossible|has not "
        "worked] {since}, [just when|at the time when] you [planned to|meant to|were about to] {purpose}; "
        "[help|support] is [needed|welcome] [until one is really sent|until one goes out].",
        "[You have trouble with|There is trouble with|You report a problem with] {what} "
        "[messages|pictures|photos]: [none has gone out|none was sent|not one got through] {since}. You [are eager "
        "to|are keen to|very much want to] {purpose}.",
    ),
    "slow_mobile_data": (
        "[Your mobile data|Mobile data on your phone|The mobile internet] has [hardly worked|stopped or "
        "crawled|come and gone] {since}, and you [need|want] {speed} speed to {purpose}[. Poor, fair or good|; "
        "poor, fair or good] [will not do|is not enough], and {wifi}.",
        "[Pages|On your phone, pages|On the road, pages] have [barely loaded|loaded very slowly or never|taken "
        "forever or failed] {since}. You [insist on|accept only|are satisfied only by] {speed} [internet "
        "speed|speed], [never|not] poor, fair or good, [as you have to|because you want to] {purpose}; "
        "[besides|mind that], {wifi}.",
        "You [wish to|hope to|have to] {purpose}, [but|yet] [the internet on your phone|your mobile data] has "
        "[dropped out or been very slow|been slow or gone|not worked as it should] {since}. [Nothing but|Only] "
        "{speed} [internet speed|speed] [counts|helps] [in the end|for you]: [you turn down|you refuse] poor, fair "
        "and good. [As it is|Where you are], {wifi}.",
        "[Help is needed with|You call about] [slow or missing|poor or absent] mobile data, [which you have had|a "
        "problem] {since}. [In the end|When this is over] you [must|want to] have {speed} [internet speed|speed] "
        "[and nothing below|and not poor, fair or good], [since you plan to|for you intend to] {purpose}; "
        "[and|besides,] {wifi}.",
    ),
    "no_service": (
        "[Your phone|Your mobile|The display of your phone] has [shown|read|said] {shown} [without a break|all the "
        "time|and nothing else] {since}, and you [need to|want to] {purpose}.",
        "[The status bar|Your status bar] [says|reads] {shown}, [and it has done so|as it has] {since}; [you hope "
        "to|you would like to] {purpose}.",
        "[You have had no signal|There has been no signal|The network has been gone] {since}: [the phone|the "
        "screen] [shows|displays] {shown}. [You have to|You want to] {purpose}.",
        "You [cannot|are unable to] {purpose} because your phone has [displayed|shown] {shown} [without "
        "end|instead of bars] {since}.",
    ),
}
"""What is wrong -> sentences. Two kinds never share one, so that a reader can tell them apart."""
_SINCE = (
    *(
        "since this morning",
        "since last night",
        "since yesterday",
        "for several hours",
        "for half a day",
        "since lunch",
    ),
    *(
        "for the past few hours",
        "since you woke up",
        "ever since breakfast",
        "since you left the house",
        "for a good while",
    ),
    *(
        "since the early afternoon",
        "for hours on end",
        "since you got up",
        "since your last walk",
        "for most of the day",
    ),
)
_ABROAD_SINCE = (
    *("since your plane landed", "since you crossed the border", "since you arrived", "ever since you left home"),
    *("since the first day of your trip", "since you came here"),
)
WIFI = (
    "you have no wifi",
    "there is no wifi around",
    "you cannot use wifi",
    "wifi is out of reach",
    "wifi is not available",
)
_PURPOSES: Mapping[str, tuple[str, ...]] = {
    "mms_fails": (
        "send [your sister|your brother|your aunt|an old friend|your neighbour] [a photo|two pictures|a short "
        "video] of [the new flat|the garden|the wedding cake|your dog|the lake|the old bridge|a sunset]",
        "show [your mother|a colleague|your landlord|your team|a client] [a picture|photos] of [a broken "
        "window|the parking lot|a leaking pipe|the finished kitchen|some old furniture|the receipt]",
        "share [holiday pictures|a birthday picture|a scanned letter|a map of the route] with [the family|your "
        "parents|a cousin|the book club|your neighbours]",
        "pass on [a voice clip|a snapshot|an invitation card] to [your daughter|your son|the whole choir|a school "
        "friend]",
    ),
    "slow_mobile_data": (
        "[follow|join] [a video call|an online course|a live lecture|a job interview] with [your office|a "
        "customer|your teacher]",
        "stream [a football match|the evening news|a concert|a film] [on the train|in the park|in a waiting room]",
        "[look up|find] [bus times|a doctor|the way to a hotel|opening hours|a hiking trail] [nearby|for your friends]",
        "upload [large drawings|a long report|video clips|design files] for [a deadline|your boss|a competition]",
        "[watch|check] [the weather radar|your bank account|ticket prices|traffic maps] [on the road|without waiting]",
    ),
    "no_service": (
        "[call|ring] [your doctor|the school|your daughter|a plumber|your bank] [today|before noon|as soon as "
        "possible]",
        "be reachable for [a delivery|your employer|an elderly parent|the babysitter|a hospital]",
        "[phone|talk to] [a friend|your brother|the insurance company] about [a visit|an accident|a birthday|a "
        "contract]",
        "[make and take calls|make calls] [for work|at your market stall|from the garage] again",
    ),
}
_KNOWN = (
    "[You are|Your name is|You are called] {name}[ with phone number| and have the phone number|, and your number "
    "is] {phone}.",
    "[Name|Customer]: {name}. [Phone|Number|Phone number]: {phone}.",
    "[The phone in question|The phone that has trouble|Your phone] has the number {phone}, [and your name is|and "
    "you are] {name}.",
)
_ABROAD = (
    "You are [currently|presently|at the moment] abroad in {place}[ for work| on holiday| for a wedding| to visit "
    "relatives| on a language course| with a sports team|].",
    "You [are travelling|travel|are on a trip] abroad[, through| in|, in] {place}[ by train| by car| with two "
    "friends| alone|].",
    "You [stay|spend some days|spend a month] abroad in {place}[, in a rented room|, near the coast|, in a small "
    "town|].",
)
_AT_HOME = (
    "You are [currently|presently|right now|today] at home in the United States.",
    "[At the moment|Just now|As usual] you are at home[,] in the United States[, in the kitchen|, in your study|, "
    "on the porch|].",
    "You [sit|call from] at home in the United States[ and have time|, with a cup of tea|].",
)
_PLAYED = (
    (
        "[When|If|Where] [a step|something|an action|a fix] of the agent [does not help|changes nothing|brings no "
        "cure] at once, [go along with it|do it all the same|still follow the guidance][, and|, but] [show mild "
        "frustration|sound a bit annoyed|grumble a little] after the first [failure|attempt in vain].",
        "[Follow|You follow|You carry out] [what the agent proposes|the agent's guidance|each step that is "
        "proposed]; [once|as soon as] [one step|a first try|an attempt] has [failed|not worked|been useless], [let "
        "some impatience show|you sigh|a mild complaint escapes you].",
    ),
    (
        "[When|If] a tool [does not show|leaves out|says nothing of] the new [status|state], [look "
        "again|check|ask] with another [tool|one].",
        "[After a change|After changing a setting|After each repair], [another tool|a second tool call] [may be "
        "needed|may be necessary|is often needed] to [see|learn|tell] [how things stand|the updated status|what is "
        "new].",
    ),
    (
        "[Whatever you say|All you tell the agent|What you report] about your [phone|device] [comes from|rests "
        "on|is taken from] [the results of your tools|tool results|what your tools show]: [the status bar|what the "
        "status bar shows] from `get_status_bar`, [whether an MMS goes out|MMS] from `can_send_mms`.",
        "[Asked|If asked|When asked] about your [device|phone], [always use|make use of|turn to] [your tools|tool "
        "calls] [before you answer|first]: `get_status_bar` [shows|tells] what [is in the status bar|the bar "
        "displays], `can_send_mms` [whether|if] an MMS [works|can be sent].",
        "[Run|Call] [`can_send_mms` and `get_status_bar`|`get_status_bar` or `can_send_mms`] [rather than|instead "
        "of] [guessing|remembering] when [somebody wonders|the agent wants to know] [about MMS or the status "
        "bar|how your phone is doing]; [other questions|all else] [about it|about the device] [need|call for] a "
        "tool, too.",
    ),
    (
        "[Never|Do not ever|You do not] [invent|make up|guess] [what a tool shows|the result of a tool call|a result].",
        "[Results|Answers] of tools are [reported|told|given] [as they come|without guesses|honestly|unchanged]; "
        "[nothing is made up|you add nothing].",
    ),
    (
        "[When|If] [you doubt|you are unsure|it is unclear to you] [whether a step is needed|that a step is "
        "necessary], [ask the agent|let the agent explain|ask why].",
        "[Unsure|In doubt|Uncertain] about [an action|some instruction|a setting], [have it explained|seek "
        "clarification|question it] [before you go on|right away|politely].",
        "[You do nothing|Do nothing] [of which|where] the [need|use|point] [is not clear|escapes you|remains open] "
        "[without asking|before you have asked] [the agent|for a reason] [first|about it].",
    ),
)
"""One of each stands in every text, in whatever order."""
_RESOLVED: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "mms_fails": (),
    "slow_mobile_data": (
        (
            "[The issue is resolved|You are content|You call it solved] only when [a speed test|the speed test] "
            "[returns|shows|reads] excellent; [at|with] poor, fair or good it is [not solved|unresolved|not over].",
            "[Measure|Judge] the [outcome|result] by [a speed test|the speed test]: [excellent|nothing but "
            "excellent] [means that it is resolved|is what you accept], [while poor|whereas poor], fair or good "
            "[leaves it open|leaves you unsatisfied].",
        ),
    ),
    "no_service": (
        (
            "[The issue is resolved|You are content|It is solved] [once|when|as soon as] the status bar [shows a "
            "signal|shows that you have signal].",
        ),
        (
            "[Asked for|If asked for|When the agent wants] [status information|the status], always "
            "[check|read|look at] the status bar.",
        ),
        ("[If|When] [the agent|somebody] asks you to pay a bill, [you accept|you agree|do so].",),
    ),
}
_REFUEL = (
    "You [are willing to|would|are ready to] refuel {gb} GB of data [if necessary|if needed|where it takes that], "
    "but [you do not want to change|you keep|nobody may change] your [mobile data|data|present] plan.",
    "[A refuel of|To refuel] {gb} GB of data [is fine with you|is all right|would be acceptable] [if needed|where "
    "necessary]; [a change of your plan is not|another plan is out of the question|your data plan stays].",
    "[If it takes|Should it take|If you need] more data, you [agree to|accept to] refuel {gb} GB[, and|; but] [you "
    "stay with|you want to keep] your [data plan|mobile data plan].",
)


class Told(NamedTuple):
    """What a customer knows and says, and how to play it."""

    trouble: Intent
    known: str
    manner: str


def told(
    rng: random.Random, reason: str, where: str, *, name: str, phone: str, place: str, gb: float, plain: bool
) -> Told:
    """Other words for one of τ²'s texts.

    Args:
        reason: τ²'s own sentence for the trouble.
        where: its sentence for where the customer is, or nothing.
        plain: nothing else says how the customer speaks.
    """
    kind = "mms_fails" if "MMS" in reason else "no_service" if "No Service" in reason else "slow_mobile_data"
    subject, fact = {
        "mms_fails": ("what", "MMS"),
        "slow_mobile_data": ("speed", "excellent"),
        "no_service": ("shown", "No Service"),
    }[kind]
    slots = {
        subject: f"'{fact}'" if kind == "no_service" else fact,
        "since": rng.choice((*_SINCE, *(_ABROAD_SINCE if "abroad" in where else ()))),
        "purpose": chosen(rng, rng.choice(_PURPOSES[kind])),
        **({"wifi": rng.choice(WIFI)} if kind == "slow_mobile_data" else {}),
    }
    trouble = Intent(kind, slots, {subject: (fact,)}, {"wifi": "no"} if "wifi" in slots else {})
    known = chosen(rng, rng.choice(_KNOWN)).format(name=name, phone=phone)
    if where:
        known += " " + chosen(rng, rng.choice(_ABROAD if "abroad" in where else _AT_HOME)).format(place=place)
    played = [rng.choice(ways) for ways in (*_PLAYED, *_RESOLVED[kind])]
    if kind != "no_service":
        played.append(rng.choice(_REFUEL).replace("{gb}", str(gb)))
    rng.shuffle(played)
    manner = [chosen(rng, sentence) for sentence in played]
    if plain:
        manner.insert(0, rng.choice(MANNERS))
    return Told(trouble, known, " ".join(manner))
