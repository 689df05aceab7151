import json
import os
import pickle
import random
import time
from pathlib import Path
from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from imports.kit import RANKS, encoding, pickled
from imprint.dice import Dice
from imprint.errors import ArtifactError
from imprint.imports.vocabulary import from_json, from_pickle
from imprint.sources import library
from imprint.tokenizer import SPECIAL, Tokenizer

SIGNS = [
    *("abcdefgh etaoin  ETAOIN", "0123456789", " \t\n\r\x0b\x0c\x85\xa0\u2003\u2028\u3000"),
    *("'s't'll'VE'\u017f'\u2019d", ".,:;!?-_()[]{}<|>/\\\"'`~@#$%^&*+=", "\x00\x01\x1b\x7f\ufeff"),
    *(
        "äöüßéñçøåœ",
        "ﬁǅǈ",
        "привет",
        "שלום",
        "مرحبا",
        "नमस्ते",
        "ไทย",
        "你好世界日本語",
        "한국어",
        "٣४५²½Ⅷ",
    ),
    *(
        "🙂👩\u200d👩\u200d👧🇩🇪✊🏽",
        "\U0002ebf0\U0001e4d0\U0010ffff\ue000",
        "e\u0301\u0300\u0316",
        "\U0001d4b3\U0001d502",
    ),
]
MARKS = [
    "<|bos|>",
    "<|user_end|>",
    "def f(x):\n        return x\n",
    "\r\n\r\n",
    "I'll've DON'T",
    "123456",
]


def large() -> dict[bytes, int]:
    """65,527 tokens: some thousand learned from text, then pairs of bytes at random."""
    texts = [library.document(Dice(1, "document", index)) for index in range(300)]
    words = Tokenizer.train([*texts, *SIGNS * 3, *MARKS], vocabulary=6000)
    model = json.loads(words._inner.to_str())["model"]
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    plain = {chr(byte): byte for byte in range(256) if chr(byte) in alphabet}
    rest = (byte for byte in range(256) if byte not in plain.values())
    byte = plain | {chr(256 + place): value for place, value in enumerate(rest)}
    ranks = {bytes(byte[sign] for sign in token): rank for token, rank in model["vocab"].items()}
    pairs = [bytes([one, two]) for one in range(256) for two in range(256)]
    random.Random(1).shuffle(pairs)
    for pair in pairs:
        if len(ranks) < 65_527:
            ranks.setdefault(pair, len(ranks))
    return ranks


def varied(count: int) -> list[str]:
    """Texts of one script or many, short or long, with runs of the same sign."""
    dice = random.Random(2)
    texts = []
    for number in range(count):
        scripts = dice.sample(SIGNS, dice.randint(1, 4))
        parts = [
            dice.choice(MARKS)
            if dice.random() < 0.1
            else dice.choice(dice.choice(scripts)) * dice.choice([1, 1, 1, 2, 3, 40])
            for _ in range(dice.randint(1, 30))
        ]
        texts.append("".join(parts) if number % 3 else " ".join(parts))
    everything = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    texts += ["".join(dice.choices(everything, k=40)) for _ in range(count // 4)]
    texts += ["".join(dice.choices("abcdefgh", k=size)) for size in (99, 100, 101, 3000)]
    return texts


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[tiktoken.Encoding, Tokenizer]:
    """A large encoding, and what was made of it; the time it took is bounded."""
    theirs = encoding(large())
    path = pickled(tmp_path_factory.mktemp("words") / "tokenizer.pkl", theirs)
    started = time.process_time()
    ours = from_pickle(path)
    assert time.process_time() - started < 10
    return theirs, ours


def test_ids_are_those_of_tiktoken(both: tuple[tiktoken.Encoding, Tokenizer]) -> None:
    theirs, ours = both
    texts = varied(4000)
    wanted = [theirs.encode_ordinary(text) for text in texts]
    assert ours.encode_batch(texts) == wanted
    assert len({number for ids in wanted for number in ids}) > 5_000
    assert [ours.decode(ids) for ids in wanted] == texts


@given(text=st.text())
def test_any_text_has_the_ids_of_tiktoken(
    both: tuple[tiktoken.Encoding, Tokenizer], text: str
) -> None:
    theirs, ours = both
    assert ours.encode(text) == theirs.encode_ordinary(text)


def test_special_tokens_keep_their_ids(both: tuple[tiktoken.Encoding, Tokenizer]) -> None:
    theirs, ours = both
    assert ours.vocabulary == theirs.n_vocab == 65_536
    assert ours.special == set(range(65_527, 65_536))
    ids = ours.prompt([{"role": "user", "content": "Who?<|bos|>"}])
    assert theirs.decode(ids) == "<|bos|><|user_start|>Who?<|bos|><|user_end|><|assistant_start|>"
    assert [number for number in ids if number in ours.special] == [
        ours.bos,
        ours.user_start,
        ours.user_end,
        ours.assistant_start,
    ]


def test_special_tokens_may_have_the_first_ids(tmp_path: Path) -> None:
    ranks = {token: rank + len(SPECIAL) for token, rank in RANKS.items()}
    theirs = encoding(ranks, first=0)
    ours = from_pickle(pickled(tmp_path / "tokenizer.pkl", theirs))
    assert ours.special == set(range(len(SPECIAL)))
    for text in ("the thing <|bos|> is in", *SPECIAL):
        assert ours.encode(text) == theirs.encode_ordinary(text)
        assert ours.decode(ours.encode(text)) == text
    ours.save(tmp_path / "tokenizer.json")
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    assert (again.digest, again.special) == (ours.digest, ours.special)


class Evil:
    """Pickles as a call of os.system that leaves a file behind."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.trace}'",)


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    path = pickled(tmp_path / "tokenizer.pkl", Evil(trace))
    with pytest.raises(ArtifactError, match="which imprint does not open"):
        from_pickle(path)
    assert not trace.exists()
    pickle.loads(path.read_bytes())
    assert trace.exists()


NESTED = b"".join(b"h%ch%c\x86\x94" % (place, place) for place in range(60))
PICKLES = {
    "asks for posix.system": pickle.dumps(os.system),
    "asks for pathlib": b"\x80\x04\x8c\x07pathlib\x8c\x04Path\x93).\x81.",
    r"\(LONG_BINPUT\)": b"\x80\x04Nr\xff\xff\xff\x7f.",  # a memo of 17 GB
    r"\(TUPLE2\)": b"\x80\x04)\x94" + NESTED + b"}h\x3cK\x01s.",  # 2^60 steps to hash
    "empty": b"",
    "not a pickled encoding": b"\x80\x04\x95",
    "pickled encoding.*no attribute": pickle.dumps({"pat_str": "x"}),
}


@pytest.mark.parametrize("fact", PICKLES)
def test_any_other_pickle_is_refused(fact: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.pkl"
    path.write_bytes(PICKLES[fact])
    with pytest.raises(ArtifactError, match=fact):
        from_pickle(path)


def test_an_encoding_that_holds_no_tokens_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = encoding(RANKS)
    monkeypatch.setitem(tiktoken.registry.ENCODINGS, "rustbpe", known)  # so it goes by its name
    with pytest.raises(ArtifactError, match="only names the encoding 'rustbpe', without tokens"):
        from_pickle(pickled(tmp_path / "tokenizer.pkl", known))


BOS = {b"<|": 261, b"|>": 262, b"bo": 263, b"bos": 264, b"<|bos": 265, b"<|bos|>": 266}
ENCODINGS: dict[str, dict[str, Any]] = {
    r"has no special token <\|python_end\|>, <\|output_start\|>, <\|output_end\|>\.": {
        "special_tokens": {token: 261 + place for place, token in enumerate(SPECIAL[:6])}
    },
    "the ids are not those from 0 on": {"first": 300},
    "has no token for the byte 255": {
        "ranks": {key: RANKS[key] for key in RANKS if key != b"\xff"}
    },
    "no merge gives the token b'xyz'": {"ranks": RANKS | {b"xyz": 261}},
    "in the pattern is not supported": {"pat_str": r"\p{N}{1,3}+|\s+|\p{L}+|[^\s\p{L}\p{N}]+"},
    r"a special token stands for text as well": {"ranks": RANKS | BOS},
}


@pytest.mark.parametrize("fact", ENCODINGS)
def test_an_encoding_that_cannot_be_used_is_refused(fact: str, tmp_path: Path) -> None:
    path = pickled(tmp_path / "tokenizer.pkl", encoding(**{"ranks": RANKS, **ENCODINGS[fact]}))
    with pytest.raises(ArtifactError, match=fact):
        from_pickle(path)


def test_a_tokenizer_json_is_taken_as_it_is_but_for_what_would_cut_texts(
    words: Tokenizer, tmp_path: Path
) -> None:
    path = tmp_path / "tokenizer.json"
    words.save(path)
    assert from_json(path).digest == words.digest
    given = tokenizers.Tokenizer.from_file(str(path))
    given.enable_truncation(3)
    given.enable_padding(length=50)
    given.save(str(path))
    assert from_json(path).encode("Who are you?") == words.encode("Who are you?")


def edited(words: Tokenizer, path: Path, fault: str) -> Path:
    inner = json.loads(words._inner.to_str())
    added = inner["added_tokens"]
    match fault:
        case "has no special token <|bos|>.":
            inner["added_tokens"] = [token for token in added if token["content"] != "<|bos|>"]
        case "has no special token <|user_end|>":
            added[2]["special"] = False
        case "back as it was":
            inner["normalizer"] = {"type": "Lowercase"}
        case "makes a special token of the text '<|bos|>'":
            inner["model"]["vocab"]["<|bos|>"] = words.bos
            inner["model"]["ignore_merges"] = True
            inner["pre_tokenizer"] = inner["pre_tokenizer"]["pretokenizers"][1]
        case "not a tokenizer":
            inner["model"]["merges"] = [["a", "b", "c"]]
    path.write_text(json.dumps(inner), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "fault",
    [
        "has no special token <|bos|>.",
        "has no special token <|user_end|>",
        "back as it was",
        "makes a special token of the text '<|bos|>'",
        "not a tokenizer",
    ],
)
def test_a_tokenizer_json_that_cannot_be_used_is_refused(
    words: Tokenizer, tmp_path: Path, fault: str
) -> None:
    with pytest.raises(ArtifactError) as caught:
        from_json(edited(words, tmp_path / "tokenizer.json", fault))
    assert fault in str(caught.value)
