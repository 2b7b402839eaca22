"""Documents to examples: what they hold, which are left out, the same in any number of processes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import ByteLevelBPETokenizer
from transformers import PreTrainedTokenizerFast

from rlpretrain.data import tokenising
from rlpretrain.data.documents import Document
from rlpretrain.data.shards import Example
from rlpretrain.data.tokenising import Dropped, Encoder, encode_all
from rlpretrain.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer("builtin:characters")
EOS = TOKENIZER.eos_token_id


def byte_level_tokenizer() -> PreTrainedTokenizerFast:
    core = ByteLevelBPETokenizer()
    core.train_from_iterator(["the cat and the dog sat on the mat"], min_frequency=1, show_progress=False)
    return PreTrainedTokenizerFast(
        tokenizer_object=core._tokenizer, eos_token="<eos>", additional_special_tokens=["<think>"]
    )


BYTES = byte_level_tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def encode(document: Document, max_tokens: int | None = None) -> Example | Dropped:
    (result,) = Encoder(TOKENIZER, max_tokens)([document])
    return result


def test_document_completion_and_problem() -> None:
    document = encode(Document("ab<think>c</think>", source="s"))
    assert isinstance(document, Example) and document.tokens.dtype == np.int32
    assert document.tokens.tolist() == [*ids("ab<think>c</think>"), EOS] and len(document.tokens) == 6
    assert (document.prompt_length, document.prompt, document.source) == (0, "", "s")
    sft = encode(Document(" 4", prompt="2+2="))
    assert isinstance(sft, Example) and sft.tokens.tolist() == [*ids("2+2="), *ids(" 4"), EOS]
    assert sft.prompt_length == 4
    problem = encode(Document("", prompt="2+2=", answer="4"))
    assert isinstance(problem, Example) and problem.tokens.tolist() == ids("2+2=")
    assert (problem.prompt_length, problem.prompt, problem.answer) == (4, "2+2=", "4")


def test_a_long_text_is_cut_but_never_a_prompt() -> None:
    cut = encode(Document("abcdef", prompt="xy"), max_tokens=4)
    assert isinstance(cut, Example) and cut.tokens.tolist() == ids("xyab") and cut.prompt_length == 2
    for prompt, text in (("wxyz", "a"), ("vwxyz", "")):
        dropped = encode(Document(text, prompt=prompt), max_tokens=4)
        assert isinstance(dropped, Dropped) and dropped.reason == "prompt_too_long"


@pytest.mark.parametrize("document", [Document(""), Document("", prompt="", answer="4"), Document("", "2+2=")])
def test_documents_of_which_nothing_can_be_learnt_are_left_out(document: Document) -> None:
    dropped = encode(document)
    assert isinstance(dropped, Dropped) and dropped.reason == "too_short"


def test_beginning_of_sequence_only_when_the_tokenizer_asks_for_it() -> None:
    tokenizer = load_tokenizer("builtin:characters")
    tokenizer.bos_token = "<pad>"
    tokenizer.add_bos_token = True
    (example,) = Encoder(tokenizer)([Document("a")])
    assert isinstance(example, Example)
    assert example.tokens.tolist() == [tokenizer.bos_token_id, *ids("a"), EOS] and example.prompt_length == 1


@given(st.lists(st.text(), min_size=1), st.text())
def test_encoding_in_batches_gives_the_ids_that_a_model_is_prompted_with(texts: list[str], prompt: str) -> None:
    results = Encoder(BYTES)([Document(text + "<think>.", prompt) for text in texts])
    for text, result in zip(texts, results, strict=True):
        assert isinstance(result, Example)
        parts = [BYTES.encode(part, add_special_tokens=False) for part in (prompt, text + "<think>.")]
        assert result.tokens.tolist() == [*parts[0], *parts[1], BYTES.eos_token_id]


def test_order_and_content_are_the_same_in_two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenising, "CHUNK_DOCUMENTS", 5)
    documents = [Document("x" * (index % 7) + str(index)) for index in range(53)]
    encoder = Encoder(TOKENIZER)
    alone, together = ([*encode_all(documents, encoder, workers)] for workers in (1, 2))
    assert [result.id for result in alone] == [document.id for document in documents]
    for one, other in zip(alone, together, strict=True):
        assert isinstance(one, Example) and isinstance(other, Example)
        assert one.id == other.id and one.tokens.tolist() == other.tokens.tolist()
