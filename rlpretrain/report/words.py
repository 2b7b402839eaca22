"""How figures, arms and stages are put into words, the same on the page, in Markdown and on the terminal."""

from rlpretrain.report.results import Figure

ARM_NAMES = {"base": "base", "cpt": "CPT", "cpt_flops": "CPT, equal compute", "rlp": "RLP", "rpt": "RPT"}
STAGE_NAMES = {"pretrained": "After pretraining", "sft": "After SFT", "rlvr": "After SFT and RLVR"}
_TRAININGS = {"pretrained": "Pretraining", "sft": "SFT", "rlvr": "RLVR"}
OVERALL = "overall"
MARKS = {"holds": "✓", "fails": "✗", "not tested": "?"}


def training_name(arm: str, stage: str) -> str:
    """What the training is called that led an arm to a stage."""
    return "Base training, shared by all" if (arm, stage) == ("base", "pretrained") else _TRAININGS[stage]


def percent(figure: Figure) -> str:
    """An accuracy with its interval: 41.2 [39.0, 43.4]."""
    return f"{100 * figure.estimate:.1f} [{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def points(figure: Figure) -> str:
    """A difference of accuracies: +4.1 points [+1.0, +7.3]."""
    return f"{100 * figure.estimate:+.1f} points [{100 * figure.low:+.1f}, {100 * figure.high:+.1f}]"


def nats(figure: Figure) -> str:
    """A gain or a difference of gains: +0.21 nats [+0.10, +0.32]."""
    return f"{figure.estimate:+.2f} nats [{figure.low:+.2f}, {figure.high:+.2f}]"


def column_name(name: str) -> str:
    """A benchmark's or group's name as a column's heading."""
    return "average" if name == OVERALL else name.replace("_", " ")


def compact(value: float) -> str:
    """A large number in three digits: 12,300 is 12.3k."""
    for size, letter in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
