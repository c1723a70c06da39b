"""segment-anything's predictor and mask generator, sharing what does not depend on the level of the hierarchy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator, SamPredictor


@dataclass
class _Crop:
    """What is known of one crop: its embedding, sizes, and the masks decoded so far, by point batch."""

    features: torch.Tensor
    input_size: tuple[int, int]
    original_size: tuple[int, int]
    decoded: dict[bytes, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


class SharingPredictor(SamPredictor):  # type: ignore[misc]  # segment-anything has no types
    """segment-anything's predictor, remembering embeddings and decoded masks while :meth:`remembering`."""

    def __init__(self, model: Any, autocast: torch.dtype | None) -> None:
        super().__init__(model)
        self.features: Any
        self.input_size: tuple[int, int]
        self.original_size: tuple[int, int]
        self._autocast = autocast
        self._crops: dict[tuple[Any, bytes], _Crop] = {}
        self.least_quality = 0.0
        """Predicted quality of the masks that the caller is going to keep, as ``pred_iou_thresh`` says."""

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Compute without gradients, and forget at the end what was remembered meanwhile."""
        try:
            with torch.inference_mode():
                yield
        finally:
            self._crops.clear()
            self.reset_image()

    def set_image(self, image: NDArray[np.uint8], image_format: str = "RGB") -> None:
        """Encode ``image``, or recall it."""
        key = (image.shape, image.tobytes())
        if key not in self._crops:
            super().set_image(image, image_format)
            self._crops[key] = _Crop(self.features, self.input_size, self.original_size)
        self._crop = self._crops[key]
        self.features, self.input_size = self._crop.features, self._crop.input_size
        self.original_size, self.is_image_set = self._crop.original_size, True

    def set_torch_image(self, transformed_image: torch.Tensor, original_image_size: tuple[int, ...]) -> None:
        """Encode under the wanted precision."""
        with self._precision():
            super().set_torch_image(transformed_image, original_image_size)
        self.features = self.features.float()

    def predict_torch(
        self,
        point_coords: torch.Tensor,
        point_labels: torch.Tensor,
        boxes: torch.Tensor | None = None,
        mask_input: torch.Tensor | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Decode the points, or recall their masks; upsample those that will be kept, the others stay empty."""
        key = point_coords.cpu().numpy().tobytes()
        if key not in self._crop.decoded:
            self._crop.decoded[key] = self.decode(point_coords, point_labels)
        low, quality = self._crop.decoded[key]
        kept = quality > self.least_quality if self.least_quality > 0 else torch.ones_like(quality, dtype=torch.bool)
        masks = torch.zeros((*quality.shape, *self.original_size), device=low.device)
        if kept.any():
            masks[kept] = self.upsample(low[kept])
        return masks, quality, low

    def decode(self, coordinates: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode points (P, 1, 2) of the input frame: logits (P, 3, h, w) at low resolution, quality (P, 3)."""
        sparse, dense, position = self._prompts(coordinates, labels)
        with self._precision():
            low, quality = self.model.mask_decoder(
                image_embeddings=self.features,
                image_pe=position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
        return low.float(), quality.float()

    def decode_best(
        self, coordinates: torch.Tensor, labels: torch.Tensor, least: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode points, but only the masks of predicted quality above ``least``: logits (M, h, w), quality (M,).

        The library repeats the image for every point and draws all masks before it looks at their quality. Here the
        image is broadcast, so that the first layer projects it once, and what fails is never drawn.
        """
        decoder = self.model.mask_decoder
        sparse, dense, position = self._prompts(coordinates, labels)
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        with self._precision():
            tokens = torch.cat([own.expand(len(sparse), -1, -1), sparse], dim=1)
            answers, image = decoder.transformer(self.features + dense[:1], position, tokens)
            quality = decoder.iou_prediction_head(answers[:, 0])[:, 1:].float()
            kept = quality > least if least > 0 else torch.ones_like(quality, dtype=torch.bool)
            chosen = kept.any(dim=1)
            image = image[chosen].transpose(1, 2).unflatten(2, self.features.shape[2:])  # (P, h·w, C) -> (P, C, h, w)
            fine = decoder.output_upscaling(image)
            heads = decoder.output_hypernetworks_mlps
            brushes = torch.stack([heads[i](answers[chosen, 1 + i]) for i in range(1, len(heads))], dim=1)
            low = (brushes @ fine.flatten(2)).unflatten(2, fine.shape[2:])  # (P, 3, C) @ (P, C, h·w) -> (P, 3, h, w)
        return low[kept[chosen]].float(), quality[kept]

    def _prompts(
        self, coordinates: torch.Tensor, labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sparse, dense = self.model.prompt_encoder(points=(coordinates, labels), boxes=None, masks=None)
        return sparse, dense, self.model.prompt_encoder.get_dense_pe()

    def upsample(self, low: torch.Tensor) -> torch.Tensor:
        """Bring logits (M, h, w) of the padded input to the image's own size: (M, H, W)."""
        full: torch.Tensor = self.model.postprocess_masks(low[None], self.input_size, self.original_size)[0]
        return full

    def _precision(self) -> AbstractContextManager[Any]:
        if self._autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self._autocast)


class SharingGenerator(SamAutomaticMaskGenerator):  # type: ignore[misc]
    """segment-anything's automatic mask generator around a shared predictor; no masks are no error."""

    def __init__(self, predictor: SharingPredictor, **options: Any) -> None:
        super().__init__(predictor.model, **options)
        self.predictor = predictor

    def generate(self, image: NDArray[np.uint8]) -> list[dict[str, Any]]:
        """Generate the records of all masks, [] where the library raises IndexError because none survived."""
        self.predictor.least_quality = self.pred_iou_thresh
        return list(super().generate(image))

    def _process_crop(self, *arguments: Any) -> Any:
        data = super()._process_crop(*arguments)
        # Boxes of no masks come as shape (0,), on which the library fails if no crop has any.
        data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4).to(torch.int64)
        return data
