"""Names that participants and terms cannot have, because kdcore and losses store modules under them in a `nn.ModuleDict`."""

from __future__ import annotations

import re

__all__ = ["is_module_attribute"]

_ATTRIBUTE = re.compile(
    """
    T_destination|add_module|apply|bfloat16|buffers|call_super_init|children|clear|compile|cpu|cuda|double|dump_patches|
    eval|extra_repr|float|forward|get_buffer|get_extra_state|get_parameter|get_submodule|half|ipu|items|keys|
    load_state_dict|modules|mtia|named_buffers|named_children|named_modules|named_parameters|parameters|pop|
    register_backward_hook|register_buffer|register_forward_hook|register_forward_pre_hook|register_full_backward_hook|
    register_full_backward_pre_hook|register_load_state_dict_post_hook|register_load_state_dict_pre_hook|
    register_module|register_parameter|register_state_dict_post_hook|register_state_dict_pre_hook|requires_grad_|
    set_extra_state|set_submodule|share_memory|state_dict|to|to_empty|train|training|type|update|values|xpu|zero_grad
    """,
    re.VERBOSE,
)
"""Public attributes of `torch.nn.ModuleDict`, listed so that a recipe can be checked without importing torch."""


def is_module_attribute(name: str) -> bool:
    """True if `torch.nn.ModuleDict` has a public attribute `name`, which no submodule can replace."""
    return _ATTRIBUTE.fullmatch(name) is not None
