"""The chat template of a saved model: prompts stand as they are, and a thought is opened as in training.

    tokenizer.apply_chat_template([{"role": "user", "content": prompt}], add_generation_prompt=True)

gives the ids of the prompt and of the opening delimiter, which RLVR and the suites that open a thought continue;
`enable_thinking=False` leaves the thought closed. No role names and no begin-of-text token: training puts none.
"""

import json
from collections.abc import Mapping

from transformers import PreTrainedTokenizerBase

from rlpretrain.settings import ThoughtSettings

OWN = "original"  # name of the template that the tokenizer came with
_MARK = "{#- Prompts as they are, then an opened thought: RLP -#}"
_TURNS = (
    "{%- for message in messages -%}{{- message['content'] -}}"
    "{%- if message['role'] == 'assistant' -%}{{- eos_token -}}{%- endif -%}{%- endfor -%}"
)
_OPENING = "{%- if add_generation_prompt and enable_thinking | default(true) -%}{{- OPENING -}}{%- endif -%}"


def set_chat_template(tokenizer: PreTrainedTokenizerBase, thought: ThoughtSettings | None) -> None:
    """Let the tokenizer's chat template open such a thought; token ids stay as they are.

    ``thought`` is None for a training without thoughts: what the model's earlier training set stays, and else the plain
    delimiters count, for arms are asked alike. A tokenizer without the delimiters keeps what it has. Its own template goes to
    the name OWN: it puts tokens around a prompt that this training has never shown.
    """
    templates = _by_name(tokenizer.chat_template)
    ours = templates.get("default", "").startswith(_MARK)
    wanted = thought or ThoughtSettings()
    if (ours and thought is None) or not {wanted.open, wanted.close} <= tokenizer.get_vocab().keys():
        return
    if "default" in templates and not ours:
        templates[OWN] = templates["default"]
    opening = json.dumps(wanted.prefix + wanted.open, ensure_ascii=False)
    templates["default"] = _MARK + _TURNS + _OPENING.replace("OPENING", opening)
    tokenizer.chat_template = templates if len(templates) > 1 else templates["default"]


def _by_name(template: str | Mapping[str, str] | None) -> dict[str, str]:
    if template is None:
        return {}
    return {"default": template} if isinstance(template, str) else dict(template)
