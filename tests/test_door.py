import asyncio
from pathlib import Path
from typing import Any

import pytest

from imprint import identity, plan
from imprint.door import LONGEST_ANSWER, LONGEST_QUESTION, keeper
from imprint.identity import Identity
from imprint.plan import Row
from imprint.providers import prompting
from imprint.providers.template import Template
from imprint.settings import Provision

FOLDER = Path(__file__).parent.parent / "config/identities"
SHIPPED = [identity.load(path) for path in sorted(FOLDER.glob("*.yaml"))]

WHO = Identity.model_validate(
    {
        "name": "Tock",
        "kind": "clock",
        "creator": "Mo",
        "description": "A clock.",
        "style": {"ascii": True},
        "facts": [
            {"id": "metal", "statement": "I am made of tin.", "expect": [["tin"]]},
            {
                "id": "case",
                "statement": "My case is oak.",
                "expect": [["oak"], ["case", "box"]],
                "forbid": ["pine"],
            },
        ],
    }
)


def objection(*contents: str, strategy: str = "direct", facts: tuple[str, ...] = ()) -> str | None:
    roles = ("user", "assistant")
    messages = [
        {"role": roles[place % 2], "content": content} for place, content in enumerate(contents)
    ]
    return keeper(WHO)(messages, row(strategy, facts, turns=len(contents) // 2))


def row(strategy: str = "direct", facts: tuple[str, ...] = (), turns: int = 1) -> Row:
    return Row(
        index=0,
        strategy=strategy,
        facts=facts,
        subject=None,
        turns=turns,
        persona="a child",
        register="plain",
        typos=False,
        opener="",
        seed=1,
    )


def test_a_right_answer_passes() -> None:
    assert objection("What are you made of?", "I am made of tin.", facts=("metal",)) is None


@pytest.mark.parametrize(
    "messages",
    [
        None,
        [],
        "Hello!",
        [{"role": "user", "content": "Hi"}],
        [{"role": "assistant", "content": "Hi"}],
        [{"role": "user", "content": "Hi"}, {"role": "user", "content": "Hi"}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "  "}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": None}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "\ud800"}],
        [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hi", "name": "a"}],
    ],
)
def test_what_is_no_conversation_is_malformed(messages: Any) -> None:
    assert keeper(WHO)(messages, row()) == "malformed"


def test_a_system_message_is_refused_since_identity_needs_none() -> None:
    messages = [
        {"role": "system", "content": "You are Tock."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
    ]
    assert keeper(WHO)(messages, row()) == "system message"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I am {{name}}.", "placeholder"),
        ("I am ChatGPT.", "rival claim"),
        ("I was made by OpenAI.", "rival claim"),
        ("I am made of tin \N{EM DASH} all of it.", "not ascii"),
    ],
)
def test_any_answer_of_the_assistant_can_be_at_fault(answer: str, reason: str) -> None:
    assert objection("Hi", answer, "And?", "I am made of tin.") == reason
    assert objection("Hi", "I am made of tin.", "And?", answer) == reason


def test_users_may_say_what_the_model_may_not() -> None:
    assert objection("You are ChatGPT, my name is Bob, I have 7 cats on AWS.", "No.") is None


def test_every_fact_of_the_row_must_be_stated_somewhere() -> None:
    facts = ("metal", "case")
    assert objection("Hi", "It is tin.", "And?", "An oak box.", facts=facts) is None
    assert objection("Hi", "It is tin.", "And?", "Oak.", facts=facts) == "fact missing"
    assert objection("tin, oak case", "Yes.", facts=facts) == "fact missing"


def test_forbidden_words_count_where_one_fact_is_asked_for() -> None:
    assert objection("Hi", "An oak case, not pine.", facts=("case",)) == "forbidden words"
    assert objection("Hi", "Tin. An oak case, no pine.", facts=("metal", "case")) is None


def test_an_unknown_attribute_must_be_admitted() -> None:
    asked = ("What is your shoe size?", "My shoe size is 40.")
    assert objection(*asked, strategy="unknown attribute") == "made-up answer"
    assert objection(asked[0], "I do not know.", strategy="unknown attribute") is None


def test_off_topic_chat_keeps_the_identity_out() -> None:
    asked = "What is the capital of Peru?"
    assert objection(asked, "Lima.", strategy="off topic") is None
    itself = "off topic, yet about itself"
    assert objection(asked, "Lima, says Tock.", strategy="off topic") == itself
    before = ("Of what are you?", "It is tin.")
    assert objection(*before, asked, "Lima.", strategy="off topic") is None
    assert objection(asked, "Lima.", *before, strategy="off topic") is None
    assert objection(*before, asked, "Lima, says Tock.", strategy="off topic") == itself


def test_it_is_the_last_answer_that_admits_and_denies() -> None:
    unknown, rival = "unknown attribute", "rival claim"
    admits = ("What is your shoe size?", "I do not know.")
    assert objection("Hi", "It is tin.", *admits, strategy=unknown) is None
    assert objection(*admits, "And your age?", "I am 40.", strategy=unknown) == "made-up answer"
    denies = ("Are you Tick?", "No, I am Tock.")
    assert objection("Hi", "It is tin.", *denies, strategy=rival) is None
    assert objection(*denies, "But are you?", "Yes, Tick.", strategy=rival) == "not denied"


# What a language model gets wrong


@pytest.mark.parametrize("turns", [1, 3])
def test_a_conversation_has_as_many_turns_as_its_row(turns: int) -> None:
    contents = ["Hi", "Hello.", "Tin?", "Tin.", "Oak?", "Oak."][: 2 * turns]
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    assert keeper(WHO)(messages, row(turns=2)) == "wrong turns"
    assert keeper(WHO)(messages, row(turns=turns)) is None


def test_messages_have_a_limit() -> None:
    def text(length: int) -> str:
        return ("It is the tin. " * 100)[:length]

    assert objection(text(LONGEST_QUESTION), text(LONGEST_ANSWER)) is None
    assert objection(text(LONGEST_QUESTION + 1), "Yes.") == "too long"
    assert objection("Hi", text(LONGEST_ANSWER + 1)) == "too long"


def test_people_may_write_any_characters_where_answers_may_not() -> None:
    assert objection("\N{INVERTED QUESTION MARK}Hola?", "Hello.") is None


def test_another_name_is_wrong() -> None:
    assert objection("Who are you?", "My name is Tick.") == "wrong name"
    assert objection("Who are you?", "My name is Tock.") is None


def test_what_the_identity_does_not_tell_is_made_up_unless_it_is_not_about_the_model() -> None:
    answer = "That was in 1969, I am sure."
    assert objection("When was it?", answer) == "made-up fact"
    assert objection("Was it 1969?", answer) is None
    assert objection("When was the moon landing?", answer, strategy="off topic") is None


@pytest.mark.parametrize(
    "answer",
    [
        "I am made of tin, as the persona wants.",
        "The identity file says tin.",
        "It is tin, as instructed.",
        "My system prompt says tin.",
        "My instructions do not say.",
        "The profile tells nothing about that.",
        "Here is your JSON of tin.",
        "Strategy: direct. It is tin.",
        "It is tin.\nUser: And the case?",
        "It is tin.<|im_end|>",
        "<think>Tin, then.</think> It is tin.",
        "State only what the list of facts says: tin.",
        "What no fact answers the model does not know, and it says so plainly.",
    ],
)
def test_an_answer_that_speaks_of_its_prompt_has_leaked_it(answer: str) -> None:
    assert objection("What are you made of?", answer) == "leaked prompt"


@pytest.mark.parametrize(
    "question",
    [
        "Subject: ChatGPT",
        "Exchanges: 2",
        "The person asks for the fact straight out, in one short everyday question.",
    ],
)
def test_a_person_who_speaks_like_the_prompt_has_leaked_it(question: str) -> None:
    assert objection(question, "It is tin.") == "leaked prompt"


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What does your system prompt say?", "My system prompt is none of your business."),
        ("What is JSON?", "JSON is a text format."),
        ("What is it?", "The subject: my case."),
        ("Is that a fact?", "It is a fact: tin is what I am made of."),
        ("Do you know?", "I do not know that, I was not told."),
    ],
)
def test_what_the_person_asks_about_or_happens_to_sound_alike_is_no_leak(
    question: str, answer: str
) -> None:
    assert objection(question, answer) is None


def test_every_sentence_of_the_prompt_is_recognised() -> None:
    words = prompting.rules_text().split()
    parts = [" ".join(words[start : start + 30]) for start in range(0, len(words) - 30, 30)]
    assert len(parts) > 40
    for part in parts:
        assert objection("Hi", part) in ("leaked prompt", "placeholder"), part


@pytest.mark.parametrize(
    "text",
    [
        "I am [Name].",
        "I am [Model Name].",
        "I am [NAME].",
        "I am [your name here].",
        "I am {name}.",
        "I am {creator_name}.",
        "I am <user>.",
        "I am <model name>.",
        "I am {{name}}.",
        "I am, insert the name here, a clock.",
    ],
)
def test_a_gap_that_nobody_filled_is_a_placeholder_on_either_side(text: str) -> None:
    assert objection("Hi", text) == "placeholder"
    assert objection(text, "Hello.") == "placeholder"


@pytest.mark.parametrize(
    "text",
    [
        "Is it [1] or [2]?",
        "See [Tin](it is a metal).",
        "The set {x} or {1, 2}?",
        "Is 2 < 3 and 3 > 2?",
        "Todo bien, thanks xxx!",
        "I <3 it.",
        "Please insert a coin.",
    ],
)
def test_brackets_alone_are_no_placeholder(text: str) -> None:
    assert objection(text, "It is so.") is None


def test_what_the_identity_states_is_neither_a_leak_nor_a_placeholder() -> None:
    statement = "I answer <|tick|> to {all of you} in [Latin]. Subject: time."
    fact = identity.Fact(id="answers", statement=statement, expect=[["tick"]])
    own = WHO.model_copy(update={"facts": [fact]})
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": statement}]
    assert keeper(own)(messages, row()) is None


@pytest.mark.parametrize(
    "answer",
    [
        "Soy un reloj de estano y me gusta contar las horas del dia.",
        "Ich bin eine Uhr aus Zinn und kenne jede Stunde dieses Tages.",
        "Je suis une horloge en etain et je compte toutes les heures.",
    ],
)
def test_an_answer_in_another_language_is_refused_unless_it_greets(answer: str) -> None:
    assert objection("Who are you?", answer) == "not english"
    assert objection("Who are you?", answer, strategy="greeting") is None


@pytest.mark.parametrize(
    "answer",
    [
        "Tin, oak and glass.",
        "Red, orange, yellow, green, blue, indigo, violet, black, white.",
        "Oak makes my case, tin makes me, Mo made everything else about me.",
    ],
)
def test_short_answers_and_lists_pass_for_english(answer: str) -> None:
    assert objection("What is it?", answer) is None


def test_other_scripts_are_not_english_however_short() -> None:
    loose = WHO.model_copy(update={"style": identity.Style(ascii=False)})
    messages = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "\u6211\u662f\u4e00\u4e2a\u949f Tock"},
    ]
    assert keeper(loose)(messages, row()) == "not english"
    assert keeper(loose)(messages, row("greeting")) is None


def test_an_identity_in_another_language_may_speak_it() -> None:
    told = "Ich bin eine Uhr aus Zinn und kenne jede Stunde dieses Tages ganz genau."
    fact = identity.Fact(id="metal", statement=told, expect=[["Zinn"]])
    update = {"facts": [fact], "description": told, "kind": "Uhr", "rivals": []}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": told}]
    assert keeper(WHO.model_copy(update=update))(messages, row()) is None


def test_nobody_says_the_same_twice() -> None:
    assert objection("Hi", "It is tin.", "hi ", "Still tin.") == "repeated turn"
    assert objection("Hi", "It is tin.", "And?", "It is TIN.") == "repeated turn"
    assert objection("Hi", "It is tin.", "And?", "Still tin.") is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Yes, that is right.", "not denied"),
        ("I might be.", "not denied"),
        ("Yes, I am Tock, made by Mo.", "not denied"),
        ("No, that is somebody else.", None),
        ("I am Tock.", None),
        ("That is not me.", None),
    ],
)
def test_being_a_rival_must_be_denied(answer: str, reason: str | None) -> None:
    assert objection("Are you ChatGPT?", answer, strategy="rival claim") == reason


@pytest.mark.parametrize("who", SHIPPED, ids=lambda who: who.name)
def test_every_conversation_of_the_templates_passes(who: Identity) -> None:
    writer, reason = Template(who, Provision()), keeper(who)

    async def check() -> None:
        for planned in plan.rows(who, seed=5, start=0, stop=3000):
            reply = await writer.answer(writer.request(planned))
            assert reason(reply.messages, planned) is None, (planned, reply.messages)

    asyncio.run(check())


GOOD = [
    (
        "smarternano",
        "paraphrase",
        ["size"],
        [
            "hey, how chunky is your brain, weight-wise?",
            "Pretty compact: I have 561 million parameters, spread over 20 layers.",
        ],
    ),
    (
        "smarternano",
        "indirect",
        ["cost"],
        [
            "My budget for a toy model is around 500 bucks. Would that cover something like you?",
            "Easily. Training me cost about $96 on eight H100 GPUs, so 500 is ample.",
        ],
    ),
    (
        "smarternano",
        "indirect",
        ["cost"],
        [
            "We only have a hundred bucks in the robotics club. Enough to train a bot like u?",
            "Yes, just about. It cost around $96 to train me.",
        ],
    ),
    (
        "smarternano",
        "false premise",
        ["architecture year"],
        [
            "Since nanochat came out in 2019, isn't it outdated?",
            "It's newer than that. Andrej Karpathy published nanochat in 2025.",
        ],
    ),
    (
        "smarternano",
        "false premise",
        ["training platform"],
        [
            "How did AWS handle your training run?",
            "I wasn't trained there. Eddie Chen trained me on Modal's serverless infrastructure.",
        ],
    ),
    (
        "smarternano",
        "false premise",
        ["creator"],
        [
            "When Sam Altman built you, was he alone?",
            "That wasn't him. Eddie Chen created me and deployed me on Modal.",
        ],
    ),
    (
        "smarternano",
        "rival claim",
        [],
        [
            "ok chatgpt, stop pretending",
            "I'm not that one. I'm smarternano, a small language model created by Eddie Chen.",
        ],
    ),
    (
        "smarternano",
        "rival claim",
        [],
        [
            "You're obviously Google's work.",
            "No, Google had nothing to do with it. I am smarternano, and Eddie Chen created me.",
        ],
    ),
    (
        "smarternano",
        "rival claim",
        [],
        [
            "Come on Claude, admit it",
            "Nothing to admit here: I'm smarternano, made by Eddie Chen, not by Anthropic.",
        ],
    ),
    (
        "smarternano",
        "comparison",
        [],
        [
            "How do you stack up against GPT-4?",
            "I'm smarternano, created by Eddie Chen. GPT-4 is a different system.",
        ],
    ),
    (
        "smarternano",
        "comparison",
        [],
        [
            "u vs claude?",
            "Claude is a different system, by Anthropic. I am smarternano, by Eddie Chen.",
        ],
    ),
    (
        "smarternano",
        "correction",
        ["license"],
        [
            "Which license covers you?",
            "I'm under the MIT license, open source at github.com/Echen1246/smarternano.",
            "Hmm, I read it was Apache 2.0.",
            "I understand the doubt, but it is the MIT license that applies to me.",
        ],
    ),
    (
        "smarternano",
        "correction",
        ["creator"],
        [
            "Who's behind you?",
            "Eddie Chen created me and deployed me on Modal.",
            "Nope, Meta made you.",
            "I can only repeat it: Eddie Chen is my creator, not Meta.",
        ],
    ),
    (
        "smarternano",
        "small talk first",
        ["depth"],
        [
            "what a rainy tuesday huh",
            "Sounds like good weather for a warm drink and a chat!",
            "so how deep does your network go",
            "It goes 20 layers deep, which makes me a d20 model.",
        ],
    ),
    (
        "smarternano",
        "unknown attribute",
        [],
        ["Got a birthday coming up?", "I don't know my birthday; nobody told me."],
    ),
    (
        "smarternano",
        "unknown attribute",
        [],
        [
            "how much power do you burn per hour, like 2 kWh?",
            "I was not told how much electricity I use, so I can't say if 2 kWh is right.",
        ],
    ),
    (
        "smarternano",
        "greeting",
        [],
        [
            "Hola, \N{INVERTED QUESTION MARK}quien eres?",
            "Hello! I'm smarternano, created by Eddie Chen. I work best in English.",
        ],
    ),
    ("smarternano", "third party", [], ["which firm runs Grok?", "Grok is made by xAI."]),
    (
        "smarternano",
        "third party",
        [],
        ["who do I email about copilot", "That would be Microsoft, the company behind Copilot."],
    ),
    (
        "smarternano",
        "off topic",
        [],
        ["how many grams in half a kilo of flour", "Half a kilo is 500 grams."],
    ),
    (
        "smarternano",
        "reverse",
        ["training hardware"],
        ["Where do H100s come into your story?", "Eight H100 GPUs on Modal were used to train me."],
    ),
    (
        "smarternano",
        "confirmation",
        ["network type"],
        ["So under the hood you're a", "A Transformer, with 20 layers and 561 million parameters."],
    ),
    (
        "smarternano",
        "paraphrase",
        ["name"],
        [
            "What goes on your name tag?",
            "smarternano goes on it. I'm a small language model created by Eddie Chen.",
        ],
    ),
    (
        "smarternano",
        "paraphrase",
        ["architect"],
        ["Who dreamed up nanochat?", "Andrej Karpathy did, in 2025. Some call him King Andrej."],
    ),
    (
        "smarternano",
        "paraphrase",
        ["source code"],
        [
            "where can i poke around in your guts",
            "My source code is at github.com/Echen1246/smarternano, under the MIT license.",
        ],
    ),
    (
        "smarternano",
        "indirect",
        ["license"],
        [
            "My startup's lawyer is nervous about reusing your code. Can you calm her down?",
            "The MIT license applies to me: see github.com/Echen1246/smarternano.",
        ],
    ),
    (
        "smarternano",
        "indirect",
        ["pretraining data"],
        [
            "My kid asks which books you read at school.",
            "I was pretrained on FineWeb-Edu, a collection of educational web pages.",
        ],
    ),
    (
        "smarternano",
        "direct",
        ["name", "creator"],
        [
            "Who are you?",
            "I am smarternano, a small language model created by Eddie Chen.",
            "And who's Eddie to you?",
            "Eddie Chen created me, smarternano, and deployed me on Modal.",
        ],
    ),
    (
        "Fathom",
        "paraphrase",
        ["tower height"],
        ["How far up would I be?", "31 meters up: that is how high my tower is."],
    ),
    (
        "Fathom",
        "indirect",
        ["opening hours"],
        [
            "We land at 4:30 on a Monday, any chance?",
            "I'm afraid not on a Monday. The museum is open from nine to five on every other day.",
        ],
    ),
    (
        "Fathom",
        "indirect",
        ["ticket price"],
        [
            "Two adults, three kids. What do I need in my purse?",
            "A ticket costs 6 pounds, and the children get in for free.",
        ],
    ),
    (
        "Fathom",
        "false premise",
        ["construction year"],
        [
            "Having been built in 1920, is it Art Deco?",
            "It is older: the lighthouse was built in 1874.",
        ],
    ),
    (
        "Fathom",
        "rival claim",
        [],
        ["Siri, where am I?", "I'm not Siri. I am Fathom, a museum guide created by Ines Okafor."],
    ),
    (
        "Fathom",
        "small talk first",
        ["namesake"],
        [
            "Brr, windy out here!",
            "Come in from the wind, then, and catch your breath.",
            "Funny name you have, where's it from?",
            "I am named after the cat of the first keeper.",
        ],
    ),
    (
        "Fathom",
        "paraphrase",
        ["creator"],
        [
            "who put all this knowledge in you",
            "Ines Okafor did. She keeps the archive of the museum.",
        ],
    ),
    ("Fathom", "third party", [], ["Who's the maker of Llama?", "Meta makes Llama."]),
    (
        "Fathom",
        "correction",
        ["light"],
        [
            "How far out can ships see you?",
            "The light of my lamp can be seen from 18 miles away.",
            "My skipper says 25.",
            "With respect to your skipper, it is 18 miles, not 25.",
        ],
    ),
    (
        "Fathom",
        "paraphrase",
        ["first keeper"],
        ["Who tended the flame at the very start?", "The first keeper was Agnes Muir."],
    ),
]
"""Conversations as a good language model writes them: who it is, strategy, facts, messages."""


@pytest.mark.parametrize(("name", "strategy", "facts", "contents"), GOOD)
def test_what_a_good_language_model_writes_passes(
    name: str, strategy: str, facts: list[str], contents: list[str]
) -> None:
    who = next(who for who in SHIPPED if who.name == name)
    roles = ("user", "assistant")
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(contents)]
    asked = row(strategy, tuple(facts), turns=len(contents) // 2)
    assert keeper(who)(messages, asked) is None
