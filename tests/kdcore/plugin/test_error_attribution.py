"""Errors are attributed to the plugin or to kdcore."""

from __future__ import annotations

import importlib

import pytest

from kdcore import Batch, LossContext, Outputs
from kdcore.plugin.error_attribution import blamed
from kdcore.plugin.manager import PluginManager

CODE = """
    import torch
    from kdcore import DistillationLoss

    def helper(x):
        return x.nonsense()

    class Base(DistillationLoss):
        def forward(self, ctx):
            return helper(ctx.student.logits)

    class Gap(Base):
        pass

    class Greedy(DistillationLoss):
        def forward(self, ctx):
            raise torch.cuda.OutOfMemoryError("no memory")

    @hookimpl
    def register_losses(register):
        register("gap", "faulty:Gap")
        register("greedy", "faulty:Greedy")

    @hookimpl
    def run_started(run):
        raise ValueError(name)

    def command():
        int("x")
"""


LOSS = """
    from kdcore import DistillationLoss, Needs

    class Gap(DistillationLoss):
        def forward(self, ctx):
            return ctx.student.logits.nonsense()

    @hookimpl
    def register_losses(register):
        register("gap", "{module}:Gap")
"""


@pytest.fixture
def manager(workshop):
    return workshop.manager(faulty=CODE)


def error_of(function, *args, **options):
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(*args, **options)
    return caught.value


def context():
    import torch

    return LossContext(Outputs(torch.zeros(2, 3)), {}, Batch(torch.arange(2), {}, None))


def test_a_crash_in_a_component_names_it_and_the_plugin(manager):
    error = error_of(manager.registry.get("loss", "gap").load()(), context())
    said = str(blamed(error, manager))
    assert said.startswith("plugin 'faulty' (faulty): loss 'gap' failed in forward (")
    assert "AttributeError: 'Tensor' object has no attribute 'nonsense'" in said
    assert "report this to its author, or remove it" in said


def test_a_crash_in_a_hook_names_it(manager):
    said = str(blamed(error_of(manager.hook.run_started, run=None), manager))
    assert said.startswith("plugin 'faulty' (faulty): hook 'run_started' failed")


def test_an_error_of_the_machine_or_of_other_code_is_nobodys_fault(manager):
    assert blamed(error_of(manager.registry.get("loss", "greedy").load()(), context()), manager) is None
    assert blamed(error_of(importlib.import_module("faulty").command), manager) is None
    assert blamed(error_of(int, "x"), manager) is None


def test_the_author_of_a_file_is_told_to_mend_it(workshop):
    manager = PluginManager([])
    manager.add_file(workshop.write("own_loss", LOSS.format(module="own_loss")))
    said = str(blamed(error_of(manager.registry.get("loss", "gap").load()(), context()), manager))
    assert "; fix it there, or remove it from the recipe" in said
    assert "report this to its author" not in said


def test_a_tap_that_is_not_declared_is_suspected(workshop):
    code = LOSS.format(module="pooling").replace("logits.nonsense()", "features['pooled']")
    manager = workshop.manager(pooling=code)
    said = str(blamed(error_of(manager.registry.get("loss", "gap").load()(), context()), manager))
    hint = "declare it: needs = Needs(student_taps=('pooled',)), or teacher_taps, or peer_taps)"
    assert f"KeyError: 'pooled' (if that is a tap, {hint}" in said


def test_a_crash_in_a_class_that_extends_another_component_names_the_class_itself(workshop):
    code = LOSS.format(module="family").replace("    @hookimpl", "    class Younger(Gap):\n        pass\n\n    @hookimpl", 1)
    code += '        register("younger", "family:Younger")\n'
    manager = workshop.manager(family=code)
    said = [
        str(blamed(error_of(manager.registry.get("loss", name).load()(), context()), manager)) for name in ("gap", "younger")
    ]
    assert ["loss 'gap' failed" in said[0], "loss 'younger' failed" in said[1]] == [True, True]
