"""Who must be in a recipe, and what each must be told: losses, teachers, students, labels."""

import re

LOSSES = """losses:
  - cross-entropy
  - {name: soft-target, weight: 0.5, temperature: 2}
  - {name: feature, id: late, teacher: block, student: layers.1}
"""
TEACHERS = re.compile(r"teachers:\n(?:  .*\n)+")


def test_no_losses(valid, problems):
    [found] = problems(valid.replace(LOSSES, "losses: []\n"))
    assert (found.path, found.line, found.message) == ("losses", 18, "must not be empty")


def test_missing_losses(valid, problems):
    [found] = problems(valid.replace(LOSSES, ""))
    assert (found.path, found.message) == ("losses", "the key 'losses' is missing")


def test_what_no_override_said_is_missed_in_the_file(valid, problems, tmp_path):
    [found] = problems(valid.replace(LOSSES, ""), "seeds=[1]")
    assert (found.file, found.message) == (tmp_path / "recipe.yaml", "the key 'losses' is missing")


def test_teachers_needed(valid, problems):
    found = problems(TEACHERS.sub("", valid))
    assert [each.path for each in found] == ["losses[1]", "losses[2]"]
    assert found[0].message == "the loss 'soft-target' needs at least 1 teacher, and 'student' learns from none"


def test_a_term_without_weight_needs_nothing(valid, load):
    load(TEACHERS.sub("", valid), "losses.soft-target.weight=0", "losses.late.weight=0")


def test_teachers_learn_with_labels_that_students_are_not_told(valid, load):
    text = valid.replace("  - cross-entropy\n", "").replace("schedule: {name: one-stage, training: {epochs: 3}}\n", "")
    recipe = load(text, "data.labels=withheld", "teachers.acc.part=teacher")
    assert [term.id for term in recipe.teacher_losses] == ["cross-entropy"]


def test_two_participants_of_one_name(valid, problems):
    text = valid.replace(
        "student:\n  modality: skeleton\n  encoder: net\n", "students:\n  acc:\n   modality: skeleton\n   encoder: net\n"
    )
    found = problems(text.replace("  taps: [layers.1]", "   taps: [layers.1]"))
    assert [(each.path, each.line) for each in found] == [("students.acc", 15)]


def test_either_student_or_students(valid, problems):
    both = problems(valid + "students: {b: {like: student}}\n")
    assert [(each.path, each.line) for each in both] == [("students", 24)]
    neither = problems(re.sub(r"student:\n(  .*\n)+", "", valid))
    assert [each.message for each in neither] == ["there is no student: give 'student', or several 'students'"]


def test_several_modalities_need_a_mapping(valid, problems):
    text = valid.replace("modality: accelerometer", "modality: [accelerometer, gyroscope]")
    assert {(each.path, each.line) for each in problems(text)} >= {("teachers.acc.transforms", 9)}
    mapped = text.replace("    transforms:\n      - {name: cut, length: 64}", "    transforms: {accelerometer: [], joint: []}")
    assert {(each.path, each.line) for each in problems(mapped)} >= {("teachers.acc.transforms.joint", 9)}
