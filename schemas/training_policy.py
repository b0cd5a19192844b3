"""How a task's adapters are trained: the method, what is trained of the model, and what it may take.

The defaults were measured on short answers and a model of about 100M parameters (docs/experiments.md).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ratchet.schemas.events import Closed, Method
from ratchet.schemas.ids import AdapterName
from ratchet.schemas.stopping import Stopping
from ratchet.schemas.training_pool import ManagedRecipe

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, lt=1)]
AtLeastOne = Annotated[int, Field(ge=1)]
DpoLoss = Literal[
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
]
AdapterType = Literal["lora", "dora", "ia3", "prefix", "prompt", "full"]
LEARNING_RATES: dict[AdapterType, float] = {
    "lora": 1e-3,
    "dora": 1e-3,
    "ia3": 8e-3,
    "prefix": 1e-2,
    "prompt": 3e-2,
    "full": 2e-5,
}
"""Where the recipe says none; lora's was measured (docs/experiments.md), the others are those of PEFT's examples."""


class Distributed(Closed):
    """A run on several processes of this machine, one a GPU; each has batch_size rows at a time."""

    processes: Annotated[int, Field(ge=2, le=64)]
    strategy: Literal["ddp", "fsdp", "deepspeed_zero2"] = "ddp"
    """ddp: each has the whole model; fsdp: each a part of it; deepspeed_zero2: of gradients and optimizer states."""


ONLINE: tuple[Method, ...] = ("grpo", "rloo")
"""They learn from rewards of the model's own answers; a dataset gives them prompts alone."""


class Recipe(Stopping):
    """How a run trains; everything that changes what comes out of it."""

    method: Method = "dpo"
    loss_type: list[DpoLoss] = Field(default=["sigmoid", "sft"], min_length=1)
    """Of dpo, TRL's names; the supervised term ("sft") keeps the better answer from losing likelihood, too."""
    loss_weights: list[Positive] = Field(default=[1.0, 1.0], min_length=1)
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    """Of "robust" and "exo_pair": the probability that a preference is the wrong way round."""
    kto_loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    desirable_weight: Positive | None = None
    """Of kto; None: both sides count alike, however many rows each has."""
    undesirable_weight: Positive | None = None
    beta: Positive = 0.1
    """How strongly the model is held to the base: of dpo, kto, grpo and rloo."""
    reward_adapter: AdapterName | None = None
    """Of grpo and rloo: the reward model that says how good an answer is, made by method "reward"."""
    reward_check: str | None = None
    """Of grpo and rloo: a check of the task, whose score (0 to 1) is the reward, or is added to the reward model's."""
    check_weight: Positive = 1.0
    """Of grpo and rloo: what that score is multiplied by."""
    num_generations: Annotated[int, Field(ge=2)] = 4
    """Of grpo and rloo: answers to one prompt, compared with one another."""
    max_completion_length: AtLeastOne = 128
    """Of grpo and rloo: most tokens of such an answer; with its prompt it must fit max_length."""
    temperature: Positive = 1.0
    """Of grpo and rloo: at which they are drawn."""

    adapter_type: AdapterType = "lora"
    """What is trained: a small adapter beside the frozen base model, or ("full") every weight of it."""
    quantization: Literal["nf4"] | None = None
    """The frozen base model's weights in 4 bits with their constants quantized too (QLoRA): a quarter of bfloat16."""
    optimizer: Literal["adamw", "paged_adamw_32bit", "paged_adamw_8bit"] = "adamw"
    """Paged: a GPU's optimizer states may move to the machine's memory; 8bit: they take a quarter of it."""
    lora_r: Annotated[int, Field(ge=1, le=512)] = 8
    lora_alpha: AtLeastOne = 16
    lora_dropout: Share = 0.0
    lora_targets: str | list[str] = "all-linear"
    rslora: bool = False
    """Scaled by the root of the rank, which keeps high ranks from learning too little."""
    virtual_tokens: Annotated[int, Field(ge=1, le=512)] = 16
    """Of prefix and prompt: how many positions are learned and put before every prompt."""

    learning_rate: Positive | None = None
    """None: what suits the adapter's type, `LEARNING_RATES`."""
    warmup_share: Share = 0.1
    epochs: Positive = 1.0
    batch_size: AtLeastOne = 4
    gradient_accumulation: AtLeastOne = 1
    max_length: Annotated[int, Field(ge=16)] = 512
    """Most tokens of prompt and answer; rows whose better answer does not fit are left out."""
    distributed: Distributed | None = None
    """None: one process."""
    accelerator: Literal["unsloth"] | None = None
    """Kernels of another library, where it is installed and there is a GPU."""
    packing: bool = False
    """Of sft: several rows in each sequence of up to max_length tokens, none of which sees another; batch_size counts
    sequences."""
    seed: int = 0
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """auto: bfloat16 where the hardware multiplies it faster (a GPU, a CPU with AMX), else float32.

    "full" trains in float32 on auto: small updates of bfloat16 weights are rounded away.
    """
    gradient_checkpointing: bool = False
    """Activations are computed again on the way back: less memory, about a third more time."""
    precompute_reference: bool = False
    """Of dpo and kto: the base model's log-probabilities are computed before the first step, not beside each."""
    threads: AtLeastOne | None = None
    memory_gib: Positive | None = None
    """What a run may take; None: what is free when it starts. A run that is planned to take more is refused."""
    checkpoint_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 300.0
    """Seconds between the checkpoints that a killed run goes on from; 0: none, it begins again."""

    @property
    def rate(self) -> float:
        """The learning rate at its highest."""
        return self.learning_rate or LEARNING_RATES[self.adapter_type]

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if len(self.loss_weights) != len(self.loss_type):
            raise ValueError(f"{len(self.loss_weights)} loss_weights for {len(self.loss_type)} in loss_type")
        if self.precompute_reference and self.method not in ("dpo", "kto"):
            raise ValueError(f"precompute_reference with method {self.method!r}; allowed: with 'dpo' and 'kto'")
        if self.method == "kto" and self.kto_loss == "kto" and self.batch_size == 1:
            raise ValueError("batch_size 1 with method 'kto'; allowed: from 2, for its penalty compares neighbours")
        watched = f"early_stopping {self.early_stopping!r}"
        if self.early_stopping == "preference_accuracy" and self.method not in ("dpo", "reward"):
            raise ValueError(f"{watched} with method {self.method!r}; allowed: with 'dpo' and 'reward'")
        if self.early_stopping and not self.measured:
            raise ValueError(f"{watched} with evaluations 0; allowed: from 1")
        of = f"with adapter_type {self.adapter_type!r}"
        if self.rslora and self.adapter_type not in ("lora", "dora"):
            raise ValueError(f"rslora {of}; allowed: with 'lora' and 'dora'")
        if self.quantization and self.adapter_type == "full":
            raise ValueError(f"quantization {self.quantization!r} {of}; allowed: with an adapter, 4 bits do not learn")
        if self.distributed is not None and self.method not in ("dpo", "sft", "kto"):
            raise ValueError(f"distributed with method {self.method!r}; allowed: with 'dpo', 'sft' and 'kto'")
        if self.distributed is not None and (self.early_stopping or self.checkpoint_s):
            raise ValueError(
                "distributed with early_stopping or checkpoints; allowed: with checkpoint_s = 0 and neither"
            )
        if self.accelerator is not None and (self.adapter_type != "lora" or self.distributed is not None):
            raise ValueError(f"accelerator {self.accelerator!r} {of}; allowed: with 'lora', in one process")
        if self.packing and self.method != "sft":
            raise ValueError(f"packing with method {self.method!r}; allowed: with 'sft'")
        if self.packing and self.adapter_type in ("prefix", "prompt"):
            raise ValueError(f"packing {of}; allowed: with every other, for these come before a prompt")
        if self.quantization and self.adapter_type == "ia3":
            raise ValueError(
                f"quantization {self.quantization!r} {of}; allowed: with every other, for PEFT mixes its dtypes"
            )
        if self.gradient_checkpointing and self.adapter_type == "prefix":
            raise ValueError(f"gradient_checkpointing {of}; allowed: with every other, for PEFT's prefix is a cache")
        return self

    @model_validator(mode="after")
    def _rewards_fit(self) -> Recipe:
        with_ = f"with method {self.method!r}"
        if self.method == "reward" and self.adapter_type not in ("lora", "dora"):
            raise ValueError(f"adapter_type {self.adapter_type!r} {with_}; allowed: 'lora' and 'dora'")
        if self.method == "reward" and self.quantization:
            raise ValueError(f"quantization {self.quantization!r} {with_}; allowed: none, its head is computed whole")
        if self.method not in ONLINE:
            return self
        if self.reward_adapter is None and self.reward_check is None:
            raise ValueError(f"no reward {with_}; allowed: reward_adapter, reward_check or both")
        if self.measured:
            raise ValueError(
                f"evaluations {self.measured} {with_}; allowed: 0, for its loss says nothing of its answers"
            )
        if self.adapter_type in ("prefix", "prompt"):
            raise ValueError(f"adapter_type {self.adapter_type!r} {with_}; allowed: 'lora', 'dora', 'ia3' and 'full'")
        answers = self.batch_size * self.gradient_accumulation
        if answers % self.num_generations:
            raise ValueError(
                f"num_generations {self.num_generations} {with_}; allowed: what divides batch_size times "
                f"gradient_accumulation, {answers}, for the answers to a prompt are compared in one step"
            )
        if self.max_completion_length >= self.max_length:
            raise ValueError(
                f"max_completion_length {self.max_completion_length} {with_}; allowed: below max_length, "
                f"{self.max_length}, which prompt and answer share"
            )
        return self


class TrainingPolicy(Recipe):
    """A task's recipe, and where it is trained."""

    pool: str | None = None
    """Under ``[pools]``: whose base model is trained on, or which provider trains; None: the first one's, here."""
    max_attempts: AtLeastOne = 3
    """Starts of a run that something else ended (killed, out of memory) and that got no further than the one before."""
    retry_wait_s: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 30.0
    """Seconds before the second of them; twice as many before each later one."""
    managed: ManagedRecipe = Field(default_factory=ManagedRecipe)
    """Of a provider's job; the fields of the recipe but the method and the seed are for training here."""
