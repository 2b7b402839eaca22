"""results.json as a typed, versioned schema. README.md in this folder says the same for readers.

Accuracies are fractions of 1, gains and log-probabilities nats; intervals have the file's ``confidence``.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

RESULTS_FILE = "results.json"
Verdict = Literal["holds", "fails", "not tested"]


class Part(BaseModel):
    """Base of the schemas: whole and frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(Part):
    """An estimate with the bounds of its interval."""

    estimate: float
    low: float
    high: float


def k_in_words(samples: Sequence[int], repeats: int) -> str:
    """k of pass@1[k], where a suite asks benchmarks unlike often: 1, 4 or 8."""
    *others, last = (f"{k}" for k in samples or [repeats])
    return f"{', '.join(others)} or {last}" if others else last


class BenchmarkFigure(Figure):
    """Accuracy, pass@1[k], on one benchmark."""

    questions: int = Field(description="distinct questions, over all runs")
    run_spread: float | None = Field(description="standard deviation of the k sampled runs' accuracies; mean over runs")
    no_answer: float | None = Field(description="share of samples without an answer; mean over runs")


class GainFigure(Figure):
    """Information gain of the model's own thoughts on held-out text."""

    positions: int
    baseline_logprob: float | None = Field(description="log-probability of the next token without a thought")
    reasoned_logprob: float | None = Field(description="the same after a thought")
    thought_length: float | None = Field(description="tokens")
    cut_off: float | None = Field(description="share of thoughts that met the budget")
    by_run: list[float]


class GainSlice(Figure):
    """Information gain at the held-out positions that have something in common."""

    by: Literal["kind", "entropy", "offset"]
    name: str = Field(
        description="a kind of next token, or a part of the positions by entropy or by the tokens before them"
    )
    positions: int


class Cost(Part):
    """What the training that led from one stage to the next took; the mean over runs."""

    parameters: int
    steps: float
    read: float = Field(description="tokens of text; of a thinking objective the contexts, once a place")
    sampled: float = Field(description="tokens of thoughts or responses")
    trained: float = Field(description="tokens that went through a forward and a backward pass")
    flops: float = Field(description="of sampling, scoring and training, by 2 a parameter and token forward, 6 trained")


class Source(Part):
    """One evaluation artifact that the figures come from."""

    run: int = Field(description="1 for the first")
    seed: int
    digest: str = Field(description="of the evaluation artifact")
    inputs: dict[str, str] = Field(description="name to digest, of the artifacts it was made from")
    code_version: str
    libraries: dict[str, str]


class Model(Part):
    """An arm after a stage."""

    arm: str
    stage: str
    accuracy: dict[str, BenchmarkFigure] = Field(description="by benchmark")
    averages: dict[str, Figure] = Field(
        description="by name: each group's, overall, and where the suite has them the paper's printed ones"
    )
    overall_by_run: list[float]
    information_gain: GainFigure | None
    gain_slices: list[GainSlice]
    cost: Cost | None = Field(description="of the stage's own training; null where the checkpoint does not tell")
    sources: list[Source] = Field(description="one a run")


class ComparedFigure(Figure):
    """A difference on one benchmark, tested against no difference."""

    p: float = Field(description="two-sided, paired bootstrap over questions")
    p_holm: float = Field(description="the same, corrected (Holm) for every test of the file")
    by_run: list[float] = Field(description="the difference in each run")


class Difference(Part):
    """``first`` minus ``second`` after one stage, paired by question."""

    first: str
    second: str
    stage: str
    accuracy: dict[str, ComparedFigure] = Field(description="by benchmark")
    averages: dict[str, Figure] = Field(description="by name, as in models")
    overall_by_run: list[float]
    information_gain: Figure | None
    gain_paired: bool = Field(description="whether the gains were paired by held-out position")


class ClaimResult(Part):
    """A claim, the rule that decides it, and what the figures say."""

    name: str
    section: str = Field(description="heading of the ledger that it stands under")
    statement: str
    rule: str
    verdict: Verdict
    unit: Literal["points", "nats"]
    figure: Figure | None = Field(description="the difference that decided; null when not tested")
    by_run: list[float] = Field(description="the same difference in each run")
    detail: str = Field(description="the deciding figures in words, or why it was not tested")
    paper: str = Field(description="where the paper says it, with its figures in percent; empty when it does not")


class Thought(Part):
    """What one model thought at a held-out position, and what that did to the next token."""

    arm: str
    thought: str = Field(description="its beginning, where it is long")
    length: int = Field(description="tokens")
    cut_off: bool
    logprob_with: float
    logprob_without: float
    gain: float = Field(description="of this thought")
    mean_gain: float = Field(description="of all thoughts that this model sampled here")


class HeldOutPosition(Part):
    """A place in held-out text, and every arm's first thought there."""

    position: int = Field(description="its number among the positions measured")
    document: str
    context: str = Field(description="its end, where it is long")
    offset: int = Field(description="tokens of the document before it")
    next_token: str
    kind: str
    thoughts: list[Thought]


class ShardsReport(Part):
    """The text that a stage read, and what was removed from it."""

    role: str
    documents: dict[str, int] = Field(description="by split")
    tokens: dict[str, int] = Field(description="by split")
    text_sources: dict[str, int] = Field(description="documents by source")
    cut: int = Field(default=0, description="documents cut to max_document_tokens; 0 also where the shards are older")
    removed: dict[str, int] = Field(description="documents by reason")
    ngram: int | None = Field(description="words in a row shared with a benchmark that make a document contaminated")
    contaminated_by_benchmark: dict[str, int]


class Curve(Part):
    """One metric of one training, a line a run."""

    arm: str
    stage: str
    metric: str
    runs: list[list[tuple[int, float]]] = Field(description="for each run, pairs of step and value")


class TrainingWarning(Part):
    """One sign of collapse in one training, or that steps of it were left out."""

    arm: str
    stage: str
    run: int = Field(description="1 for the first")
    metric: str | None = Field(description="that showed the sign; null for steps that were left out")
    sign: str = Field(description="what was seen, in words")
    steps: int = Field(description="steps that were warned about or left out")
    first: int = Field(description="the first such step")
    last: int


class Results(Part):
    """The whole file."""

    schema_version: Literal[2] = 2
    title: str
    profile: str
    runs: int
    confidence: float
    bootstrap_samples: int
    repeats: int = Field(description="k of pass@1[k], where the suite does not say another")
    samples: list[int] = Field(
        default=[], description="every k of pass@1[k] of the suite; empty where the file is older"
    )
    benchmarks: dict[str, str] = Field(description="name to group")
    claims: list[ClaimResult]
    models: list[Model]
    differences: list[Difference]
    curves: list[Curve]
    training_warnings: list[TrainingWarning] = Field(default=[], description="empty also where the file is older")
    positions: list[HeldOutPosition] = Field(
        description="after pretraining, in the first run, evenly spaced over the positions measured"
    )
    data: list[ShardsReport] = Field(description="of the first run")

    @property
    def k(self) -> str:
        """k of pass@1[k] in words."""
        return k_in_words(self.samples, self.repeats)


def parse_results(values: Any) -> Results:
    """Results out of a parsed results.json; pydantic's ValidationError when it is of another schema."""
    return Results.model_validate(values)
