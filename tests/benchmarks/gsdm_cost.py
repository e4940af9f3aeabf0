"""Cost that GSDM adds to a student's step, beside the published way of computing it.

By hand: ``python tests/benchmarks/gsdm_cost.py --device cpu --width 0.25 --size 64``

without     cross-entropy alone
with        + gsdm: one black clip through the student, the teachers' answers to black inputs given once
teachers    the same, and the teachers are asked every step (where their outputs may not be cached)
published   black inputs beside the real ones through student and teachers, maps in NumPy, no gradient

Memory is the peak of a process that does nothing else, with networks, gradients, batch and kept answers, beyond its imports.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kdcore import Batch, LossContext, Outputs, Participant
from kdcore_gsdm.loss import GraphGuidedSemanticMaps
from kdcore_images.vgg import Vgg16Bn
from kdcore_video.encoders import Trn

PAIRS = (
    ("block1", "conv2"),
    ("block2", "inception_3c"),
    ("block3", "inception_4c"),
    ("block4", "inception_5a"),
    ("block5", "inception_5b"),
)


class Bench:
    """Two GAF teachers and a video student with everything a step needs."""

    def __init__(self, options: argparse.Namespace):
        torch.manual_seed(0)
        size, width, device, classes = options.size, options.width, options.device, 27
        blocks = {teacher: teacher for teacher, _ in PAIRS} | {"fc2": "fc2"}
        maps = {student: f"backbone.{student}" for _, student in PAIRS} | {"fc0": "embedding"}
        self.student = Participant("rgb", Trn(classes, (options.frames, 3, size, size), width=width), maps).to(device)
        self.teachers = {
            name: Participant(name, Vgg16Bn(classes, (3, size, size), width=width), blocks).to(device).eval()
            for name in ("acc", "gyro")
        }
        self.clips = torch.randn(options.batch, options.frames, 3, size, size, device=device)
        self.images = torch.randn(options.batch, 3, size, size, device=device)
        self.labels = torch.randint(classes, (options.batch,), device=device)
        self.table = torch.randn(classes, 300, device=device)
        self.loss = GraphGuidedSemanticMaps(pairs=PAIRS)
        self.optimizer = torch.optim.SGD(self.student.parameters(), lr=1e-3, momentum=0.9)
        with torch.no_grad():
            self.blank = {name: each(torch.zeros_like(self.images[:1])) for name, each in self.teachers.items()}
        self.cached = self.ask()

    @torch.no_grad()
    def ask(self) -> dict[str, Outputs]:
        """The teachers' answers to this batch, with those to a black image."""
        return {name: replace(each(self.images), ablated=self.blank[name]) for name, each in self.teachers.items()}

    def without(self) -> Tensor:
        """Cross-entropy alone."""
        return F.cross_entropy(self.student(self.clips).logits, self.labels)

    def with_gsdm(self) -> Tensor:
        """With the term, its teachers cached."""
        return self._objective(self.cached)

    def with_teachers(self) -> Tensor:
        """With the term, its teachers asked."""
        return self._objective(self.ask())

    def _objective(self, teachers: dict[str, Outputs]) -> Tensor:
        outputs = self.student(self.clips)
        self.student.eval()
        outputs = replace(outputs, ablated=self.student(self.clips.new_zeros(()).expand_as(self.clips[:1])))
        self.student.train()
        batch = Batch(torch.arange(len(self.clips)), {}, self.labels)
        ctx = LossContext(outputs, teachers, batch, class_embeddings=self.table)
        return F.cross_entropy(outputs.logits, self.labels) + self.loss(ctx)

    def published(self) -> Tensor:
        """Everything doubled, maps in NumPy."""
        count, frames = self.clips.shape[:2]
        with torch.no_grad():
            doubled = torch.cat([self.images, torch.zeros_like(self.images)])
            teachers = [each(doubled) for each in self.teachers.values()]
        student = self.student(torch.cat([self.clips, torch.zeros_like(self.clips)]))
        own = [self._numpy_map(student, tap, count, frames) for _, tap in PAIRS]
        terms = []
        for teacher in teachers:
            for (tap, _), mine in zip(PAIRS, own, strict=True):
                theirs = np.resize(self._numpy_map(teacher, tap, count, 1), mine.shape)
                pair = (F.normalize(torch.from_numpy(each), dim=1) for each in (mine, theirs))
                terms.append(F.mse_loss(*pair))
        return F.cross_entropy(student.logits[:count], self.labels) + torch.stack(terms).mean().to(self.labels.device)

    def _numpy_map(self, outputs: Outputs, tap: str, count: int, frames: int) -> np.ndarray:
        meaning = self.table[outputs.logits.argmax(dim=1)]
        slope = ((meaning[:count] - meaning[count:]) / meaning[:count]).detach().cpu().numpy().mean(axis=1)
        activation = outputs.features[tap][: count * frames].detach().cpu().numpy()
        found = np.maximum((activation * slope.repeat(frames)[:, None, None, None]).sum(axis=1), 0)
        found = found - found.min()
        return found / found.max() if found.max() else found

    def seconds(self, objective: Callable[[Bench], Tensor]) -> float:
        """Time of a whole step."""
        start = time.perf_counter()
        self.optimizer.zero_grad()
        objective(self).backward()
        self.optimizer.step()
        if self.labels.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter() - start


WAYS = {
    "without": Bench.without,
    "with": Bench.with_gsdm,
    "teachers": Bench.with_teachers,
    "published": Bench.published,
}


def memory(options: argparse.Namespace, way: str) -> float:
    """Peak MiB of this process beyond its imports."""
    before = _peak(options.device)
    bench = Bench(options)
    for _ in range(3):
        bench.seconds(WAYS[way])
    return _peak(options.device) - before


def _peak(device: str) -> float:
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def ratios(way: str, runs: int) -> Iterator[float]:
    """CPU seconds of a step ÷ those of a step as published, neighbours in time, at the size of docs/results/costs.md."""
    bench = Bench(argparse.Namespace(device="cpu", batch=16, frames=8, size=64, width=0.25))
    for number in range(runs + 1):
        start = time.process_time()
        bench.seconds(WAYS[way])
        middle = time.process_time()
        bench.seconds(WAYS["published"])
        if number:  # the first step warms up
            yield (middle - start) / (time.process_time() - middle)


def main() -> None:
    """Print one line per way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = {way: pool.apply(memory, (options, way)) for way in WAYS}
    bench = Bench(options)
    taken = [{way: bench.seconds(WAYS[way]) for way in WAYS} for _ in range(options.steps + 2)][2:]
    for way in WAYS:
        seconds = statistics.median(step[way] for step in taken)
        ratio = statistics.median(step[way] / step["without"] for step in taken)  # of neighbours in time
        print(f"{way:<10} {1000 * seconds:8.1f} ms   {ratio:5.2f} x without   {peaks[way]:7.0f} MiB")


if __name__ == "__main__":
    main()
