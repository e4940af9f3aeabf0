"""Exemptions, cases and what pytest and the shell make of results."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import EntryPoint

import faulty_losses
import pytest

from kdcore.errors import PluginError
from kdcore.plugin.manager import PluginManager
from kdcore.plugin.registry import Entry
from kdcore.testing import Case, NotApplicable, check_component, conformance_tests
from kdcore.testing.run import trials

pytest_plugins = ["pytester"]

PLUGIN = """
from kdcore import hookimpl

@hookimpl
def register_losses(register):
    for name in ("Plain", "BySample", "Demanding"):
        register(name, f"faulty_losses:{name}")

@hookimpl
def register_schedules(register):
    register("Plain", "faulty_plans:PlainSchedule")
"""
TOLD = """
from kdcore.testing import Case

cases = {"Demanding": Case({"tap": "features"})}
expected_failures = {"BySample": {"answers": "it is meant to be wrong"}}
"""


SCHEDULE = Entry("schedule", "PlainSchedule", "faulty", "faulty_plans:PlainSchedule")
STRANGER = Entry("schedule", "Stranger", "faulty", "faulty_plans:Stranger")


def manager(tmp_path, monkeypatch, name: str, told: str = "") -> PluginManager:
    package = tmp_path / name
    package.mkdir()
    (package / "__init__.py").write_text(PLUGIN)
    if told:
        (package / "conformance.py").write_text(told)
    monkeypatch.syspath_prepend(tmp_path)
    return PluginManager([EntryPoint(name, name, "kdcore")])


def statuses(found) -> dict[str, str]:
    return {result.check.name: result.status for result in found}


def test_a_memory_with_an_entry_for_each_sample_has_room():
    found = statuses(check_component(Entry("loss", "SizedMemory", "faulty", "sample_losses:SizedMemory")))
    assert "failed" not in found.values(), found


def test_a_loss_with_optional_labels_meets_unknown_ones():
    found = check_component(Entry("loss", "UnknownLabels", "faulty", "sample_losses:UnknownLabels"))
    assert "Target -1 is out of bounds" in next(each.message for each in found if each.check.name == "answers")


def test_a_reasoned_exemption_turns_a_failure_into_an_exemption():
    found = statuses(check_component(STRANGER, exemptions={"stages_valid": "it is meant to be wrong"}))
    assert found["stages_valid"] == "exempt"
    assert "failed" not in found.values()


def test_a_fault_of_the_processor_is_no_fault_of_the_encoder():
    entry = Entry("encoder", "OnFaultyArithmetic", "faulty", "faulty_encoders:OnFaultyArithmetic")
    (found,) = [result for result in check_component(entry) if result.check.name == "precisions_agree"]
    assert (found.status, found.message) == (
        "not applicable",
        "bfloat16 results on this processor differ when a pass is repeated",
    )


def test_an_exemption_from_a_check_that_passes_is_a_failure():
    found = check_component(SCHEDULE, exemptions={"documented": "nobody reads it"})
    (failure,) = [result for result in found if result.status == "failed"]
    assert failure.check.name == "documented"
    assert "remove the exemption" in failure.message


def test_an_exemption_from_a_check_that_does_not_apply_is_no_failure():
    def unavailable(folder):
        raise NotApplicable("not on this machine")

    found = statuses(check_component(SCHEDULE, Case(unavailable), {"repeatable": "it counts"}))
    assert found["repeatable"] == "not applicable"


@pytest.mark.parametrize(
    ("exemptions", "said"), [({"documented": "  "}, "no reason"), ({"documentd": "why"}, "did you mean 'documented'")]
)
def test_exemptions_that_make_no_sense_are_refused(exemptions: dict[str, str], said: str):
    with pytest.raises(PluginError, match=said):
        check_component(SCHEDULE, exemptions=exemptions)


def test_a_case_may_say_that_nothing_can_be_tested_here():
    def unavailable(folder):
        raise NotApplicable("not on this machine")

    found = check_component(SCHEDULE, Case(unavailable))
    assert {result.message for result in found if result.check.name != "documented"} == {"not on this machine"}


def test_a_plugin_tells_of_its_own_cases_and_exemptions(tmp_path, monkeypatch):
    found = trials("telling", manager=manager(tmp_path, monkeypatch, "telling", TOLD))
    by_name = {trial.name: trial for trial in found}
    assert by_name["loss/BySample/answers"].exemption == "it is meant to be wrong"
    assert by_name["loss/Demanding/constructed"].result().status == "passed"
    assert "schedule/Plain/repeatable" in by_name


def test_a_component_may_have_several_cases(tmp_path, monkeypatch):
    told = TOLD.replace('Case({"tap": "features"})', '[Case({"tap": "features"}), Case({"tap": 3})]')
    found = {trial.name: trial for trial in trials("several", manager=manager(tmp_path, monkeypatch, "several", told))}
    assert found["loss/Demanding/constructed-1"].result().status == "passed"
    assert found["loss/Demanding/constructed-2"].result().status == "failed"
    assert "loss/Plain/constructed" in found


@pytest.mark.parametrize(
    ("cases", "said"),
    [
        ({"Plane": Case()}, "no component 'Plane'; did you mean 'Plain'"),
        ({"Plain": Case()}, "write 'loss/Plain' or 'schedule/Plain'"),
    ],
)
def test_cases_of_nothing_are_refused(tmp_path, monkeypatch, cases, said: str):
    plugins = manager(tmp_path, monkeypatch, f"untold{len(said)}")
    with pytest.raises(PluginError, match=said):
        trials(f"untold{len(said)}", cases, manager=plugins)


HALVES = """
from kdcore import DistillationLoss, Needs, hookimpl

class Halves(DistillationLoss):
    '''Mean square of the logits of the first half of a batch.'''

    needs = Needs()

    def forward(self, ctx):
        return ctx.student.logits[: (len(ctx.student.logits) + 1) // 2].square().mean()

@hookimpl
def register_losses(register):
    register("halves", "NAME:Halves")
"""


def of_file(path) -> PluginManager:
    manager = PluginManager([])
    manager.add_file(path)
    return manager


@pytest.mark.parametrize("declared", [False, True])
def test_a_plugin_file_declares_its_expected_failures(tmp_path, declared):
    name = f"halves_{declared}".lower()
    said = 'expected_failures = {"halves": {"permutation_invariant": "splits batches"}}' if declared else ""
    (tmp_path / f"{name}.py").write_text(HALVES.replace("NAME", name) + said)
    made = [trial.result() for trial in trials(name.replace("_", "-"), manager=of_file(tmp_path / f"{name}.py"))]
    found = {result.check.name: result for result in made}
    result = found["permutation_invariant"]
    assert result.status == ("exempt" if declared else "failed")
    assert declared or "declare expected_failures = {'halves': {'permutation_invariant': 'why'}}" in result.message
    assert found["weights_count_samples"].status == "not applicable"
    assert found["student_gets_gradient"].status == "passed"


def test_expected_failures_that_are_no_dict_are_refused(tmp_path):
    (tmp_path / "listed_halves.py").write_text(HALVES.replace("NAME", "listed_halves") + "expected_failures = ['halves']")
    with pytest.raises(PluginError, match=r"listed_halves\.expected_failures must be a dict"):
        trials("listed-halves", manager=of_file(tmp_path / "listed_halves.py"))


def test_unknown_plugins_are_named():
    with pytest.raises(PluginError, match="no plugin 'nowhere' is installed"):
        conformance_tests("nowhere")


def test_a_test_file_of_two_lines(pytester: pytest.Pytester):
    pytester.makepyfile(
        "from kdcore.testing import conformance_tests\n"
        "test_conformance = conformance_tests('schedules', expected_failures={\n"
        "    'progressive': {'documented': 'nobody reads it'}})"
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=15, failed=1)
    result.stdout.fnmatch_lines(["*schedule/progressive/documented: is expected to fail*remove the exemption*"])


def test_without_a_test_file(pytester: pytest.Pytester):
    result = pytester.runpytest_inprocess("--conformance", "schedules")
    result.assert_outcomes(passed=16)


def test_pytest_starts_without_what_the_kit_needs():
    code = "import sys, kdcore.testing.pytest_plugin; print({'torch', 'numpy', 'pydantic'} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_the_shell(capsys: pytest.CaptureFixture[str]):
    from kdcore.testing.shell import check_and_print

    assert check_and_print("two-stage", verbose=True)
    shown = capsys.readouterr().out
    assert "schedule two-stage: 8 passed" in shown
    assert "ok repeatable: Called again" in shown
    with pytest.raises(PluginError, match="did you mean 'two-stage'"):
        check_and_print("two-stag")


def test_faults_are_shown_with_the_line_that_raised(pytester: pytest.Pytester):
    pytester.makepyfile(
        f"import sys; sys.path.insert(0, {str(faulty_losses.__file__.rpartition('/')[0])!r})\n"
        "from kdcore.plugin.registry import Entry\n"
        "from kdcore.testing.checks import Subject, checks_of\n"
        "from kdcore.testing.run import Trial\n"
        "from kdcore.testing.suite import report\n"
        "def test_it():\n"
        "    subject = Subject(Entry('loss', 'Unmakeable', 'faulty', 'faulty_losses:Unmakeable'))\n"
        "    check, = [each for each in checks_of('loss') if each.name == 'constructed']\n"
        "    report(Trial(subject, check))\n"
    )
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["*raise RuntimeError*not today*", "*loss/Unmakeable/constructed: RuntimeError: not today*"])


def test_other_processes_do_not_warn_of_broken_plugins_again(tmp_path):
    broken = tmp_path / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (broken / "entry_points.txt").write_text("[kdcore]\nbroken = no_such_module\n")
    done = subprocess.run(
        [sys.executable, "-m", "kdcore", "check-plugin", "losses/cross-entropy"],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "KDCORE_STRICT_PLUGINS": "0"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "broken" in line or "Warning" in line] == [
        line for line in done.stderr.splitlines() if line.startswith("warning: plugin 'broken' (broken) is not used")
    ]
    assert done.stderr.count("is not used") == 1


def test_what_was_installed_later_is_found_by_other_processes(tmp_path, monkeypatch):
    def distributed(name: str, module: str) -> str:
        return statuses(check_component(Entry("loss", name, "faulty", f"{module}:{name}")))["distributed"]

    assert distributed("Plain", "faulty_losses") == "passed"
    (tmp_path / "later_loss.py").write_text("from faulty_losses import Plain\n\n\nclass Later(Plain):\n    '''The same.'''\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert distributed("Later", "later_loss") == "passed"


@pytest.mark.parametrize("case", [Case(warmup_steps=1), Case(random_per_sample=True)])
def test_settings_of_losses_are_refused_for_other_kinds(case: Case):
    with pytest.raises(PluginError, match="schedule 'PlainSchedule': only cases of losses may set warmup_steps or random_per"):
        check_component(SCHEDULE, case)


@pytest.mark.parametrize(
    ("name", "case", "said"),
    [
        ("Early", Case(warmup_steps=1), "its case sets warmup_steps=1, but a gradient reaches the student at once: remove it"),
        (
            "Late",
            Case(warmup_steps=2),
            "no gradient reaches student.logits: one does with Case(warmup_steps=3), which is right",
        ),
        (
            "NeverRandom",
            Case(random_per_sample=True),
            "random_per_sample, but its value does not depend on the seed: remove it",
        ),
        (
            "MaskedInOrder",
            Case(random_per_sample=True),
            "its value changes with the order of samples: over 400 draws, the mean ",
        ),
    ],
)
def test_a_setting_that_is_not_true_is_a_failure(name: str, case: Case, said: str):
    found = check_component(Entry("loss", name, "faulty", f"faulty_loss_cases:{name}"), case)
    assert any(said in each.message for each in found if each.status == "failed"), found


def test_a_negative_number_of_warmup_steps_is_refused():
    with pytest.raises(ValueError, match="warmup_steps must be at least 0, not -1"):
        Case(warmup_steps=-1)
