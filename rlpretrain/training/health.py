"""Signs that a training of thoughts is collapsing, told when they have lasted a few steps."""

from collections.abc import Mapping

LASTING = 5  # steps in a row
# metric, its limit, whether it must not rise above it or not fall below it, and what is wrong then
SIGNS = (
    ("thought/length", 1.5, "below", "thoughts have shrunk to nothing"),
    ("thought/entropy", 0.02, "below", "thoughts have lost their variety"),
    ("thought/cut_off", 0.95, "above", "nearly all thoughts are cut off by the budget"),
    ("thought/zero_variance", 0.9, "above", "nearly all groups have one reward, so that nothing is learned"),
)


class Health:
    """Counts for how many steps each sign has been seen."""

    def __init__(self) -> None:
        self.counts = {name: 0 for name, *_ in SIGNS}
        self._measured: list[str] = []  # at the last step

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """The metrics that have been wrong for `LASTING` steps or more, this step's values included.

        A step that was left out lacks them: it warns of nothing and leaves the counts as they are.
        """
        self._measured = [name for name, *_ in SIGNS if name in metrics]
        for name, limit, side, _ in SIGNS:
            if name in metrics:
                wrong = metrics[name] < limit if side == "below" else metrics[name] > limit
                self.counts[name] = self.counts[name] + 1 if wrong else 0
        return [name for name in self._measured if self.counts[name] >= LASTING]

    def news(self) -> list[str]:
        """What is wrong by signs that have just lasted long enough, in words."""
        just = [name for name in self._measured if self.counts[name] == LASTING]
        return [f"{words} ({name})" for name, _, _, words in SIGNS if name in just]
