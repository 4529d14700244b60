"""Any causal language model of transformers as an encoder of text.

The last token alone has seen the whole text, so it stands for the text (as in E5-Mistral,
Wang et al. 2024). Legend: `B` batch, `L` tokens, `D` width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ._hub import HubText


class CausalLM(HubText):
    """tokens: the last hidden state, behind the model's final norm. pooled: the last real token.

    Options: see `HubText`; `config: {model_type: llama, hidden_size: 64, ...}` builds a small one.
    """

    kind: ClassVar[str] = "causal_lm"

    def part(self, model: Any) -> nn.Module:
        """The whole model. ValueError for an encoder-decoder model."""
        if model.config.is_encoder_decoder:
            raise ValueError(
                f"causal_lm: {model.config.model_type} has an encoder of its own; "
                "use type: transformers"
            )
        found: nn.Module = model
        return found

    def inputs(self, ids: Tensor, mask: Tensor) -> dict[str, Any]:
        # Without a mask and a cache the model looks for packed texts in the positions' values,
        # which are not there on meta; a cache, free there, keeps it from looking.
        return {**super().inputs(ids, mask), "use_cache": ids.is_meta}

    def pool(self, tokens: Tensor, mask: Tensor) -> Tensor | None:
        rows = torch.arange(len(tokens), device=tokens.device)
        return tokens[rows, mask.sum(1) - 1]
