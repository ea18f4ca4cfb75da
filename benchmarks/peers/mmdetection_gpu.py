"""MMDetection's training step of TOOD R50 at 800x1344 on a GPU: `python -m benchmarks.peers.mmdetection_gpu 2 8`."""

from __future__ import annotations

import sys
from contextlib import nullcontext

import torch
from mmdet.utils import register_all_modules
from mmengine.structures import InstanceData

from benchmarks.gpu.clock import seconds_a_call
from benchmarks.peers.mmdetection_network import HEIGHT, WIDTH, build, shape_facts
from benchmarks.timing import emit

OBJECTS = 10


def main() -> None:
    """Prints images a second for each number of images in a batch, in fp32 and in bf16."""
    register_all_modules(init_default_scope=True)
    device = torch.device("cuda")
    model = build().train().to(device)
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learning, lr=1e-5, momentum=0.9, weight_decay=1e-4)
    generator = torch.Generator().manual_seed(0)
    for count in map(int, sys.argv[1:]):
        images, truths = torch.randn(count, 3, HEIGHT, WIDTH, device=device), []
        for _ in range(count):
            corner = torch.rand(OBJECTS, 2, generator=generator) * 500
            boxes = torch.cat([corner, corner + 20 + torch.rand(OBJECTS, 2, generator=generator) * 250], 1)
            labels = torch.randint(0, 80, (OBJECTS,), generator=generator)
            truths.append(InstanceData(bboxes=boxes.to(device), labels=labels.to(device)))
        facts = [shape_facts(HEIGHT, WIDTH)] * count
        for precision in ("fp32", "bf16"):

            def step(images=images, truths=truths, facts=facts, half=precision == "bf16") -> None:
                with torch.autocast("cuda", torch.bfloat16) if half else nullcontext():
                    found = model.bbox_head(model.extract_feat(images))
                    losses = model.bbox_head.loss_by_feat(*found, truths, facts)
                optimizer.zero_grad()
                (sum(losses["loss_cls"]) + sum(losses["loss_bbox"])).backward()
                optimizer.step()

            emit(f"{precision}, {count} images", count / seconds_a_call(step, device), "images/s")


if __name__ == "__main__":
    main()
