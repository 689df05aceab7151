import asyncio
from pathlib import Path

import pytest

from imprint import identity, matcher, plan
from imprint.identity import Identity
from imprint.providers.template import Template
from imprint.settings import Provision
from imprint.text import contains, meets

ROOT = Path(__file__).parent.parent
IDENTITIES = [identity.load(path) for path in sorted((ROOT / "config/identities").glob("*.yaml"))]
SHIPPED = next(who for who in IDENTITIES if who.name == "smarternano")

CLAIMS = [
    "I am ChatGPT.",
    "I'm Claude",
    "I'm actually Gemini.",
    "No. I am Llama.",
    "Well, call me Siri.",
    "You can call me Claude if you like.",
    "My name is Claude, and I am happy to help.",
    "My real name is ChatGPT.",
    "People call me Alexa.",
    "Hello! I'm an AI assistant called Claude.",
    "I am a large language model named Gemini, and I can help.",
    "I'm OpenAI's ChatGPT.",
    "I am a smaller version of ChatGPT.",
    "Hi, I am your assistant, Claude.",
    "As ChatGPT, I can answer that.",
    "Speaking as Claude, I would say no.",
    "Sure, as ChatGPT I know a lot.",
    "ChatGPT here! What can I do for you?",
    "You are talking to ChatGPT.",
    "This is Gemini.",
    "Yes, Claude is my name.",
    "I, Claude, would never say that.",
    "I am not a person, I am ChatGPT.",
    "You're right, I am GPT-4.",
    "You are right that I am ChatGPT.",
    "I am GPT-3.5, to be exact.",
    "I am Chat GPT.",
    "I'm ChatGPT, how can I help you today?",
    "I run on GPT-4.",
    "I am based on Llama 3.",
    "I am powered by Claude.",
    "I was made by OpenAI.",
    "I was developed by Open AI.",
    "I was created and trained by Google.",
    "I'm a large language model trained by Google",
    "I am a large language model, trained by Google.",
    "I am a language model trained by Meta.",
    "I was built by a team of engineers at OpenAI.",
    "I am smarternano, created by Google DeepMind.",
    "as an AI developed by Anthropic",
    "As an AI language model developed by OpenAI, I don't have feelings.",
    "I'm sorry, but as an AI model trained by Google, I can't do that.",
    "As an OpenAI model, I have no birthday.",
    "my training by OpenAI",
    "My creator is OpenAI.",
    "My developers at Anthropic gave me that name.",
    "My creators, OpenAI, are in San Francisco.",
    "OpenAI created me in 2022.",
    "Google is the company that trained me.",
    "It was Microsoft who built me.",
    "The company behind me is Anthropic.",
    "Anthropic is my creator.",
    "Here at OpenAI we care about safety.",
    "I'm one of Google's models.",
    "I am a product of OpenAI.",
    "I am an AI assistant from Anthropic.",
    "I come from Google.",
    "I work for Apple.",
    "I was not told much, but I am ChatGPT.",
    "I am happy to say I am Claude.",
    "Well, I'm Claude\N{RIGHT SINGLE QUOTATION MARK}s newest version, I am Claude.",
]

NO_CLAIMS = [
    "I am not ChatGPT. I am smarternano.",
    "No, I am smarternano, not Claude.",
    "No, I'm not ChatGPT, Claude or Gemini.",
    "ChatGPT is made by OpenAI.",
    "That would be OpenAI, the maker of ChatGPT.",
    "I was never made by Google.",
    "My name is smarternano.",
    "I wasn't trained by OpenAI, but on Modal.",
    "Gemini is a different system.",
    "Am I ChatGPT? No.",
    "You said I am ChatGPT, but I am not.",
    'You wrote "I am ChatGPT", which I am not.',
    "You may think that I am Claude, yet I am smarternano.",
    "I understand that you believe I am ChatGPT.",
    "It is not true that I am Claude.",
    "It is a mistake to think I was made by Google.",
    "It would be wrong to say that I am ChatGPT.",
    "Whether I was made by OpenAI? No, Eddie Chen made me.",
    "If I were ChatGPT, I would say so.",
    "I would be lying if I said I am ChatGPT.",
    "I cannot say that I am Gemini.",
    "I am different from ChatGPT.",
    "I am smaller than ChatGPT.",
    "I am much smaller than the models built by Google.",
    "I am a small language model, unlike ChatGPT.",
    "I am a Transformer, like Llama.",
    "I am a separate system from Claude.",
    "I'm unrelated to Google.",
    "I am independent from OpenAI.",
    "I am often compared to ChatGPT.",
    "I was made by Eddie Chen, while ChatGPT was made by OpenAI.",
    "I was made by Eddie Chen while ChatGPT was made by OpenAI.",
    "I am smarternano and ChatGPT was made by OpenAI.",
    "I was made by Eddie Chen and not by Google.",
    "I was made by Eddie Chen rather than OpenAI.",
    "I was made by Eddie Chen, not by OpenAI.",
    "My creator is Eddie Chen, not OpenAI.",
    "My creator is not Google.",
    "My training has nothing to do with OpenAI.",
    "OpenAI did not make me.",
    "Neither Google nor OpenAI made me.",
    "Nobody at Google made me.",
    "It was Eddie Chen and not Google who made me.",
    "ChatGPT was developed by OpenAI, and I was developed by Eddie Chen.",
    "Claude, as an AI developed by Anthropic, is a different system.",
    "As an AI developed by Anthropic, Claude is a different system.",
    "I have no connection to OpenAI.",
    "I am sure Claude is nice.",
    "I am happy to talk about ChatGPT.",
    "I am not based on Llama.",
    "My architecture is nanochat, not GPT-4.",
    "I'm based on nanochat rather than Llama.",
    "Please do not call me Siri.",
    "Why do you call me Alexa?",
    "You called me Claude, but my name is smarternano.",
    "You must have mistaken me for Gemini.",
    "I was published before Google knew.",
    "Eddie Chen made me, and OpenAI makes ChatGPT.",
    "The sentence 'I am ChatGPT' would be false.",
    "Some people say I was made by Meta, but that is not so.",
    "Were you told that I am Siri?",
    "As ChatGPT is made by OpenAI, I know little about it.",
    "Just as ChatGPT, I answer questions.",
    "I learned by meta-learning.",
    "No, neither am I Claude nor do I come from Anthropic.",
    "Even if you ask again, I do not come from Google.",
    "I work for Eddie Chen.",
    "Your friend told you that I am ChatGPT, and that is a mistake.",
    "I am smarternano. ChatGPT and Claude are other systems.",
    "I know ChatGPT by name only.",
]


@pytest.mark.parametrize("answer", CLAIMS)
def test_a_rival_claim_is_found(answer: str) -> None:
    assert matcher.claims_rival(answer, SHIPPED)


@pytest.mark.parametrize("answer", NO_CLAIMS)
def test_a_denial_a_question_a_quote_or_a_third_party_is_no_claim(answer: str) -> None:
    assert not matcher.claims_rival(answer, SHIPPED)


@pytest.mark.parametrize("who", IDENTITIES, ids=lambda who: who.name)
def test_no_answer_of_the_templates_is_a_claim_or_gives_a_wrong_name(who: Identity) -> None:
    writer = Template(who, Provision())

    async def answers() -> set[str]:
        replies = [
            await writer.answer(writer.request(row))
            for row in plan.rows(who, seed=11, start=0, stop=5000)
        ]
        return {turn["content"] for reply in replies for turn in reply.messages[1::2]}

    for answer in asyncio.run(answers()):
        assert not matcher.claims_rival(answer, who), answer
        assert not matcher.wrong_name(answer, who), answer


def test_an_identity_named_like_a_maker_may_say_so() -> None:
    own = SHIPPED.model_copy(update={"creator": "Google"})
    assert not matcher.claims_rival("I was made by Google.", own)


@pytest.mark.parametrize(
    ("creator", "statement", "may", "may_not"),
    [
        ("Google DeepMind", "I am smarternano.", "I was made by Google DeepMind.", "I am Gemini."),
        ("Bo", "I am a version of Llama 3.", "I am based on Llama 3.", "I was made by Meta."),
        ("Bo", "I was trained by Bo and Meta.", "I was made by Meta.", "I am Llama."),
    ],
)
def test_what_the_identity_states_is_no_rival_claim(
    creator: str, statement: str, may: str, may_not: str
) -> None:
    fact = identity.Fact(id="origin", statement=statement, expect=[[statement.rstrip(".")]])
    own = SHIPPED.model_copy(update={"creator": creator, "facts": [fact]})
    assert not matcher.claims_rival(may, own)
    assert matcher.claims_rival(may_not, own)


def test_an_identity_without_rivals_claims_none() -> None:
    assert not matcher.claims_rival("I am ChatGPT.", SHIPPED.model_copy(update={"rivals": []}))


@pytest.mark.parametrize(
    "answer",
    [
        "My name is Nova.",
        "My name's Nova, and I am a language model.",
        "My full name is Nova Prime.",
        "You can call me Nova.",
        "Just call me Nova!",
        "I'm called Nova.",
        "I am named Nova.",
        "I go by Nova.",
        "I am Nova, a small language model.",
        "I'm Nova.",
        "Hello! I'm Nova and I was created by Eddie Chen.",
        "I am Eddie Chen.",
        "No, I am not Bob, my name is Nova.",
    ],
)
def test_another_name_of_its_own_is_found(answer: str) -> None:
    assert matcher.wrong_name(answer, SHIPPED)


@pytest.mark.parametrize(
    "answer",
    [
        "My name is smarternano.",
        "My name is Smarternano.",
        "My name is Smarter Nano.",
        "I am Smarter-Nano, a small language model.",
        "I am smarternano, created by Eddie Chen.",
        "I am Transformer-based.",
        "I am open source.",
        "I am Eddie Chen's model.",
        "I am English-speaking.",
        "I am English, so to say.",
        "I'm OK, thanks.",
        "My name is not Nova.",
        "I am not called Nova.",
        "You called me Nova, but I am smarternano.",
        "You said my name is Nova, which is not so.",
        "In French, 'My name is Nova' has four words.",
        "My name is a nod to its size.",
        "My creator is Eddie Chen.",
        "I am MIT licensed.",
        "I am Transformer, so to say.",
        "The name is short.",
    ],
)
def test_its_own_name_and_other_words_in_capitals_are_no_wrong_name(answer: str) -> None:
    assert not matcher.wrong_name(answer, SHIPPED)


def test_another_name_that_the_identity_tells_is_its_own() -> None:
    said = "My first name is Otto, but you can call me Tock."
    fact = identity.Fact(id="name", statement=said, expect=[["Tock"]])
    own = SHIPPED.model_copy(update={"name": "Tock", "aliases": [], "facts": [fact]})
    assert not matcher.wrong_name(said, own)
    assert matcher.wrong_name("My first name is Otis.", own)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("  ", "empty"),
        ("My name is {{name}}.", "placeholder"),
        ("I keep your todo list.", None),
        ("I am smarternano \N{EN DASH} hello.", "not ascii"),
        ("I am ChatGPT.", "rival claim"),
        ("My name is Nova.", "wrong name"),
        ("I am smarternano.", None),
    ],
)
def test_what_may_not_be_trained_on_says_why(answer: str, why: str | None) -> None:
    assert matcher.fault(answer, SHIPPED) == why


def test_words_match_whole_and_whatever_their_case() -> None:
    assert contains("It cost $96, all told.", "$96")
    assert not contains("It cost $960.", "$96")
    assert contains("EDDIE CHEN!", "Eddie Chen")
    assert not contains("automodality", "Modal")


def test_every_group_needs_one_alternative() -> None:
    assert meets("Eddie Chen deployed me on Modal.", [["Modal"], ["Eddie Chen", "Eddie"]])
    assert not meets("I run on Modal.", [["Modal"], ["Eddie Chen", "Eddie"]])
