"""Whether thoughts and documents have room: told by the settings before a run, and by the model itself in its stage."""

from rlpretrain.errors import UserError
from rlpretrain.settings import HeldOutGainSettings, LikelihoodSettings, ThinkingSettings


def check_room(settings: ThinkingSettings | HeldOutGainSettings, around: int, room: int, where: str = "") -> None:
    """UserError, naming ``where``, when context, thought and the ``around`` tokens of template and prediction do not fit."""
    needed = settings.max_context + settings.thought.budget + around
    if needed > room:
        raise UserError(
            f"{where}max_context {settings.max_context} and thought.budget {settings.thought.budget} need {needed} "
            f"positions with the template, but the model has {room}; lower one of the two"
        )


def check_sequence(settings: LikelihoodSettings, room: int, where: str = "") -> None:
    """UserError, naming ``where``, when documents are cut to more tokens than the model has positions; without steps none are."""
    if settings.steps and settings.sequence_length > room:
        raise UserError(
            f"{where}sequence_length {settings.sequence_length} is more than the {room} positions of the model; lower it"
        )
