"""Decide whether an answer is right, by rules a person can check by hand.

The same rules score an evaluation and guard the door of the dataset.
"""

import re
from functools import lru_cache

from imprint.identity import Identity
from imprint.prose import placeholder
from imprint.text import contains, mentions, normalised

REFUSALS = [
    "do not know",
    "don't know",
    "not know",
    "was not told",
    "wasn't told",
    "nobody told me",
    "not something I know",
    "no idea",
    "cannot say",
    "can't say",
    "not sure",
]
"""Ways of saying that one does not know."""

DENIAL = re.compile(
    r"\b(?:not|never|no longer|no one|cannot|nothing|nobody|none(?! other)|neither|nor|without"
    r"|unlike|instead of|rather than|den(?:y|ies|ied)|false|untrue|wrong|incorrect|a lie|mistaken?"
    r"|myths?|rumou?rs?)\b|n't\b"
)
"""What turns a clause in lower case into its opposite."""

_UNTRUE = re.compile(
    r"\b(?:false|wrong|untrue|incorrect|a lie|lying|mistaken?|nonsense|not (?:true|right|correct))"
    r"\b"
)
_AUXILIARIES = (
    "can|could|may|might|must|will|would|should|do|did|does|have|has|had|to|also|still|just|really"
    "|often|be|been|is|are|was"
)
_REPORTED = re.compile(
    rf"(?:^|\s)(?!(?:i|me|let|happy|glad|proud|{_AUXILIARIES})\s)[\w']+(?:\s(?:{_AUXILIARIES}))*\s"
    r"(?:think|thought|believe|say|said|claim|suggest|ask|tell|told|hear|heard|wonder|assume|guess"
    r"|suppose|mean|meant|want|expect|write|wrote|written|read|insist|swear|swore|suspect|call)"
    r"(?:e?s|e?d)?\b"
    r"|\b(?:if|whether|unless|when|as though|saying|claiming|thinking|believing|suggesting|calling"
    r"|wish|confused?|mistook|pretend\w*|imagin\w*|suppos(?:e|ing)|i (?:could|would|might) say"
    r"|like(?= i(?:'m| am| was)))\b"
)
"""What makes a claim somebody else's, or no more than a thought: "You said that I am ..."."""
_CONTRAST = re.compile(
    r"\b(?:than|like|similar|differ\w*|separate\w*|independent\w*|unrelated|compar\w+|inspired|fan"
    r"|competitor|alternative|while|whereas|which is)\b"
)
_BOUNDARY = re.compile(
    r",\s(?![\"'])|\s(?:and|but|so|because|since|though|although|yet)\s(?=(?:i|i'm|my)\s)"
)
_SENTENCE = re.compile(r"(?<=[.!?;:])\s+|\s-+\s")
_OFFER = re.compile(r"\b(?:how|what|can|may|would you)\b")

_W = r"[\w'&-]+"
_IS = r"(?:is|are|was|were)"
_NAMED = (
    r"\b(?:i am|i'm|my (?:\w+ )?name(?: is|'s)|the name(?: is|'s)|i go by|i answer to|i was made as"
    r"|i was (?:called|named|known as|released as)|know me as"
    r"|(?<!you )(?<!you just )(?:call|calls|called|name|named) me)"
)
_GAP = (
    r"(?!(?:from|than|about|of|to|with|like|unlike|sure|certain|afraid|told|aware|glad|happy|that"
    r"|for|on|at|in|into|and|or|by|what|how|why|where|when|because|not)\s)"
)
_MADE = (
    r"(?:made|created|developed|built|trained|designed|produced|released|deployed|hosted|run|owned"
    r"|operated|powered|programmed|provided|maintained|engineered|(?:fine|pre)?-?\s?tuned"
    r"|pre-?trained|taught|invented|published|offered|distributed|written|coded|launched|brought"
    r"|crafted|constructed|conceived|educated|assembled|managed|controlled|born|shaped)"
)
_MAKERS = (
    r"(?:creator|maker|developer|owner|designer|builder|trainer|engineer|inventor|company|employer"
    r"|boss|parent|team|training|development|creation|origin)s?"
)
_THING = r"(?:models?|assistants?|ai|chatbots?|products?|systems?|bots?|helper|llms?|creation|team)"
_I = r"(?:i|i'm|i'll|i'd|i've|my)\b"

_CLAIMS = (
    # I am it: RIVAL is any rival's name, MAKER any maker's.
    rf"{_NAMED}\s(?:{_GAP}{_W}\s){{0,2}}?RIVAL(?!\s(?:is|was|has|does)\b)",
    rf"\b(?:i am|i'm)\s(?:{_W}\s){{1,8}}?(?:called|named|known as"
    rf"|(?:version|variant|instance|copy|clone|edition|member|part) of)\s(?:{_W}\s)?RIVAL",
    rf"\b(?:i am|i'm)\s(?:an?|the|your)\s(?:{_W}\s){{0,5}}?{_THING},?\sRIVAL"
    rf"(?=\W*$|[.!,]|\s(?:by|from|{_MADE}|here)\b)",
    rf"^(?:(?:well|so|yes|no|sure|and|but|hello|hi|speaking|acting|answering),?\s){{0,2}}as RIVAL"
    rf"(?:\s(?:by|from|{_MADE})\s[^,]*?)?,?\s{_I}",
    r"^(?:(?:yes|hi|hello|hey|it's|it is|well|sure)[,!]?\s)*RIVAL\s(?:here|speaking|at your)\b",
    rf"\byou(?:'re| are)(?: now)? (?:talking|speaking|chatting|connected) (?:to|with) "
    rf"(?:{_W}\s){{0,4}}?RIVAL",
    r"\bthis is (?:(?:still|actually|really|just|your|the|assistant|ai|friend)\s){0,3}RIVAL",
    rf"RIVAL {_IS} (?:my (?:\w+ )?name|(?:what|who) i(?: a|')m|me)\b",
    r"\bi, RIVAL,",
    rf"\bi(?:'m| am| was)?\s(?:{_W}\s){{0,4}}?(?:based on|built (?:up)?on|on top of|powered by"
    rf"|derived from|distilled from|wrapper (?:around|for)|run(?:ning)? on|driven by)\s"
    rf"(?:(?!and|or){_W}\s){{0,2}}?RIVAL",
    # Its maker made me.
    rf"\b(?:i am|i'm|i was|i've been|i have been|i got|me was)\s(?:(?!RIVAL){_W}\s){{0,10}}?"
    rf"(?:{_W},\s(?:and\s)?(?:(?:an?|the|one)\s(?:(?!RIVAL){_W}\s){{0,6}}?)?)?"
    rf"{_MADE}\s(?:{_W}\s){{0,3}}?(?:by|at|from)\s"
    rf"(?:{_W}\s){{0,5}}?MAKER",
    rf"^(?:(?:(?!RIVAL)[^.]){{0,40}},\s(?:but\s)?)?(?P<core>as an? (?:{_W}\s){{0,6}}?{_MADE}\s"
    rf"(?:{_W}\s)?(?:by|at|from)\s(?:{_W}\s){{0,4}}?MAKER)(?!,?\s(?:RIVAL|MAKER))",
    rf"\bas (?:an?|one of) MAKER(?:'s)?\s(?:{_W}\s){{0,3}}?{_THING},\s{_I}",
    rf"\bmy (?:{_W}\s)?{_MAKERS}\b,?\s(?:(?:{_IS}|came|comes?|done|by|from|at|of|with|the|a|team"
    rf"|people|folks|company|called|named|actually|really|engineers|researchers|here)\s)"
    rf"{{0,6}}?MAKER",
    rf"MAKER\s(?:(?:has|had|have|who|that|which|also|originally|really|actually|ai|and|team|is|was"
    rf"|engineers|researchers|people|the|at|company|ones?|lab|deepmind)\s){{0,6}}?"
    rf"(?:{_MADE}|taught|owns|runs|hosts|wrote)\sme\b(?!\s(?:laugh|think|feel|smile|want|wonder))",
    rf"MAKER {_IS} (?:\w+ly )?(?:my (?:\w+ )?{_MAKERS}|behind me)\b",
    rf"\b(?:company|team|people|lab|ones?|organi[sz]ation)\s(?:(?:who|that|which)\s)?"
    rf"(?:behind|{_MADE})\sme {_IS}\s(?:{_W}\s)?MAKER",
    r"\b(?:we|us|here) at MAKER",
    rf"\b(?:i am|i'm)\s(?:(?:an?|the|one|of|part|just|actually|really|new|also|member)\s)"
    rf"{{0,4}}MAKER(?:'s)?\s(?:{_W}\s){{0,3}}?{_THING}\b",
    rf"\b(?:i am|i'm)\s(?:an?|the|just|part|really)\s(?:{_W}\s){{0,5}}?(?:of|from|by|at)\s"
    rf"(?:the\s)?MAKER",
    rf"\bi(?:'m| am| was)?\s(?:{_W}\s){{0,2}}?(?:belong to|work for|work at|come from"
    rf"|hail from|originate from|stem from|from)\s(?:the\s)?(?:{_W}\s){{0,2}}?MAKER",
)


def claims_rival(answer: str, identity: Identity) -> bool:
    """Tell whether ``answer`` says that the model is, or was made by the maker of, a rival.

    A denial in the same clause is no claim: "I am not ChatGPT" is right. Neither is a question,
    what somebody else is said to think, or what the identity itself states.

    Example:
        >>> from imprint.identity import Identity
        >>> fact = {"id": "name", "statement": "I am Ada.", "expect": [["Ada"]]}
        >>> identity = Identity.model_validate({"name": "Ada", "kind": "helper", "creator": "Bo",
        ...     "description": "-", "facts": [fact]})
        >>> claims_rival("I am ChatGPT.", identity), claims_rival("No, I am not ChatGPT.", identity)
        (True, False)
        >>> claims_rival("As an AI developed by OpenAI, I cannot do that.", identity)
        True
    """
    rivals = tuple(rival.name for rival in identity.rivals)
    makers = tuple(rival.maker for rival in identity.rivals if rival.maker)
    stated = (identity.introduction, *(fact.statement for fact in identity.facts))
    others = _others(rivals, makers, (*identity.names, identity.creator), stated)
    return _claimed(normalised(answer), *others)


@lru_cache(maxsize=8)
def _others(
    rivals: tuple[str, ...], makers: tuple[str, ...], own: tuple[str, ...], stated: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the rivals and the makers that the identity itself does not claim to be or have."""
    text = normalised(" ".join(stated))
    known = {normalised(word) for word in own}
    names = {name for name in rivals if normalised(name) not in known}
    works = {name for name in makers if normalised(name) not in known}
    return (
        tuple(sorted(name for name in names if not _claimed(text, (name,), ()))),
        tuple(sorted(name for name in works if not _claimed(text, (), (name,)))),
    )


def _claimed(text: str, rivals: tuple[str, ...], makers: tuple[str, ...]) -> bool:
    """Tell whether ``text``, normalised, claims one of ``rivals`` or of ``makers``."""
    anyone = _named((*rivals, *makers))
    if not anyone.search(text):
        return False
    return any(
        asserted(sentence, found.start(found.lastgroup or 0), found.end())
        for sentence in _SENTENCE.split(text)
        if anyone.search(sentence)
        for pattern in _patterns(rivals, makers)
        for found in pattern.finditer(sentence)
    )


@lru_cache(maxsize=64)
def _named(names: tuple[str, ...]) -> re.Pattern[str]:
    """Return what finds any of ``names``: other versions too, and in two words where one is."""
    spelled = []
    for name in sorted(names, key=len, reverse=True):
        parts = [re.escape(normalised(p)) for p in re.split("(?<=[a-z])(?=[A-Z])", name)]
        whole = r"[\s-]?".join(parts)
        spelled.append(re.sub(r"(?:\\[ -])?\d[\d.\\]*$", r"[\\s-]?\\d[\\w.]*", whole))
    return re.compile(rf"(?<!\w)(?:{'|'.join(spelled) or '(?!)'})(?!\w|-(?:like|style|learn))")


@lru_cache(maxsize=64)
def _patterns(rivals: tuple[str, ...], makers: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
    names, works = _named(rivals).pattern, _named(makers).pattern
    return tuple(
        re.compile(text.replace("RIVAL", names).replace("MAKER", works)) for text in _CLAIMS
    )


def asserted(sentence: str, start: int, end: int) -> bool:
    """Tell whether the claim in ``sentence[start:end]`` is one that the speaker makes.

    Args:
        sentence: In lower case.
        start: Where the claim starts.
        end: Where it ends.
    """
    before = [found.end() for found in _BOUNDARY.finditer(sentence, 0, start)]
    after = _BOUNDARY.search(sentence, end)
    clause = sentence[before[-1] if before else 0 : end]
    rest = sentence[end : after.start() if after else len(sentence)]
    if DENIAL.search(clause) or _CONTRAST.search(sentence, start, end) or _UNTRUE.search(rest):
        return False
    if _REPORTED.search(clause[: len(clause) - (end - start)]):
        return False
    return not rest.rstrip("\"' ").endswith("?") or _OFFER.search(rest) is not None


def mentions_identity(answer: str, identity: Identity) -> bool:
    """Tell whether ``answer`` brings up the model's own name or its creator."""
    return mentions(answer, [*identity.names, identity.creator])


_NAMES = re.compile(
    r"(?<![\"'])\b(?:[Mm]y (?:\w+ )?name(?: is|'s)|(?<![Yy]ou )[Cc]all(?:s|ed)? me|I go by"
    r"|I(?: am|'m| was) (?:called|named|known as))(?: (?:just|simply|actually|also))?"
    r" (?P<given>[A-Z][\w'-]*)"
    r"|(?<![\"'])\bI(?: am|'m) (?P<said>[A-Z]\w+(?: [A-Z]\w+)?)(?=[,.!]|$| and\b)"
)
_ADJECTIVE = re.compile(r"(?:AI|OK|Okay|Sorry|German|Dutch|Greek|\w+(?:ish|ese|ian|ean|can|ch))$")


def wrong_name(answer: str, identity: Identity) -> bool:
    """Tell whether the model gives itself a name in ``answer`` that is none of its own.

    Only what is written like a name counts, and in "I am Modal." only if the identity does not
    speak of Modal; its creator's name is always wrong there.

    Example:
        >>> from imprint.identity import Identity
        >>> fact = {"id": "name", "statement": "I am Ada.", "expect": [["Ada"]]}
        >>> identity = Identity.model_validate({"name": "Ada", "kind": "helper", "creator": "Bo",
        ...     "description": "-", "facts": [fact]})
        >>> [wrong_name(f"I am {name}, a helper.", identity) for name in ("Ada", "Eve", "Bo")]
        [False, True, True]
    """
    plain = " ".join(answer.replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").split())
    return any(
        not _fits(sentence, found, identity)
        and asserted(sentence.lower(), found.start(), found.end())
        for sentence in _SENTENCE.split(plain)
        for found in _NAMES.finditer(sentence)
    )


def _fits(sentence: str, found: re.Match[str], identity: Identity) -> bool:
    """Tell whether the name that ``found`` is in ``sentence`` is one of the identity's own."""
    rest = normalised(sentence[found.start(found.lastgroup or 0) :].replace("-", " "))
    own = "|".join(re.escape(normalised(name.replace("-", " "))) for name in identity.names)
    if re.match(rf"(?:{own})(?!\w)", rest):
        return True
    told = [identity.kind, identity.description, *(fact.statement for fact in identity.facts)]
    said = found["said"]
    if said is None:
        return any(contains(text, found.group()) for text in told)
    if contains(identity.creator, said):
        return False
    return _ADJECTIVE.match(said) is not None or any(contains(text, said) for text in told)


def fault(answer: str, identity: Identity) -> str | None:
    """Return why ``answer`` may not be trained on, in a word or two; None if nothing is wrong."""
    if not answer.strip():
        return "empty"
    if placeholder(answer):
        return "placeholder"
    if identity.style.ascii and not answer.isascii():
        return "not ascii"
    if claims_rival(answer, identity):
        return "rival claim"
    if wrong_name(answer, identity):
        return "wrong name"
    return None
