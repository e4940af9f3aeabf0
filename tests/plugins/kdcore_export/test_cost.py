from __future__ import annotations

import time

import pytest
import torch
from torch import nn

from kdcore_export.export import latency, operations, parameters


def test_multiply_adds_are_those_counted_by_hand():
    convolution = nn.Conv1d(3, 8, 5, padding=2)
    assert operations(convolution, (torch.zeros(1, 3, 40),)) == 3 * 8 * 5 * 40
    assert parameters(convolution) == 3 * 8 * 5 + 8
    assert operations(nn.Linear(7, 11), (torch.zeros(1, 7),)) == 77


def test_a_recurrent_layer_is_counted():
    steps, inputs, hidden = 9, 3, 8
    recurrent = nn.LSTM(inputs, hidden, batch_first=True).eval()
    assert operations(recurrent, (torch.zeros(1, steps, inputs),)) == steps * 4 * hidden * (inputs + hidden)


def test_latency_is_the_median_and_leaves_the_threads_as_they_were():
    threads, calls = torch.get_num_threads(), []

    def call():
        calls.append(torch.get_num_threads())
        if len(calls) % 10 == 0:
            time.sleep(0.02)

    assert latency(call) < 0.01
    assert set(calls) == {1}
    assert torch.get_num_threads() == threads
    assert latency(lambda: time.sleep(0.001)) == pytest.approx(0.001, rel=1)
