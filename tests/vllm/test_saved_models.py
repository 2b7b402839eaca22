"""vLLM loads a saved model by its path, and its chat opens a thought as training does."""

from pathlib import Path

import pytest

from rlpretrain.settings import ThoughtSettings
from rlpretrain.tokenizer import load_tokenizer
from rlpretrain.training.checkpoints import save_checkpoint
from tests.vllm.conftest import small_model


def test_a_question_is_answered_from_an_opened_thought(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # the engine in this process, which ends with it
    from vllm import LLM, SamplingParams

    tokenizer = load_tokenizer("builtin:characters")
    save_checkpoint(small_model("llama"), tokenizer, tmp_path, "rlp", 1, 1, ThoughtSettings())
    model = LLM(str(tmp_path / "model"), enforce_eager=True, max_model_len=64, kv_cache_memory_bytes=2**26)
    [answer] = model.chat([{"role": "user", "content": "2 + 3 = "}], SamplingParams(max_tokens=4, temperature=0))
    assert answer.prompt_token_ids == tokenizer.encode("2 + 3 = <think>")
    assert 1 <= len(answer.outputs[0].token_ids) <= 4
