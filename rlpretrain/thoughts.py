"""What a thought is: its delimiters and template as token ids, and a batch of sampled thoughts.

A thought's ids travel from the sampler to the loss; nothing is decoded and tokenised again.
Shapes: N thoughts, T the longest one's tokens.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rlpretrain.settings import ThoughtSettings
from rlpretrain.tokenizer import token_id


@dataclass(frozen=True)
class ThoughtFormat:
    """The template  context | prefix open | thought ... close | recap | next token."""

    open_ids: tuple[int, ...]  # prefix and opening delimiter
    close_id: int  # ends a thought when sampled; appended for scoring when the thought was cut off
    forbidden_ids: tuple[int, ...]  # never sampled within a thought: opening delimiter, end of text, padding
    delimiter_ids: tuple[int, ...]  # left out of both scorers' vocabulary
    recap: int
    budget: int  # most thought tokens
    temperature: float

    @classmethod
    def build(cls, settings: ThoughtSettings, tokenizer: PreTrainedTokenizerBase) -> "ThoughtFormat":
        """Resolve delimiters to ids; UserError when the tokenizer does not hold them as single tokens."""
        opening = token_id(tokenizer, settings.open)
        closing = token_id(tokenizer, settings.close)
        prefix = tokenizer.encode(settings.prefix, add_special_tokens=False) if settings.prefix else []
        special = (opening, tokenizer.eos_token_id, tokenizer.pad_token_id)
        forbidden = sorted({index for index in special if index is not None})
        return cls(
            open_ids=(*prefix, opening),
            close_id=closing,
            forbidden_ids=tuple(forbidden),
            delimiter_ids=(opening, closing),
            recap=settings.recap,
            budget=settings.budget,
            temperature=settings.temperature,
        )

    @classmethod
    def response(cls, settings: ThoughtSettings, tokenizer: PreTrainedTokenizerBase) -> "ThoughtFormat":
        """RLVR's form: thought and answer are one sampled response that the end of the text closes."""
        form = cls.build(settings, tokenizer)
        assert tokenizer.eos_token_id is not None
        forbidden = tuple(index for index in form.forbidden_ids if index != tokenizer.eos_token_id)
        return replace(form, close_id=tokenizer.eos_token_id, forbidden_ids=forbidden, recap=0)

    @property
    def overhead(self) -> int:
        """Tokens a reasoned sequence adds to its context beside the thought: opening, close, recap."""
        return len(self.open_ids) + 1 + self.recap

    def prompt(self, context: np.ndarray) -> list[int]:
        """What the sampler continues: the context and the opening delimiter."""
        return [*context.tolist(), *self.open_ids]

    def suffix(self, context: np.ndarray, finished: bool) -> list[int]:
        """What follows the thought's own tokens before the predicted token: a close for a cut-off thought, the recap."""
        recap = context[-self.recap :].tolist() if self.recap else []
        return recap if finished else [self.close_id, *recap]


@dataclass(frozen=True)
class Thoughts:
    """N sampled thoughts, right-padded with 0."""

    tokens_NT: Tensor  # int64
    mask_NT: Tensor  # bool: true on thought tokens; a sampled end-of-thought token is one
    finished_N: Tensor  # bool: false when the budget cut the thought off

    @classmethod
    def from_lists(cls, thoughts: list[list[int]], close_id: int) -> "Thoughts":
        """Thoughts of at least one token each, the end-of-thought token included where it was sampled."""
        assert all(thoughts), "every thought holds at least one token"
        lengths = torch.tensor([len(thought) for thought in thoughts])
        tokens = torch.zeros(len(thoughts), int(lengths.max()), dtype=torch.long)
        for row, thought in enumerate(thoughts):
            tokens[row, : len(thought)] = torch.tensor(thought)
        mask = torch.arange(tokens.shape[1]) < lengths.unsqueeze(-1)
        finished = torch.tensor([thought[-1] == close_id for thought in thoughts])
        return cls(tokens, mask, finished)

    def row(self, index: int) -> list[int]:
        """The ids of one thought, without padding."""
        return self.tokens_NT[index, self.mask_NT[index]].tolist()

    @property
    def lengths_N(self) -> Tensor:
        return self.mask_NT.sum(dim=-1)
