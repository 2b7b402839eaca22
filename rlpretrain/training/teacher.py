"""RLP's teacher: a model that follows the trained one slowly, in fp32, whole or in parts on several processes."""

from copy import deepcopy

from torch import Tensor
from transformers import PreTrainedModel

from rlpretrain.objectives import ema_update
from rlpretrain.settings import ComputeDtype
from rlpretrain.training.precision import MixedPrecision, compute_dtype
from rlpretrain.training.sharding import Sharded, sharded


class SlowCopy:
    """On one process: a copy of the model, and what it computes with."""

    def __init__(self, model: PreTrainedModel, setting: ComputeDtype) -> None:
        self.model = deepcopy(model).requires_grad_(False).eval()
        self.precision = MixedPrecision(self.model, compute_dtype(setting, model.device))
        self.compute = self.precision.compute

    def begin_step(self) -> None:
        """Be ready to score."""

    def follow(self, model: PreTrainedModel, decay: float) -> None:
        """Take a share of 1 - ``decay`` of the model's values."""
        ema_update(list(self.model.parameters()), list(model.parameters()), decay)
        self.precision.refresh()

    def weights(self) -> dict[str, Tensor]:
        """The fp32 weights by name."""
        return dict(self.model.named_parameters())


class SlowParts:
    """On several processes: each keeps its part; to score they are put into the whole copy, until the next refresh."""

    def __init__(self, model: PreTrainedModel, shards: Sharded) -> None:
        self.parts = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        self.shards = shards
        self.compute = shards.whole

    def begin_step(self) -> None:
        """Be ready to score: sampling is over for this step."""
        self.shards.fill(self.parts)

    def follow(self, model: PreTrainedModel, decay: float) -> None:
        """Take a share of 1 - ``decay`` of the model's values."""
        own = [part.to_local() for part in self.parts.values()]  # type: ignore[attr-defined]
        ema_update(own, [parameter.to_local() for parameter in model.parameters()], decay)

    def weights(self) -> dict[str, Tensor]:
        """The parts by name."""
        return self.parts


def slow_copy(model: PreTrainedModel, setting: ComputeDtype) -> SlowCopy | SlowParts:
    """A teacher that starts as ``model``."""
    shards = sharded(model)
    return SlowCopy(model, setting) if shards is None else SlowParts(model, shards)
