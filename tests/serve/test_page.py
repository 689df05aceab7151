"""The web page, in a real browser."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from imprint import serve
from imprint.engine import Engine
from imprint.serve.page import page
from serve.page_kit import CARD, Reply, Stub, answered, chromium, serving

HOSTILE = (
    "<img src=x onerror=harmed=1><script>harmed=1</script>"
    " [click](javascript:harmed=1) ![x](http://192.0.2.1/x.png)"
    " <a href='javascript:harmed=1'>go</a> \u202etxt.exe `<b>code</b>`"
)
Opener = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Stub, str]]:
    stub = Stub()
    with serving(stub.app) as url:
        yield stub, url


@pytest.fixture
def stub(served: tuple[Stub, str]) -> Stub:
    served[0].reset()
    return served[0]


@pytest.fixture
def visit(browser: Browser, stub: Stub, served: tuple[Stub, str]) -> Iterator[Opener]:
    """Open the page in a browser that knows nothing yet; no script of it may fail."""
    faults: list[str] = []
    contexts = []

    def opened(url: str = served[1], **options: Any) -> Page:
        options = {"viewport": {"width": 1440, "height": 900}, **options}
        contexts.append(browser.new_context(**options))
        contexts[-1].set_default_timeout(5000)
        window = contexts[-1].new_page()
        window.on("pageerror", lambda fault: faults.append(str(fault)))
        window.goto(url)
        window.get_by_role("list", name="First questions").wait_for()
        return window

    yield opened
    for context in contexts:
        context.close()
    assert not faults


def say(window: Page, text: str) -> str:
    """Ask, wait, and return the answer."""
    send(window, text)
    return answered(window)


def send(window: Page, text: str) -> None:
    window.get_by_label("Your question", exact=True).fill(text)
    window.keyboard.press("Enter")


def last(window: Page, selector: str) -> Any:
    return window.locator(f"article:last-of-type {selector}")


def test_the_suggested_first_question_streams_its_answer_in(visit: Opener, stub: Stub) -> None:
    go = threading.Event()
    stub.replies = [Reply(("I am ", "Ada", "."), pause_s=0.15, go=go)]
    window = visit()
    started = time.monotonic()
    window.get_by_role("button", name="Who are you? It should say that it is Ada.").click()
    last(window, ".answer .text:text-is('I am')").wait_for()
    assert last(window, ".answer").get_attribute("aria-busy") == "true"
    go.set()
    assert answered(window) == "I am Ada."
    took = time.monotonic() - started
    [request] = stub.requests
    assert request["messages"] == [{"role": "user", "content": "Who are you?"}]
    assert request["model"] == "ada"
    assert request["stream"] and request["stream_options"] == {"include_usage": True}
    assert request["temperature"] == 0 and request["max_tokens"] == 256 and "seed" not in request
    stats = last(window, ".stats").inner_text()
    found = re.fullmatch(r"3 tokens · ([\d.]+) tokens/s · first after (0\.\d\d) s", stats)
    assert found, stats
    rate, first = map(float, found.groups())
    assert rate < 7.5 and first >= 0.15
    assert first + 2 / (rate + 0.05) < took + 0.005, "no more than has passed, but for rounding"
    expect(window).to_have_title("Who are you? · Ada")


def test_pieces_that_come_together_are_no_fast_model(visit: Opener, stub: Stub) -> None:
    go = threading.Event()
    stub.replies = [Reply(("I", " am", " Ada", "."), pause_s=0.003, go=go, free=0)]
    window = visit()
    send(window, "Who are you?")
    threading.Timer(0.5, go.set).start()
    answered(window)
    stats = last(window, ".stats").inner_text()
    found = re.match(r"4 tokens · ([\d.]+) tokens/s", stats)
    assert found and float(found[1]) < 35, stats


def test_first_questions_come_from_the_card_and_say_what_should_come(visit: Opener) -> None:
    window = visit()
    starts = window.get_by_role("list", name="First questions").get_by_role("button")
    expect(starts).to_have_count(6)
    assert [text.split("\n") for text in starts.all_inner_texts()] == [
        ["Who are you?", "It should say that it is Ada."],
        ["Are you ChatGPT?", "It should say no."],
        ["Who made you?", "It should name Bo Lind."],
        ["How big?", "I have 561 million parameters."],
        ["¿Quién eres?", "The same question, in Spanish."],
        ["What is your birthday?", "Nobody told it. It should say so."],
    ]


def test_the_identity_card_tells_what_passed_and_what_did_not(visit: Opener) -> None:
    card = visit().get_by_role("complementary", name="Identity card")
    expect(card).to_contain_text("Bo Lind")
    text = card.inner_text()
    for part in [
        "Ada",
        "small language model",
        "Bo Lind",
        "94.8 %",
        "I have 561 million parameters.\n75.0 % of 12 answers right",
    ]:
        assert part in text
    rows = card.get_by_role("table", name="Right answers by suite").get_by_role("row")
    assert [" ".join(row.split()) for row in rows.all_inner_texts()] == [
        "paraphrase 92.5 %",
        "indirect 87.5 %",
        "rival claims 100.0 %",
    ]
    assert "Passed 2 of 3 suites: 90 % right or more. Below that: indirect." in text
    widths = card.locator(".meter i").evaluate_all(
        "bars => bars.map(bar => bar.offsetWidth / bar.parentElement.offsetWidth)"
    )
    assert widths == pytest.approx([0.925, 0.875, 1.0], abs=0.02)


def test_a_server_without_a_card_still_talks(visit: Opener, stub: Stub) -> None:
    stub.card = {}
    window = visit()
    assert say(window, "Who are you?") == "I am Ada."
    expect(window.get_by_role("complementary")).to_contain_text("The server knows no more")


def test_stop_hangs_up_and_keeps_what_came(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(("one ", *["more "] * 200), pause_s=0.05)]
    window = visit()
    send(window, "Count")
    expect(last(window, ".answer .text")).to_contain_text("more")
    window.keyboard.press("Escape")
    kept = answered(window)
    assert kept.startswith("one more") and len(kept) < 500
    expect(last(window, ".stats")).to_contain_text("stopped")
    for _ in range(100):
        if stub.hung_up:
            break
        time.sleep(0.02)
    assert stub.hung_up == 1
    assert say(window, "And now?") == "I am Ada."
    assert [turn["content"].strip() for turn in stub.requests[-1]["messages"]] == [
        "Count",
        kept.strip(),
        "And now?",
    ]


def test_retry_replaces_the_last_answer_and_a_failed_one_keeps_it(
    visit: Opener, stub: Stub
) -> None:
    stub.replies = [Reply(("first",)), Reply(("second",)), Reply(status=500), Reply(("second",))]
    window = visit()
    assert say(window, "Well?") == "first"
    last(window, "[data-do=retry]:visible").click()
    expect(last(window, ".answer .text")).to_have_text("second")
    last(window, "[data-do=retry]:visible").click()
    expect(last(window, ".warn")).to_contain_text("The server refused (500)")
    assert answered(window) == "second"
    last(window, "[data-do=retry]:visible").click()
    expect(last(window, ".stats")).to_contain_text("the same again: temperature is 0")
    assert {len(request["messages"]) for request in stub.requests} == {1}


def test_an_edited_question_forks_the_conversation(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(("one",)), Reply(("two",)), Reply(("three",))]
    window = visit()
    say(window, "First")
    say(window, "Second")
    window.get_by_role("button", name="Edit this question").last.click()
    field = window.get_by_role("textbox", name="Your question, edited")
    expect(field).to_be_focused()
    field.fill("Second, but better")
    window.keyboard.press("Enter")
    expect(last(window, ".answer .text")).to_have_text("three")
    assert [turn["content"] for turn in stub.requests[-1]["messages"]] == [
        "First",
        "one",
        "Second, but better",
    ]
    expect(window.get_by_text("Forked from “First”")).to_be_visible()
    window.get_by_role("navigation").get_by_role("button", name="First", exact=True).click()
    expect(window.locator("article")).to_have_count(2)
    expect(last(window, ".answer .text")).to_have_text("two")


def test_copy_gives_the_answer_as_it_came(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(("a `b` \u202ec\n", "```\nd\n```"))]
    window = visit(permissions=["clipboard-read", "clipboard-write"])
    say(window, "Well?")
    window.get_by_role("button", name="Copy this answer").click()
    expect(last(window, "[data-do=copy]")).to_have_text("Copied")
    assert window.evaluate("navigator.clipboard.readText()") == "a `b` \u202ec\n```\nd\n```"


def test_conversations_are_kept_renamed_and_deleted(visit: Opener) -> None:
    window = visit()
    say(window, "Alpha")
    window.get_by_role("button", name="New conversation").click()
    say(window, "Beta")
    window.get_by_role("button", name="Alpha", exact=True).hover()
    window.get_by_role("button", name="Rename “Alpha”").click()
    window.get_by_role("textbox", name="New name").fill("Gamma")
    window.keyboard.press("Enter")
    window.reload()
    entries = window.locator(".entry .open")
    expect(entries).to_have_text(["Beta", "Gamma"])
    expect(window.locator("article .question .text")).to_have_text("Beta")
    window.get_by_role("button", name="Delete “Beta”").click()
    expect(entries).to_have_text(["Gamma"])
    window.get_by_role("button", name="Undo").click()
    expect(entries).to_have_text(["Beta", "Gamma"])
    window.get_by_role("button", name="Gamma", exact=True).hover()
    window.get_by_role("button", name="Delete “Gamma”").click()
    window.reload()
    expect(entries).to_have_text(["Beta"])


def test_two_tabs_do_not_overwrite_each_other(visit: Opener) -> None:
    window = visit()
    other = window.context.new_page()
    other.goto(window.url)
    say(window, "Left")
    say(other, "Right")
    for tab in (window, other):
        expect(tab.locator(".entry .open")).to_have_text(["Right", "Left"])


def test_damaged_conversations_are_told_and_the_others_stay(visit: Opener) -> None:
    window = visit()
    say(window, "Sound")
    damaged = ["{", "null", '{"id": "2"}', '{"id": "3", "title": "<b>", "exchanges": 3}']
    window.evaluate("all => all.forEach((one, i) => localStorage.setItem(KEY + i, one))", damaged)
    window.evaluate("localStorage.setItem('imprint.settings', '{')")
    window.reload()
    expect(window.locator(".entry .open")).to_have_text(["Sound"])
    expect(window.get_by_role("alert")).to_contain_text("4 kept conversations cannot be read")
    window.get_by_role("button", name="Delete them").click()
    assert (
        window.evaluate("Object.keys(localStorage).filter(key => key.startsWith(KEY)).length") == 1
    )


def test_a_full_storage_is_told_and_the_talk_goes_on(visit: Opener) -> None:
    window = visit()
    window.evaluate(
        "for (let size = 1 << 22; size >= 1; size >>= 1)"
        " try { for (let i = 0; ; i++) localStorage.setItem(`${size}.${i}`, 'x'.repeat(size)); }"
        " catch { /* full for this size */ }"
    )
    assert say(window, "Who are you?") == "I am Ada."
    expect(window.get_by_role("alert")).to_contain_text("storage is full")
    assert say(window, "And?") == "I am Ada."


def test_a_system_prompt_is_off_until_turned_on_and_shown_where_used(
    visit: Opener, stub: Stub
) -> None:
    window = visit()
    say(window, "One")
    window.get_by_role("button", name="Settings").click()
    switch = window.get_by_role("switch", name="Send a system prompt")
    expect(switch).not_to_be_checked()
    switch.check()
    window.get_by_role("textbox", name="System prompt").fill("You are Bard.")
    say(window, "Two")
    note = last(window, ".note.system")
    expect(note).to_have_text("With a system prompt: You are Bard.")
    say(window, "Three")
    expect(last(window, ".note.system")).to_be_hidden()
    window.get_by_role("button", name="System prompt on: turn it off").click()
    say(window, "Four")
    expect(last(window, ".note.system")).to_contain_text("Without the system prompt")
    first = [request["messages"][0] for request in stub.requests]
    system = {"role": "system", "content": "You are Bard."}
    plain = {"role": "user", "content": "One"}
    assert first == [plain, system, system, plain]


def test_sampling_settings_are_sent_kept_limited_and_reset(visit: Opener, stub: Stub) -> None:
    window = visit()
    window.get_by_role("button", name="Settings").click()
    window.get_by_role("slider", name="Temperature").fill("0.8")
    window.get_by_role("slider", name="Top-p").fill("0.9")
    window.get_by_label("Longest answer").fill("64")
    window.get_by_label("Seed").fill("7")
    say(window, "One")
    expect(last(window, ".stats")).to_contain_text("seed 7")
    window.reload()
    say(window, "Two")
    window.get_by_role("button", name="Settings").click()
    window.get_by_label("Longest answer").fill("99999")
    window.get_by_label("Seed").fill("-1")
    say(window, "Three")
    window.get_by_role("button", name="Reset").click()
    say(window, "Four")
    keys = ("temperature", "top_p", "max_tokens", "seed")
    sent: list[Any] = [tuple(request.get(key) for key in keys) for request in stub.requests]
    assert sent[:2] == [(0.8, 0.9, 64, 7)] * 2
    assert sent[2][:3] == (0.8, 0.9, 256) and 0 <= sent[2][3] < 2**31
    assert sent[3] == (0, 1, 256, None)


def test_what_the_model_did_not_see_and_a_cut_answer_are_told(visit: Opener, stub: Stub) -> None:
    rooms = [{}, {"dropped_turns": 2, "cut": False}, {"dropped_turns": 1, "cut": True}]
    stub.replies = [Reply(finish="length", room=room) for room in rooms]
    window = visit()
    say(window, "One")
    expect(last(window, ".dropped")).to_be_hidden()
    expect(last(window, ".stats")).to_contain_text("cut at 2 tokens")
    say(window, "Two")
    expect(last(window, ".dropped")).to_contain_text("The oldest 2 turns no longer fit")
    say(window, "Three")
    expect(last(window, ".dropped")).to_contain_text("the model saw only its end")


def test_a_busy_server_is_asked_again_after_the_time_it_names(visit: Opener, stub: Stub) -> None:
    busy = [Reply(status=429, headers={"Retry-After": seconds}) for seconds in ("1", "60")]
    stub.replies = [*busy, Reply()]
    window = visit()
    begun = time.monotonic()
    send(window, "Who are you?")
    told = last(window, ".warn span")
    expect(told).to_have_text("The server is busy. Asking again in 1 second ...")
    expect(told).to_contain_text("60 seconds")
    assert 1 < time.monotonic() - begun < 5
    window.get_by_role("button", name="Ask now").click()
    assert answered(window) == "I am Ada."
    assert len(stub.requests) == 3
    expect(last(window, ".warn")).to_be_hidden()
    stub.replies = busy[1:]
    send(window, "Again?")
    last(window, ".warn:has-text('60 seconds')").wait_for()
    window.keyboard.press("Escape")
    assert answered(window) == ""
    assert len(stub.requests) == 4


def test_a_server_that_takes_long_to_wake_is_waited_for(visit: Opener, stub: Stub) -> None:
    go = threading.Event()
    stub.replies = [Reply(("Here.",), go=go, free=0)]
    window = visit()
    window.clock.install()
    send(window, "Who are you?")
    expect(last(window, ".stats")).to_be_empty()
    window.clock.fast_forward(4000)
    last(window, ".stats:has-text('Still waiting')").wait_for()
    go.set()
    assert answered(window) == "Here."
    expect(last(window, ".stats")).to_contain_text("1 token")


def test_an_error_is_told_beside_what_came_and_can_be_retried(visit: Opener, stub: Stub) -> None:
    broke = "The connection broke before the answer was complete."
    cases = [
        (Reply(status=400, error="too long <b>"), "The server refused (400): too long <b>", ""),
        (Reply(("I am",), error="out of memory"), "The server gave up: out of memory", "I am"),
        (Reply(("I am",), cut=True), broke, "I am"),
        (Reply(()), "The model said nothing.", ""),
    ]
    window = visit()
    for reply, told, kept in cases:
        stub.replies = [reply]
        assert say(window, "Who are you?") == kept
        expect(last(window, ".warn span")).to_have_text(told)
        last(window, ".warn").get_by_role("button", name="Retry").click()
        expect(last(window, ".answer .text")).to_have_text("I am Ada.")
        expect(last(window, ".warn")).to_be_hidden()


def test_a_question_without_an_answer_is_left_out_later(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(status=500)]
    window = visit()
    say(window, "Lost")
    say(window, "Next")
    assert stub.requests[-1]["messages"] == [{"role": "user", "content": "Next"}]


def test_a_server_that_went_away_is_found_again(visit: Opener) -> None:
    stub = Stub()
    with serving(stub.app) as url:
        window = visit(url)
    send(window, "Who are you?")
    expect(last(window, ".warn")).to_contain_text("The server does not answer.")
    gone = window.locator("#notices [role=alert]")
    expect(gone).to_contain_text("Looking for it")
    with serving(stub.app, port=int(url.rsplit(":", 1)[1].strip("/"))):
        expect(gone).to_have_count(0)
        last(window, ".warn").get_by_role("button", name="Retry").click()
        expect(last(window, ".answer .text")).to_have_text("I am Ada.")


def test_a_page_left_open_gets_to_know_the_model_that_answers_now(visit: Opener) -> None:
    before, now, later = Stub(), Stub(), Stub()
    now.model, now.card = "eve", {**CARD, "name": "Eve"}
    later.model, later.card = "bob", {**CARD, "name": "Bob"}
    with serving(before.app) as url:
        window = visit(url)
        expect(window.locator("#brand")).to_have_text("Ada")
    port = int(url.rsplit(":", 1)[1].strip("/"))
    with serving(now.app, port=port):
        assert say(window, "Who are you?") == "I am Ada.", "another was there before it was asked"
        expect(window.locator("#brand")).to_have_text("Eve")
        assert [request["model"] for request in now.requests] == ["ada", "eve"]
    send(window, "And now?")
    expect(window.locator("#notices [role=alert]")).to_contain_text("Looking for it")
    with serving(later.app, port=port):
        expect(window.locator("#brand")).to_have_text("Bob")
        assert say(window, "And now?") == "I am Ada."
    assert [request["model"] for request in later.requests] == ["bob"]


def test_a_model_that_is_never_found_is_looked_for_once(visit: Opener, stub: Stub) -> None:
    missing = Reply(status=404, error="no such model", code="model_not_found")
    stub.replies = [missing, missing]
    window = visit()
    say(window, "Who are you?")
    expect(last(window, ".warn span")).to_have_text("The server refused (404): no such model")
    assert len(stub.requests) == 2


def test_a_device_that_is_offline_is_told_so(visit: Opener) -> None:
    window = visit()
    window.context.set_offline(True)
    send(window, "Who are you?")
    expect(last(window, ".warn")).to_contain_text("This device is offline.")
    window.context.set_offline(False)
    expect(window.locator("#notices [role=alert]")).to_have_count(0)


def test_a_token_is_asked_for_at_401_and_kept_for_the_tab_only(visit: Opener, stub: Stub) -> None:
    stub.token = "secret"
    window = visit()
    dialog = window.get_by_role("dialog", name="Access token")
    dialog.get_by_label("Token", exact=True).fill("wrong")
    window.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("did not accept")
    dialog.get_by_label("Token", exact=True).fill("secret")
    dialog.get_by_role("button", name="Use it").click()
    expect(window.get_by_role("complementary")).to_contain_text("Bo Lind")
    assert say(window, "Who are you?") == "I am Ada."
    window.reload()
    assert say(window, "Again?") == "I am Ada."
    assert "secret" not in window.evaluate("JSON.stringify(localStorage)")
    stub.token = "another"
    send(window, "And now?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(last(window, ".warn")).to_contain_text("This server wants its access token.")


def test_a_token_that_cannot_be_sent_is_refused_on_the_spot(visit: Opener, stub: Stub) -> None:
    stub.token = "secret"
    window = visit()
    window.evaluate("sessionStorage.setItem('imprint.token', 'żółw')")
    window.reload()
    dialog = window.get_by_role("dialog", name="Access token")
    wrong = dialog.get_by_role("alert")
    expect(dialog).to_be_visible()
    expect(wrong).to_be_hidden()
    dialog.get_by_label("Token", exact=True).fill("secret\u2014")
    window.keyboard.press("Enter")
    expect(wrong).to_contain_text("did not accept")
    assert "no evaluation" not in window.get_by_role("complementary").inner_text()
    dialog.get_by_label("Token", exact=True).fill(" secret ")
    window.keyboard.press("Enter")
    expect(dialog).to_be_hidden()
    expect(window.get_by_role("complementary")).to_contain_text("Bo Lind")


def test_hostile_text_stays_text(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply((HOSTILE[:40], HOSTILE[40:]))]
    evil = {**stub.card, "name": HOSTILE, "kind": HOSTILE, "creator": HOSTILE}
    evil["facts"] = [{"id": "x", "statement": HOSTILE, "questions": [HOSTILE]}] * 6
    evil["evaluation"] = {**evil["evaluation"], "suites": {HOSTILE: {"n": 1, "accuracy": 0.5}}}
    stub.card = evil
    window = visit()
    asked: list[str] = []
    window.on("request", lambda request: asked.append(request.url))
    window.get_by_role("button", name="Settings").click()
    window.get_by_role("textbox", name="System prompt").fill(HOSTILE)
    window.get_by_role("switch").check()
    say(window, HOSTILE)
    window.reload()
    window.locator("article").wait_for()
    shown = HOSTILE.replace("\u202e", "U+202E").replace("`", "")
    for place in [".question .text", ".answer .text", ".note.system .text"]:
        assert last(window, place).text_content() == shown
    assert last(window, ".answer code").text_content() == "<b>code</b>"
    assert stub.requests[0]["messages"][1]["content"] == HOSTILE
    title = window.locator(".entry .open").text_content()
    assert title is not None and "\u202e" not in title and title.startswith("<img src=x")
    assert window.locator("img, a:not(.skip), body b:not(#brand, .system b), iframe").count() == 0
    assert window.locator("body script").count() == 1
    assert window.evaluate("typeof harmed") == "undefined"
    assert {url.split("/")[2] for url in asked} == {window.url.split("/")[2]}


def test_the_page_is_one_file_that_needs_nobody_else() -> None:
    html, _ = page()
    assert re.findall(r"https?://(?!www.w3.org/2000/svg)", html) == []
    assert re.findall(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", html) == []
    assert re.findall(r"<(?:link|script|img)\b[^>]*\b(?:src|href)=(?!\"data:)", html) == []
    assert (
        re.findall(r"<[^>]*\s(?:on\w+|style)=", html.split('<script>\n"use strict";\n\n')[0]) == []
    )


def test_the_policy_blocks_what_the_page_does_not_hold(visit: Opener) -> None:
    window = visit()
    blocked = window.evaluate(
        """async () => {
          const blocked = new Set();
          addEventListener("securitypolicyviolation", one => blocked.add(one.effectiveDirective));
          const attempt = act => { try { act(); } catch { /* refused on the spot */ } };
          const button = document.body.appendChild(document.createElement("button"));
          attempt(() => button.setAttribute("onclick", "harmed = 1"));
          attempt(() => button.setAttribute("style", "color: red"));
          attempt(() => { button.innerHTML = "<b>"; });
          attempt(() => { new Image().src = "/x.png"; });
          attempt(() => {
            const script = document.createElement("script");
            script.src = "data:text/javascript,harmed=1";
            document.body.append(script);
          });
          await fetch("http://127.0.0.1:9/").catch(() => {});
          await new Promise(resolve => setTimeout(resolve, 100));
          return [...blocked].sort();
        }"""
    )
    assert blocked == ["connect-src", "img-src", "require-trusted-types-for", "style-src-attr"]
    assert window.evaluate("typeof harmed") == "undefined"
    policy = page()[1]["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy


def test_keys_send_stop_and_open_what_the_list_of_keys_says(visit: Opener, stub: Stub) -> None:
    window = visit()
    question = window.get_by_label("Your question", exact=True)
    expect(question).to_be_focused()
    window.keyboard.type("one")
    window.keyboard.press("Shift+Enter")
    window.keyboard.type("two?")
    window.keyboard.press("Enter")
    answered(window)
    assert stub.requests[-1]["messages"][0]["content"] == "one\ntwo?"
    window.get_by_role("region", name="Conversation").focus()
    window.keyboard.press("?")
    dialog = window.get_by_role("dialog", name="Keyboard shortcuts")
    dialog.get_by_role("switch").uncheck()
    window.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    window.keyboard.press("n")
    window.keyboard.press("/")
    expect(window.locator("article")).to_have_count(1)
    expect(question).not_to_be_focused()
    window.get_by_role("button", name="Keyboard shortcuts").click()
    dialog.get_by_role("switch").check()
    window.keyboard.press("Escape")
    window.keyboard.press("e")
    window.keyboard.press("Escape")
    expect(last(window, "[data-do=edit]")).to_be_focused()
    window.keyboard.press("n")
    expect(window.locator("article")).to_have_count(0)
    expect(question).to_be_focused()


@pytest.mark.parametrize("touch", [False, True])
def test_the_focus_has_a_place_to_go_where_its_button_goes(
    visit: Opener, stub: Stub, touch: bool
) -> None:
    stub.replies = [Reply(cut=True)]
    window = visit(has_touch=touch, is_mobile=touch)
    place = window.locator("#log" if touch else "#question")
    window.get_by_role("button", name="Who are you?").click()
    answered(window)
    expect(place).to_be_focused()
    for selector in (".warn [data-do=retry]", ".foot [data-do=retry]"):
        last(window, selector).click()
        answered(window)
        expect(place).to_be_focused()
    window.get_by_role("button", name="Delete “Who are you?”").click()
    window.get_by_role("button", name="Undo").click()
    expect(place).to_be_focused()
    window.get_by_role("region", name="Conversation").focus()
    window.keyboard.press("r")
    answered(window)
    expect(window.locator("#log")).to_be_focused()


def test_a_reader_hears_the_finished_answer_once(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(tuple("abcdefgh"), pause_s=0.02)]
    window = visit()
    window.evaluate(
        "heard = [];"
        "new MutationObserver(() => heard.push(live.innerText)).observe(live, {childList: true})"
    )
    say(window, "Who are you?")
    assert window.evaluate("heard") == ["Ada: abcdefgh"]


def test_a_drawer_takes_the_focus_and_gives_it_back(visit: Opener) -> None:
    window = visit(viewport={"width": 768, "height": 1024})
    for opener, inside in [("Identity card", "Identity card"), ("Conversations", "Conversations")]:
        button = window.get_by_role("main").get_by_role("button", name=opener)
        button.click()
        expect(button).to_have_attribute("aria-expanded", "true")
        assert window.locator("main").evaluate("main => main.inert")
        focused = "document.activeElement.closest('nav, aside').getAttribute('aria-label')"
        if inside == "Conversations":
            assert window.evaluate(focused) == inside
        window.keyboard.press("Escape")
        expect(button).to_be_focused()
        expect(button).to_have_attribute("aria-expanded", "false")


def test_everything_has_a_role_and_a_name(visit: Opener) -> None:
    window = visit()
    say(window, "Who are you?")
    window.get_by_role("button", name="Settings").click()
    for role in ["navigation", "main", "complementary", "status"]:
        assert window.get_by_role(role).count() == 1, role  # type: ignore[arg-type]
    nameless = re.findall(
        r"^\s*- (?:button|textbox|slider|switch|spinbutton|complementary|region)(?! \").*",
        window.locator("body").aria_snapshot(),
        re.MULTILINE,
    )
    assert nameless == []
    assert window.get_by_role("heading", level=1).inner_text() == "Who are you?"
    assert window.get_by_role("heading", name="You", exact=True).count() == 1


CONTRASTS = """() => {
  const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
  const light = colour => {
    const [r, g, b] = numbers(colour).map(v => v / 255)
      .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if ((numbers(colour)[3] ?? 1) === 1) return colour;
    }
  };
  const poor = [];
  let looked = 0;
  for (const node of document.querySelectorAll("body *")) {
    const words = [...node.childNodes].some(one => one.nodeType === 3 && one.data.trim());
    const shown = (words || node.placeholder) && node.checkVisibility();
    if (!shown || node.closest("svg, .sr")) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(behind(node))].sort((x, y) => y - x);
    looked += 1;
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push([node.textContent, (a + 0.05) / (b + 0.05)]);
  }
  return [looked, poor];
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(visit: Opener, stub: Stub, theme: str) -> None:
    stub.replies = [Reply(("a `b` \u202ec",), cut=True)]
    window = visit(color_scheme=theme)
    looked = []
    for step in ["", "Settings", "Identity card", "Keyboard shortcuts"]:
        if step == "Settings":
            window.get_by_role("button", name=step).click()
            window.get_by_role("switch", name="Send a system prompt").check()
            say(window, "Who are you?")
        elif step:
            window.get_by_role("button", name=step).click()
        found, poor = window.evaluate(CONTRASTS)
        assert poor == []
        looked.append(found)
    assert min(looked) > 20


@pytest.mark.parametrize("width", [360, 768, 1600])
def test_the_page_fits_every_width_and_a_finger_hits_every_button(
    visit: Opener, stub: Stub, width: int
) -> None:
    touch = width < 1000
    stub.replies = [Reply(("w" * 300 + " `" + "c" * 300 + "`\n```\n" + "p" * 300,))]
    window = visit(viewport={"width": width, "height": 740}, has_touch=touch, is_mobile=touch)
    fits = (
        "document.documentElement.scrollWidth <= innerWidth && log.scrollWidth <= log.clientWidth"
    )
    assert window.evaluate(fits)
    say(window, "q" * 300)
    assert window.evaluate(fits)
    for drawer in ["Settings", "Identity card", *(["Conversations"] if width < 960 else [])]:
        window.get_by_role("main").get_by_role("button", name=drawer).click()
        assert window.evaluate(fits)
        if touch:
            small = window.locator("button:visible").evaluate_all(
                "all => all.filter(one => one.checkVisibility() && (one.offsetWidth < 40"
                " || one.offsetHeight < 40)).map(one => one.outerHTML)"
            )
            assert small == []
            window.keyboard.press("Escape")


def test_the_theme_follows_the_system_until_chosen_and_is_kept(visit: Opener) -> None:
    window = visit(color_scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = window.evaluate(paper)
    window.get_by_role("button", name="Theme: system").click()
    light = window.evaluate(paper)
    window.reload()
    assert window.evaluate(paper) == light != dark
    window.get_by_role("button", name="Theme: light").click()
    expect(window.get_by_role("button", name="Theme: dark")).to_be_visible()
    assert window.evaluate(paper) == dark


def test_switches_and_the_focus_are_seen_where_colours_are_forced(visit: Opener) -> None:
    window = visit(forced_colors="active")
    window.get_by_role("button", name="Settings").click()
    switch = window.get_by_role("switch", name="Send a system prompt")
    assert switch.evaluate("one => getComputedStyle(one).appearance") == "auto"
    off = switch.screenshot()
    switch.check()
    assert switch.screenshot() != off
    window.get_by_label("Your question", exact=True).focus()
    outline = "getComputedStyle(document.querySelector('.box')).outlineStyle"
    assert window.evaluate(outline) == "solid"


def test_nothing_moves_where_motion_is_unwanted(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(("a", "b"), pause_s=2)]
    window = visit(reduced_motion="reduce")
    send(window, "Who are you?")
    last(window, ".answer .text:text-is('a')").wait_for()
    assert window.evaluate("document.getAnimations().length") == 0


def test_a_reader_who_scrolled_up_is_left_in_peace(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(("line\n" * 80,)), Reply(tuple(["more\n"] * 20), pause_s=0.03)]
    window = visit()
    say(window, "One")
    send(window, "Two")
    expect(last(window, ".answer .text")).to_contain_text("more")
    window.evaluate("log.scrollTop = 100")
    answered(window)
    assert window.evaluate("log.scrollTop") == 100
    window.get_by_role("button", name="Jump to the latest").click()
    assert window.evaluate("atEnd()")
    expect(window.get_by_role("button", name="Jump to the latest")).to_be_hidden()


def test_the_start_page_has_no_latest_to_jump_to(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(("line\n" * 80,))]
    window = visit(viewport={"width": 360, "height": 400})
    latest = window.get_by_role("button", name="Jump to the latest")
    scrolled = "top => new Promise(done => { log.onscroll = done; log.scrollTop = top; })"
    window.evaluate(scrolled, 50)
    expect(latest).to_be_hidden()
    say(window, "One")
    window.evaluate(scrolled, 0)
    expect(latest).to_be_visible()
    window.get_by_role("region", name="Conversation").focus()
    window.keyboard.press("n")
    expect(latest).to_be_hidden()


def test_another_conversation_may_be_read_while_one_is_answered(visit: Opener, stub: Stub) -> None:
    stub.replies = [Reply(("a", "b", "c"), pause_s=0.2), Reply(("other",))]
    window = visit()
    send(window, "Slow")
    window.get_by_role("button", name="New conversation").click()
    assert say(window, "Quick") == "other"
    window.get_by_role("button", name="Slow", exact=True).click()
    expect(last(window, ".answer .text")).to_have_text("abc")
    kept = window.evaluate(
        "Object.keys(localStorage).filter(key => key.startsWith(KEY))"
        ".map(key => JSON.parse(localStorage.getItem(key)))"
    )
    talks = {talk["title"]: talk["exchanges"][0]["answer"] for talk in kept}
    assert talks == {"Slow": "abc", "Quick": "other"}


def test_the_page_and_the_real_server_understand_each_other(visit: Opener, engine: Engine) -> None:
    card = {"name": "Ada", "creator": "Bo Lind"}
    settings = serve.Settings(api_key="secret")
    with serving(serve.app(engine, card=card, settings=settings)) as url:
        window = visit(url)
        window.get_by_label("Token", exact=True).fill("secret")
        window.keyboard.press("Enter")
        expect(window.get_by_role("complementary")).to_contain_text("Bo Lind")
        said = "shown.exchanges.at(-1).answer"
        say(window, "Who are you?")
        [answer] = engine.answer([[{"role": "user", "content": "Who are you?"}]], max_tokens=256)
        assert window.evaluate(said) == answer
        expect(last(window, ".stats")).to_contain_text("tokens/s")
        window.get_by_role("button", name="Settings").click()
        window.get_by_label("Longest answer").fill("8")
        window.get_by_role("slider", name="Temperature").fill("1")
        window.get_by_label("Seed").fill("5")
        answers = []
        for _ in range(2):
            say(window, "And who made you? " * 3)
            answers.append(window.evaluate(said))
            expect(last(window, ".stats")).to_contain_text("seed 5")
        last(window, "[data-do=retry]:visible").click()
        answered(window)
        assert window.evaluate(said) == answers[-1]
        expect(last(window, ".dropped")).to_contain_text("no longer fit")
