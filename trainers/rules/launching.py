"""How a run on several processes is started: what `accelerate launch` is told, by one setting."""

from __future__ import annotations

from typing import Any

from ratchet.schemas.training_policy import Distributed

_COMMON: dict[str, Any] = {
    "compute_environment": "LOCAL_MACHINE",
    "machine_rank": 0,
    "num_machines": 1,
    "main_process_port": 0,  # a free one
    "mixed_precision": "no",  # the weights are in their final dtype already
    "rdzv_backend": "static",
    "same_network": True,
    "use_cpu": False,
}
_FSDP: dict[str, Any] = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": True,
    "fsdp_offload_params": False,
    "fsdp_state_dict_type": "FULL_STATE_DICT",
}


def accelerate_config(distributed: Distributed, gradient_accumulation: int) -> dict[str, Any]:
    """What accelerate's configuration file says.

    Args:
        distributed: the recipe's.
        gradient_accumulation: the recipe's, which DeepSpeed wants to know itself.
    """
    config = _COMMON | {"num_processes": distributed.processes}
    match distributed.strategy:
        case "ddp":  # processes without a GPU find gloo by themselves
            return config | {"distributed_type": "MULTI_GPU"}
        case "fsdp":
            return config | {"distributed_type": "FSDP", "fsdp_config": dict(_FSDP)}
        case "deepspeed_zero2":
            told = {
                "zero_stage": 2,
                "gradient_accumulation_steps": gradient_accumulation,
                "offload_optimizer_device": "none",
                "offload_param_device": "none",
                "zero3_init_flag": False,
            }
            return config | {"distributed_type": "DEEPSPEED", "deepspeed_config": told}
