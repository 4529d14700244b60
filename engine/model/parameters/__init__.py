"""What loads, freezes, adapts and averages the parameters of a model."""

from typing import TYPE_CHECKING

from ....lazy import lazy_exports

if TYPE_CHECKING:
    from .adapter_check import AdapterCheck as AdapterCheck
    from .adapter_check import untrained_adapters as untrained_adapters
    from .adapters import apply_adapters as apply_adapters
    from .adapters import is_frozen as is_frozen
    from .adapters import restore_frozen_eval as restore_frozen_eval
    from .adapters import without_adapter as without_adapter
    from .checkpointing import checkpoint_blocks as checkpoint_blocks
    from .checkpointing import compile_blocks as compile_blocks
    from .ema import create_ema_encoders as create_ema_encoders
    from .ema import on_step_end as on_step_end
    from .lowering import lower as lower
    from .lowering import matrices as matrices
    from .quantized import QuantizedLinear as QuantizedLinear
    from .quantized import dequantize as dequantize
    from .quantized import quantize_part as quantize_part
    from .weights import load_weights as load_weights
    from .weights import run_section as run_section
else:
    __getattr__, __dir__, __all__ = lazy_exports(
        __name__,
        {
            "adapter_check": ["AdapterCheck", "untrained_adapters"],
            "adapters": ["apply_adapters", "is_frozen", "restore_frozen_eval", "without_adapter"],
            "checkpointing": ["checkpoint_blocks", "compile_blocks"],
            "ema": ["create_ema_encoders", "on_step_end"],
            "lowering": ["lower", "matrices"],
            "quantized": ["QuantizedLinear", "dequantize", "quantize_part"],
            "weights": ["load_weights", "run_section"],
        },
    )
