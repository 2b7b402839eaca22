"""The shapes that are timed. No torch here: the parent process must stay small, since a child's peak memory begins at it."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Shape:
    """A Llama-shaped model with tied embeddings, and one step's documents, positions and thoughts."""

    name: str
    layers: int
    width: int
    heads: int
    key_value_heads: int
    feed_forward: int
    vocabulary: int
    documents: int
    length: int  # context tokens of a document; one more follows, the last position's next token
    positions: int  # K, spread evenly; the last one sees the whole document
    group: int  # G
    thought: int  # T, tokens of every thought

    @property
    def contexts(self) -> int:
        return self.documents * self.positions

    @property
    def thoughts(self) -> int:
        return self.contexts * self.group

    @property
    def trunk_tokens(self) -> int:
        return self.documents * self.length

    @property
    def tokens(self) -> int:
        """Tokens that a step trains on: every document once, and every thought."""
        return self.trunk_tokens + self.thoughts * self.thought

    @property
    def places(self) -> list[int]:
        """Where the thoughts of a document start, as counts of the tokens before them."""
        return [self.length * (index + 1) // self.positions for index in range(self.positions)]

    @property
    def parameters(self) -> int:
        """Without the embedding."""
        key_value = self.width // self.heads * self.key_value_heads
        attention = 2 * self.width * (self.width + key_value)
        layer = attention + 3 * self.width * self.feed_forward + 2 * self.width
        return self.layers * layer + self.width


# The feed-forward width is 8/3 of the model's, the usual size of a gated one.
_SMALL = Shape("small", 4, 256, 4, 4, 680, 8192, documents=8, length=256, positions=1, group=8, thought=64)
_SMOLLM2 = Shape("smollm2", 30, 576, 9, 3, 1536, 49152, documents=2, length=256, positions=1, group=8, thought=64)
_LONG = replace(_SMOLLM2, name="long", documents=1, length=1024, positions=4)

SHAPES = {
    shape.name: shape
    for shape in (
        _SMALL,
        _SMOLLM2,
        _LONG,
        replace(_LONG, name="long-1", positions=1),
        replace(_LONG, name="long-16", positions=16),
        # Seconds, for the tests.
        Shape("tiny", 2, 32, 4, 2, 64, 96, documents=2, length=16, positions=2, group=4, thought=6),
    )
}
