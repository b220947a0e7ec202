"""Detectors that are asked with phrases, beside which the benchmark times a photo: OWL-ViT and Grounding DINO.

They have the architecture of the published base and tiny model and random weights, because nothing is downloaded. So
only their time means something. They come from transformers, see ``pip install -e '.[bench]'``.
"""

from collections.abc import Callable, Sequence

import torch

from grounding.runtime.timing import Work

OWLVIT_SIDE = 768  # pixels, of both sides
DINO_SIDE, DINO_LONGEST = 800, 1333  # pixels of the shorter side, and of the longer one at most
FIRST, LAST, STOP, WORD = 101, 102, 1012, 2000  # tokens of BERT: the two ends, the point after a phrase, and any word


def owlvit(size: tuple[int, int], phrases: Sequence[str]) -> Work:
    """OWL-ViT, base, patches of 32 pixels (Minderer et al. 2022).

    Args:
        size: (width, height) of the photo; the model sees a square, whatever the size.
        phrases: what to find; each is a text of 16 tokens, whatever its words.
    """
    from transformers import OwlViTConfig, OwlViTForObjectDetection

    config = OwlViTConfig()
    model = OwlViTForObjectDetection(config).eval()
    tokens = torch.full((len(phrases), config.text_config.max_position_embeddings), WORD)
    given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}
    photo = torch.zeros(1, 3, OWLVIT_SIDE, OWLVIT_SIDE)
    return torch.inference_mode()(lambda: model(pixel_values=photo, **given))


def grounding_dino(size: tuple[int, int], phrases: Sequence[str]) -> Work:
    """Grounding DINO with a tiny Swin transformer (Liu et al. 2023).

    Args:
        size: (width, height) of the photo.
        phrases: what to find; all are one text, with a point after each, and one token for each word.
    """
    from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection

    model = GroundingDinoForObjectDetection(GroundingDinoConfig()).eval()
    scale = min(DINO_SIDE / min(size), DINO_LONGEST / max(size))
    width, height = (round(side * scale) for side in size)
    words = [token for phrase in phrases for token in [*[WORD] * len(phrase.split()), STOP]]
    tokens = torch.tensor([[FIRST, *words, LAST]])
    given = {"input_ids": tokens, "attention_mask": torch.ones_like(tokens), "token_type_ids": torch.zeros_like(tokens)}
    photo = torch.zeros(1, 3, height, width)
    return torch.inference_mode()(lambda: model(pixel_values=photo, **given))


DETECTORS: dict[str, Callable[[tuple[int, int], Sequence[str]], Work]] = {
    "owlvit": owlvit,
    "grounding_dino": grounding_dino,
}
