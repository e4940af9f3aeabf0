"""Random streams: their draws do not depend on others, and others do not depend on them."""

from __future__ import annotations

import learning
import torch
from learning import Labels, distiller

from kdcore.training.participants import TermSpec
from kdcore.training.randomness import RandomStream, derive
from kdcore.training.step import StageStep


def test_draws_in_a_stream_leave_the_global_generator_alone_and_continue_where_they_ended():
    torch.manual_seed(5)
    stream, inside, outside = RandomStream("a", torch.device("cpu")), [], []
    for _ in range(3):
        outside.append(torch.rand(1))
        with stream:
            inside.append(torch.rand(2))
    numbers, own = torch.Generator().manual_seed(5), torch.Generator().manual_seed(derive(5, "a"))
    assert torch.equal(torch.cat(outside), torch.cat([torch.rand(1, generator=numbers) for _ in range(3)]))
    assert torch.equal(torch.cat(inside), torch.cat([torch.rand(2, generator=own) for _ in range(3)]))


def test_a_teacher_trained_beside_a_student_leaves_its_random_numbers_alone(tmp_path):
    """Its noise and dropout are those of the baseline, which has no teacher."""
    table = learning.table(tmp_path)
    rows, values = table.rows["train"], []
    for learners in (("student",), ("teacher", "student")):
        made = distiller(table, [TermSpec("labels", 1.0, Labels)]).train()
        step = StageStep(made, learning.stage("s", learners, learning.Training(epochs=1)), table, True)
        torch.manual_seed(5)
        for _ in range(2):
            values.append(step(rows, rows)[1][-1])
    assert values[:2] == values[2:]
    assert values[0] != values[1], "there is noise"
