"""Several processes that train one model: replicas of it (DDP), or shards (FSDP2)."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .fill_cache import fill_cache as fill_cache
    from .fill_cache import fill_with_ray as fill_with_ray
    from .fill_cache import fill_with_torchrun as fill_with_torchrun
    from .memory import StepMemory as StepMemory
    from .memory import step_memory as step_memory
    from .plans import memory_plans as memory_plans
    from .plans import memory_table as memory_table
    from .profiling import profiled_step as profiled_step
    from .replicas import Replicas as Replicas
    from .shards import Shards as Shards
    from .strategy import check_parallel as check_parallel
    from .strategy import compose_model as compose_model
    from .strategy import join_processes as join_processes
    from .strategy import parallel_strategy as parallel_strategy
    from .submit import TrainJob as TrainJob
    from .submit import job_options as job_options
    from .submit import submit_job as submit_job
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "fill_cache": ["fill_cache", "fill_with_ray", "fill_with_torchrun"],
            "memory": ["StepMemory", "step_memory"],
            "plans": ["memory_plans", "memory_table"],
            "profiling": ["profiled_step"],
            "replicas": ["Replicas"],
            "shards": ["Shards"],
            "strategy": ["check_parallel", "compose_model", "join_processes", "parallel_strategy"],
            "submit": ["TrainJob", "job_options", "submit_job"],
        },
    )
