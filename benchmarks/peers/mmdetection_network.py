"""MMDetection's TOOD R50 at 800x1344: network, post-processing, memory; and its training step."""

from __future__ import annotations

import sys
from pathlib import Path

import mmdet
import torch
from mmdet.registry import MODELS
from mmdet.utils import register_all_modules
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.structures import InstanceData

from benchmarks.timing import THREADS, emit, fastest, peak_memory

HEIGHT, WIDTH = 800, 1344


def build() -> torch.nn.Module:
    """The network with random weights."""
    config = Config.fromfile(Path(mmdet.__file__).parent / ".mim/configs/tood/tood_r50_fpn_1x_coco.py").model
    config.backbone.init_cfg = None  # nothing is fetched
    config.train_cfg.initial_epoch = 0
    # The head asks it which assigner is in force: TAL from epoch 0 on, as set above.
    MessageHub.get_current_instance().update_info("epoch", 1)
    model = MODELS.build(config)
    model.init_weights()
    return model


def shape_facts(height: int, width: int) -> dict[str, object]:
    """What MMDetection wants to know of an image."""
    shape = (height, width)
    return {
        "img_shape": shape,
        "ori_shape": shape,
        "pad_shape": shape,
        "batch_input_shape": shape,
        "scale_factor": (1.0, 1.0),
    }


def inference(model: torch.nn.Module) -> None:
    """Prints the lines that `benchmarks.rows_network` prints of ours."""
    model.eval()
    images, facts = torch.randn(1, 3, HEIGHT, WIDTH), [shape_facts(HEIGHT, WIDTH)]
    with torch.inference_mode():

        def network() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
            return model.bbox_head(model.extract_feat(images))

        emit("network fp32", fastest(network, 3) * 1e3, "ms")
        emit("network memory", peak_memory(), "MiB")
        scores, boxes = network()
        generator = torch.Generator().manual_seed(0)
        scores = [torch.rand(level.shape, generator=generator) * 0.3 for level in scores]
        seconds = fastest(
            lambda: model.bbox_head.predict_by_feat(scores, boxes, batch_img_metas=facts, rescale=True), 5
        )
        emit("post-processing", seconds * 1e3, "ms")


def training(model: torch.nn.Module) -> None:
    """Forward, assignment, losses, backward and the optimiser's step, batch 2 of 320x320."""
    model.train()
    images, generator = torch.randn(2, 3, 320, 320), torch.Generator().manual_seed(0)
    truths = []
    for _ in range(2):
        corner = torch.rand(10, 2, generator=generator) * 200
        side = 20 + torch.rand(10, 2, generator=generator) * 90
        labels = torch.randint(0, 80, (10,), generator=generator)
        truths.append(InstanceData(bboxes=torch.cat([corner, corner + side], 1), labels=labels))
    facts = [shape_facts(320, 320)] * 2
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-5, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        losses = model.bbox_head.loss_by_feat(*model.bbox_head(model.extract_feat(images)), truths, facts)
        optimizer.zero_grad()
        (sum(losses["loss_cls"]) + sum(losses["loss_bbox"])).backward()
        optimizer.step()

    emit("step fp32", fastest(step, 4) * 1e3, "ms")


def main() -> None:
    """Prints the figures of inference, or with "step" those of training, in a process without the other's memory."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    register_all_modules(init_default_scope=True)
    (training if sys.argv[1:] == ["step"] else inference)(build())


if __name__ == "__main__":
    main()
